"""Sites, their order and share, made of what a process has seen."""

from pathlib import Path
from typing import Any

import pytest

from holdwater.attribution.explanation import explain
from holdwater.attribution.patterns import read_patterns
from holdwater.attribution.site import Growing
from holdwater.detectors.verdict import Clock

SCRIPT = "losses = []\nfor step in range(9):\n    loss = model(batch)\n    losses.append(loss)\n"


@pytest.fixture
def script(tmp_path: Path) -> str:
    """A script of four lines."""
    file = tmp_path / "train.py"
    file.write_text(SCRIPT, encoding="utf-8")
    return str(file)


def gain(script: str, name: str = "losses", *, size: int = 1_000_000, **more: Any) -> dict[str, Any]:
    """A list of the script that has grown by 100 tensors."""
    naming = {"role": "global", "name": name, "owner": "__main__", "file": script, "line": None}
    return {
        "kind": "container", "type": "list", "count": 100, "elements": {"Tensor": 24}, "nodes": 0, "files": 0,
        "weight": {"tensors": size, "python": 0, "native": 0}, "views": False, "handles": 0,
        "path": [naming], "naming": naming, "bases": {"torch.Tensor": 1.0}, "traits": [],
    } | more  # fmt: skip


def seen(script: str, *gains: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What a window of 100 steps has shown."""
    return {"from_step": 100, "to_step": 200, "gains": list(gains), "users_files": [script], "missing": []} | more


def place(script: str, line: int, size: int, *, steps: int = 23) -> dict[str, Any]:
    """A line that allocates what stays."""
    return {"file": script, "line": line, "function": "<module>", "bytes": size, "count": 23, "steps": steps,
            "of_steps": 23, "inner": "linear"}  # fmt: skip


class TestExplain:
    """The holder and the line that allocates."""

    def test_names_the_holder_by_its_source(self, script: str) -> None:
        """Where the recording is missing, the source says where the value was made."""
        made = explain(seen(script, gain(script)), Growing("host.tensors", 10_000.0))

        assert [(site.role, site.line, site.name) for site in made.sites] == [
            ("held", 4, "losses"), ("allocated", 3, None),
        ]  # fmt: skip
        assert made.explained == 1.0
        assert made.chain[-1].startswith("which keeps +10.0 kB/step")

    def test_prefers_what_was_seen_to_the_source(self, script: str) -> None:
        """The line at which the list was seen to grow, and the one whose allocations stayed."""
        recorded = {"places": [place(script, 3, 230_000)]}
        found = seen(script, gain(script, "kept"), lines={"0": [[script, 4, 3]]})

        made = explain(found, Growing("host.tensors", 10_000.0), recorded=recorded)

        assert [(site.role, site.line) for site in made.sites] == [("held", 4), ("allocated", 3)]

    def test_counts_what_was_seen_in_two_ways_once(self, script: str) -> None:
        """A list of losses has grown, and so have the graphs behind its name."""
        made = explain(seen(script, gain(script), gain(script, kind="graph")), Growing("host.tensors", 10_000.0))

        assert made.sites[0].bytes_per_step == 10_000.0

    @pytest.mark.parametrize(("size", "held", "lines"), [
        (230_000, 1_000_000, [4, 3]), (5_000, 1_000_000, [4]), (230_000, 90_000_000, [4, 3]),
    ])  # fmt: skip
    def test_leaves_lines_out_that_allocate_little(self, script: str, size: int, held: int, lines: Any) -> None:
        """Of 10 kB a step; what is held may be weighed with more than has grown, which is no measure for lines."""
        recorded = {"places": [place(script, 3, size)]}
        found = seen(script, gain(script, size=held), lines={"0": [[script, 4, 3]]})

        made = explain(found, Growing("host.tensors", 10_000.0), recorded=recorded)

        assert [site.line for site in made.sites] == lines

    def test_says_how_little_it_explains(self, script: str) -> None:
        """Of a tenth of the growth nothing is told: no way, no cause, no cure; the lines keep their numbers."""
        made = explain(seen(script, gain(script, size=100_000)), Growing("host.tensors", 10_000.0))

        assert made.explained == pytest.approx(0.1)
        assert (made.answer, made.chain, made.pattern) == ("not explained yet", (), None)
        assert [site.share for site in made.sites] == [0.1, 0.1]

    def test_says_how_each_line_is_known(self, script: str) -> None:
        """The list was seen to grow at its line; the line that makes was read, and not seen to run."""
        found = seen(script, gain(script), lines={"0": [[script, 4, 3]]}, ran={script: [2, 4]})

        made = explain(found, Growing("host.tensors", 10_000.0))

        assert [(site.role, site.known_by, site.ran) for site in made.sites] == [
            ("held", "seen", True), ("allocated", "source", False),
        ]  # fmt: skip
        assert made.chain[0] == "the source makes it at train.py:3: loss = model(batch) (it was not seen to run)"
        assert made.chain[1].startswith("stored in `losses`")

    def test_says_of_a_line_that_was_only_read_that_it_was(self, script: str) -> None:
        """Nothing is "allocated at" or "stored in" a line that nobody saw run."""
        made = explain(seen(script, gain(script)), Growing("host.tensors", 10_000.0))

        assert not any(link.startswith(("allocated at", "stored in")) for link in made.chain)
        assert "the source stores it at train.py:4" in made.chain[1]

    def test_explains_pages_of_files_by_what_maps_them(self, script: str) -> None:
        """Not by memory of malloc, of the same line or of another."""
        recorded = {"places": [
            place(script, 3, 330_000) | {"mapped": 230_000}, place(script, 4, 230_000) | {"mapped": 0},
        ]}  # fmt: skip
        growing = Growing("host.file", 10_000.0)

        made = explain(seen(script, gain(script, size=0, files=1_000_000)), growing, recorded=recorded)

        assert [(site.role, site.line, site.share) for site in made.sites] == [
            ("held", 4, 1.0), ("allocated", 3, 1.0),
        ]  # fmt: skip

    def test_finds_what_a_library_keeps_by_its_class(self, tmp_path: Path) -> None:
        """Threads lie in a table of Python's own, whose name no statement of the user's resembles."""
        script = tmp_path / "watch.py"
        script.write_text("import threading\nwatcher = threading.Thread(target=watch)\nwatcher.start()\n", "utf-8")
        table = {"role": "global", "name": "_active", "owner": "threading", "file": "/usr/threading.py", "line": 1}
        kept = gain(str(script), naming=table, path=[table], elements={"int": 24, "Thread": 24}, handles=100)

        made = explain(seen(str(script), kept), Growing("process.handles", 1.0))

        assert [(site.role, site.line, site.known_by) for site in made.sites][:1] == [("held", 2, "source")]

    def test_ignores_calls_that_make_such_elements_where_the_users_own_name_holds_them(
        self, tmp_path: Path
    ) -> None:
        """Its own statements count: here there is none."""
        script = tmp_path / "watch.py"
        script.write_text("import threading\nwatcher = threading.Thread(target=watch)\n", "utf-8")
        kept = gain(str(script), "kept", elements={"Thread": 24}, handles=100)

        made = explain(seen(str(script), kept), Growing("process.handles", 1.0))

        assert all(site.line != 2 for site in made.sites)

    @pytest.mark.parametrize(
        ("component", "grown", "line"),
        [("host.native", False, 2), ("host.native", True, 4), ("host.tensors", False, 0)],
    )
    def test_a_profiler_that_is_on_holds_what_nothing_else_does(
        self, tmp_path: Path, component: Any, grown: bool, line: int
    ) -> None:
        """Its events cannot be measured: it is named where native memory grows and no other holder was found."""
        script = tmp_path / "profiled.py"
        script.write_text("from torch.profiler import profile\nwith profile() as prof:\n    kept = []\n"
                          "    kept.append(train())\n", "utf-8")  # fmt: skip
        naming = {"role": "global", "name": "prof", "owner": "__main__", "file": str(script), "line": None}
        profiler = gain(str(script), size=0, kind="value", naming=naming, path=[naming])
        gains = [gain(str(script), "kept")] if grown else []

        made = explain(seen(str(script), *gains, profiler=profiler), Growing(component, 10_000.0))

        assert [site.line for site in made.sites if site.role == "held"] == [line] * bool(line)

    def test_names_what_keeps_the_holes_of_a_fragmented_heap(self, script: str) -> None:
        """Blocks that are kept weigh next to nothing beside the free memory between them."""
        kept = gain(script, size=160_000, count=100)

        made = explain(seen(script, kept), Growing("host.retained", 20_000.0))

        assert [(site.role, site.name, site.share) for site in made.sites] == [("held", "losses", 1.0)]
        assert made.chain[-1] == "which keeps 100 blocks of 1.60 kB: +20.0 kB/step of free memory between them"

    def test_ignores_small_objects_where_a_heap_is_fragmented(self, script: str) -> None:
        """Those lie in Python's own pools."""
        kept = gain(script, size=16_000, count=100)

        made = explain(seen(script, kept), Growing("host.retained", 20_000.0))

        assert (made.sites, made.answer) == ((), "not explained yet")

    def test_prefers_a_line_that_ran(self, tmp_path: Path) -> None:
        """Of two lines that store under a name, the one in a branch that never ran is not named."""
        script = tmp_path / "two.py"
        script.write_text(
            "kept = []\nif False:\n    kept.append(1)\nelse:\n    kept.append(2)\n", encoding="utf-8"
        )
        file = str(script)
        found = seen(file, gain(file, "kept"), ran={file: [2, 5]})

        made = explain(found, Growing("host.tensors", 10_000.0))

        assert [(site.line, site.ran) for site in made.sites] == [(5, True), (5, True)]

    def test_tells_nothing_of_a_window_that_was_closed_too_early(self, script: str) -> None:
        """Its lines are those that run between two events."""
        found = seen(script, gain(script), unfinished="it was closed before the second of the evaluations")

        made = explain(found, Growing("host.tensors", 10_000.0, "evaluation"))

        assert (made.answer, made.pattern) == ("not explained yet", None)
        assert made.missing == ("it was closed before the second of the evaluations",)

    def test_ignores_a_line_that_allocates_far_more_than_what_grows(self, script: str) -> None:
        """What stays of it will be freed: else memory would grow by as much."""
        recorded = {"places": [place(script, 3, 23 * 300_000)]}

        made = explain(seen(script), Growing("host.tensors", 2_600.0), recorded=recorded)

        assert made.sites == ()

    @pytest.mark.parametrize(("count", "bases", "names"), [
        (100, {"matplotlib.figure.Figure": 1.0}, ["losses"]), (9, {"matplotlib.figure.Figure": 1.0}, []),
        (100, {"builtins.str": 1.0}, []),
    ])  # fmt: skip
    def test_what_cannot_be_weighed_may_hold(self, script: str, count: int, bases: Any, names: list[str]) -> None:
        """A library's object more for each time that the line has run: it may own what the line allocates."""
        recorded = {"places": [place(script, 3, 230_000)]}
        small = gain(script, size=1000, count=count, bases=bases)

        made = explain(seen(script, small), Growing("host.native", 10_000.0), recorded=recorded)

        assert [site.name for site in made.sites if site.role == "held"] == names

    def test_ignores_a_line_of_which_only_the_newest_is_left(self, script: str) -> None:
        """What a collection will free."""
        recorded = {"places": [place(script, 3, 230_000) | {"early": 0.1}]}

        made = explain(seen(script), Growing("host.python", 10_000.0), recorded=recorded)

        assert made.sites == ()

    def test_weighs_by_events_what_comes_by_events(self, script: str) -> None:
        """Two of them lie between the counts, however long those are apart."""
        growing = Growing("host.tensors", 10_000.0, "evaluation", per_event=500_000.0)

        made = explain(seen(script, gain(script), events=2), growing)

        assert made.sites[0].bytes_per_step == pytest.approx(10_000.0)

    def test_names_a_native_thread(self, script: str) -> None:
        """And no line of the program, though the heap rose while one ran."""
        row = {"tid": 3, "name": "decoder", "bytes": 230_000, "count": 23, "steps": 23, "of_steps": 23}
        heap = [[script, 3, 30_000.0]]

        made = explain(
            seen(script, heap=heap, traced_steps=3),
            Growing("host.native", 10_000.0),
            recorded={"places": [], "threads": [row]},
        )

        assert made.sites == ()
        assert (made.explained, made.answer) == (1.0, "explained")
        assert made.chain == (
            "allocated by a native thread, `decoder`, in which no line of Python runs: +10.0 kB/step",
        )

    def test_takes_no_line_for_the_heap_where_native_threads_work(self, script: str) -> None:
        """The heap is every thread's: the longest line would have it all. A short one has it by itself."""
        growing = Growing("host.native", 10_000.0)
        more = {"traced_steps": 3, "native_threads": 1}
        long = [[script, 3, 30_000.0, 0.9], [script, 4, 2_000.0, 0.1]]
        short = [[script, 3, 30_000.0, 0.1], [script, 4, 0.0, 0.9]]

        assert explain(seen(script, heap=long, **more), growing).sites == ()
        assert [site.line for site in explain(seen(script, heap=short, **more), growing).sites] == [3]

    @pytest.mark.parametrize(("inner", "named"), [("evaluate", True), ("holdwater.evaluate", False)])
    def test_where_mlx_evaluates_says_not_who_keeps(self, script: str, inner: str, named: bool) -> None:
        """A function of the program's that has the same name does."""
        recorded = {"places": [place(script, 3, 230_000) | {"inner": inner}]}

        made = explain(seen(script), Growing("host.tensors", 10_000.0), recorded=recorded)

        assert bool(made.sites) == named

    def test_takes_no_line_where_the_heap_did_not_grow(self, script: str) -> None:
        """What `backward` makes, `zero_grad` frees: the growth comes in other steps than those that were traced."""
        heap = [[script, 3, 30_000.0, 0.1], [script, 4, -29_000.0, 0.1]]

        assert explain(seen(script, heap=heap, traced_steps=3), Growing("host.native", 10_000.0)).sites == ()

    def test_counts_the_interpreters_tables_where_a_line_adds_to_them(self, script: str) -> None:
        """An import adds to them too, and prints of tracebacks."""
        table = gain(script, traits=["interpreter's"])
        growing = Growing("host.python", 10_000.0)

        assert explain(seen(script, table), growing).sites == ()
        found = explain(seen(script, table, lines={"0": [[script, 3, 10]]}), growing).sites
        assert [(site.role, site.line) for site in found][:1] == [("held", 3)]

    def test_prefers_where_threads_stand_to_the_source(self, script: str) -> None:
        """What they wait in keeps them, wherever they were started."""
        threads = gain(script, "_active", stands=[[script, 3]])

        held, *_ = explain(seen(script, threads), Growing("host.tensors", 10_000.0)).sites

        assert (held.role, held.line, held.known_by) == ("held", 3, "seen")

    def test_prefers_the_programs_holder_to_a_list_of_all_processes(self, script: str) -> None:
        """Each process that lives is in the tables of multiprocessing."""
        listing = {
            "role": "global",
            "name": "_children",
            "owner": "multiprocessing.process",
            "file": None,
            "line": None,
        }
        children = gain(script, naming=listing, path=[listing], handles=100, count=100)
        growing = Growing("host.children", 10_000.0)

        both = seen(script, children, gain(script, "losses", handles=40), lines={"0": [[script, 3, 10]]})
        held, *_ = explain(both, growing).sites

        assert held.name == "losses"

    def test_names_who_adds_to_what_is_made_once(self, tmp_path: Path) -> None:
        """A buffer that `torch.save` writes into: the line that makes it says little."""
        file = tmp_path / "save.py"
        file.write_text("import io, torch\nbuffer = io.BytesIO()\nfor row in rows:\n    torch.save(row, buffer)\n")
        value = gain(str(file), "buffer", kind="value", type="BytesIO")

        held, *_ = explain(seen(str(file), value), Growing("host.python", 10_000.0)).sites

        assert (held.role, held.line) == ("held", 4)

    def test_ignores_a_line_that_allocated_in_one_step_only(self, script: str) -> None:
        """Something that was made once is no growth."""
        recorded = {"places": [place(script, 3, 10**9, steps=1)]}

        made = explain(seen(script), Growing("host.native", 10_000.0), recorded=recorded)

        assert made.sites == ()
        assert made.explained == 0.0

    def test_leaves_out_a_holder_of_next_to_nothing(self, script: str) -> None:
        """A list of numbers beside an allocation of megabytes."""
        recorded = {"places": [place(script, 3, 230_000_000)]}

        made = explain(seen(script, gain(script, size=2800)), Growing("host.native", 1e7), recorded=recorded)

        assert [(site.role, site.line) for site in made.sites] == [("allocated", 3)]
        assert made.pattern is not None
        assert made.pattern.name == "native-memory-not-freed"

    def test_finds_a_line_by_the_heap_where_what_was_recorded_is_next_to_nothing(self, script: str) -> None:
        """Memory that a library takes past the recording, beside 200 bytes a step that were recorded."""
        recorded, heap = {"places": [place(script, 2, 24 * 200)]}, [[script, 3, 180_000.0]]
        growing = Growing("host.native", 60_000.0)

        made = explain(seen(script, heap=heap, traced_steps=3), growing, recorded=recorded)

        assert [(site.role, site.line) for site in made.sites] == [("allocated", 3)]

    def test_finds_a_line_by_the_heap_at_the_event_that_was_waited_for(self, script: str) -> None:
        """It took 3 MB at the one event, not by the step; where none was waited for, one line of 3 MB is chance."""
        growing = Growing("host.native", 30_000.0, "evaluation", per_event=3e6)
        facts = {"heap": [[script, 3, 3_000_000.0], [script, 2, 90_000.0]], "traced_steps": 70}

        waited = explain(seen(script, by_events=True, **facts), growing)
        at_once = explain(seen(script, **facts), growing)

        assert [(site.role, site.line) for site in waited.sites] == [("allocated", 3)]
        assert at_once.sites == ()

    def test_finds_a_line_by_the_heap_where_nothing_else_shows(self, script: str) -> None:
        """It rises by about the rate at each step; another line by ten times as much."""
        heap = [[script, 3, 180_000.0], [script, 4, 2_000_000.0]]

        made = explain(seen(script, heap=heap, traced_steps=3), Growing("host.native", 60_000.0))

        assert [(site.role, site.line) for site in made.sites] == [("allocated", 3)]


class TestPatterns:
    """The catalogue."""

    def test_each_is_complete(self) -> None:
        """A name of its own, two lines of cure, a public reference."""
        patterns = [pattern for pattern, _ in read_patterns()]

        assert len({pattern.name for pattern in patterns}) == len(patterns) >= 25
        for pattern in patterns:
            assert pattern.reference.startswith("https://"), pattern.name
            assert 1 <= len(pattern.cure.splitlines()) <= 2, pattern.name


@pytest.mark.parametrize(("follows", "said"), [("compile", True), ("shape", True), ("step", False)])
def test_growth_by_compilations_names_the_guard(script: str, follows: Clock, said: bool) -> None:
    """Growth by steps has other reasons, though something was compiled again."""
    row = {"function": "forward", "file": script, "line": 3, "often": 12, "guard": "tensor 'batch' size mismatch"}

    made = explain(seen(script, gain(script), recompiled=[row]), Growing("host.native", 10_000.0, follows=follows))

    told = [link for link in made.chain if "compiled again 12 times" in link]
    assert bool(told) is said
    assert all("size mismatch" in link for link in told)
