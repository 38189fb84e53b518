"""The zoo in a matrix: variants keep their lines, every cell has a truth, and nothing runs twice."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from zoo.columns import (
    COLUMNS,
    Column,
    Event,
    Plan,
    growth,
    read_plans,
    substitutions,
    truth,
    variant,
    vary,
    why_not,
)
from zoo.labels import Label, read_folder, read_labels
from zoo.matrix import Ask, Cell, Results, busy, marks_of, run_column, summary
from zoo.scores import missed, score
from zoo.tools import Said

LABELS = [label for label in read_labels() if not label.needs_gpu]
PLANS = read_plans()
BY_NAME = {label.script.stem: label for label in LABELS}
COLUMN = {column.name: column for column in COLUMNS}
LEAK = Said(
    leak=True, verdict="leak", component="host.tensors", lines=(7,), facts={"sites": [["held", 7, "kept"]]}
)
FLAT = Said(leak=False, verdict="flat")


def applies(label: Label, column: Column) -> bool:
    """Whether a script is in a column."""
    return why_not(label, PLANS.get(label.script.stem), column) is None


def labelled(folder: Path, name: str, *, leaks: bool) -> Label:
    """A made-up script with its label, in a folder."""
    script = folder / f"{name}.py"
    script.write_text("kept = []\nfor step in range(10):\n    kept.append(step)\n    optimizer.step()\n", "utf-8")
    verdict = 'verdict = "leak"\ncomponent = "host.tensors"' if leaks else 'verdict = "flat"'
    held = '[held]\ncode = "kept.append(step)"\nname = "kept"' if leaks else ""
    script.with_suffix(".toml").write_text(f"{verdict}\n{held}\n", encoding="utf-8")
    return next(label for label in read_folder(folder) if label.script.stem == name)


class TestVariants:
    """Scripts at another pace and length."""

    @pytest.mark.parametrize("label", LABELS, ids=lambda label: str(label.script.stem))
    def test_keep_every_line(self, label: Label, tmp_path: Path) -> None:
        """Each compiles, has as many lines as before, and the label's code stands where it stood."""
        before = label.script.read_text(encoding="utf-8").splitlines()
        plan = PLANS[label.script.stem]
        for column in (column for column in COLUMNS if applies(label, column)):
            there = vary(label, plan, column, tmp_path)
            text = there.script.read_text(encoding="utf-8")
            lines = text.splitlines()
            swaps = substitutions(plan, column)

            compile(text, label.script.name, "exec")
            assert len(lines) == len(before)
            for line, moved in ((label.allocated, there.allocated), (label.held, there.held)):
                if line is not None and moved is not None and not any(old in line.code for old in swaps):
                    assert moved == line
                    assert lines[line.number - 1].strip() == line.code

    @pytest.mark.parametrize(
        "column", [column for column in COLUMNS if column.steps], ids=lambda column: column.name
    )
    def test_differ_in_little(self, column: Column) -> None:
        """In the lines of counts and of the step, and in no other; and in something."""
        for label in (label for label in LABELS if applies(label, column)):
            before = label.script.read_text(encoding="utf-8")
            plan = PLANS[label.script.stem]
            after = variant(before, plan, column)
            pieces = {*substitutions(plan, column), *(["optimizer.step()"] if column.pause else [])}
            changed = [old for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new]

            assert changed
            assert all(any(piece in line for piece in pieces) for line in changed)

    def test_scale_counts_and_sleep(self) -> None:
        """Counts go with the steps, the script's own sleep goes, and the pace is reached by one behind the step."""
        text = "for step in range(400):\n    if step == 1_00:\n        time.sleep(0.01)\n    optimizer.step()\n"
        plan = Plan(steps=400, counts=("range(400)", "step == 1_00"), sleeps=("time.sleep(0.01)",))

        fast = variant(text, plan, COLUMN["fast-3000"])
        slow = variant(text, plan, COLUMN["slow-100"])

        assert (
            fast
            == "for step in range(3000):\n    if step == 750:\n        time.sleep(0.0)\n    optimizer.step()\n"
        )
        assert "range(100)" in slow
        assert "step == 25" in slow
        assert "time.sleep(0.01)" in slow
        assert slow.endswith('    optimizer.step(); __import__("time").sleep(0.02)\n')

    def test_refuse_text_that_is_not_unique(self) -> None:
        """What stands there twice would be changed twice."""
        plan = Plan(steps=400, counts=("range(400)",))

        with pytest.raises(ValueError, match="stands there 2 times"):
            variant("range(400)\nrange(400)\n", plan, COLUMN["slow-100"])

    def test_leave_the_script_itself_where_nothing_changes(self, tmp_path: Path) -> None:
        """As it is, and beside a busy program, it is not copied."""
        label = BY_NAME["seen_keys"]

        assert vary(label, PLANS["seen_keys"], COLUMN["beside-busy"], tmp_path) is label
        assert list(tmp_path.iterdir()) == []


class TestTruths:
    """The table of what is right to say."""

    def test_cover_every_script_in_every_column(self) -> None:
        """A truth, or a reason why the column does not apply; nothing is in the table that is not in the zoo."""
        assert set(PLANS) == set(BY_NAME)
        for label in LABELS:
            for column in COLUMNS:
                plan = PLANS[label.script.stem]
                fact = truth(label, plan, column) if applies(label, column) else None
                assert fact is None or fact.leaks == label.leaks
                assert fact is not None or why_not(label, plan, column)
                if fact is not None and fact.leaks:
                    assert fact.component == label.component
                    assert fact.events is not None

    @pytest.mark.parametrize("name", ["long-20000", "second-90"])
    def test_name_twenty_scripts_for_the_dear_columns(self, name: str) -> None:
        """Ten leaks and ten look-alikes."""
        chosen = [label for label in LABELS if applies(label, COLUMN[name])]

        assert sum(label.leaks for label in chosen) == 10
        assert len(chosen) == 20

    def test_leave_out_few(self) -> None:
        """Columns for all scripts hold nearly all of them."""
        for column in (column for column in COLUMNS if not column.named):
            assert sum(applies(label, column) for label in LABELS) >= len(LABELS) - 3

    def test_let_look_alikes_end_in_time(self) -> None:
        """What is bounded has stopped growing after two thirds of a run, unless its bound is known beforehand."""
        for plan in PLANS.values():
            assert plan.ends is None or plan.ends <= 2 / 3 * plan.steps

    def test_take_only_what_a_machine_holds(self) -> None:
        """No variant leaves more than two gigabytes."""
        for label in (label for label in LABELS if label.leaks):
            for column in (column for column in COLUMNS if applies(label, column)):
                megabytes = truth(label, PLANS[label.script.stem], column).megabytes
                assert megabytes is None or megabytes < 2000

    def test_ask_for_a_leak_where_enough_has_grown(self) -> None:
        """Twenty events and five megabytes."""
        label = BY_NAME["outputs_in_a_list"]
        plan = Plan(steps=400, event=Event(bytes=50_000))

        fact = truth(label, plan, COLUMN["slow-100"])

        assert (fact.events, fact.megabytes, fact.early) == (100, 5.0, False)

    @pytest.mark.parametrize("event", [Event(bytes=10_000_000, every=20), Event(bytes=40_000)])
    def test_allow_warming_where_little_has_grown(self, event: Event) -> None:
        """Five events of ten megabytes, or a hundred that make four."""
        fact = truth(BY_NAME["outputs_in_a_list"], Plan(steps=400, event=event), COLUMN["slow-100"])

        assert fact.early
        assert fact.component == "host.tensors"

    def test_count_what_has_no_bytes(self) -> None:
        """Open files are judged by their number."""
        fact = truth(BY_NAME["files_never_closed"], PLANS["files_never_closed"], COLUMN["slow-100"])

        assert (fact.events, fact.megabytes, fact.early) == (100, None, False)

    def test_begin_late_where_growth_does(self) -> None:
        """The step of the onset goes with the steps."""
        plan = Plan(steps=600, event=Event(bytes=50_000, after=200))

        assert growth(plan, COLUMN["as-is"]) == (400, 20.0)
        assert growth(plan, COLUMN["fast-3000"]) == (2000, 100.0)

    def test_need_a_measurement_where_a_clock_drives(self) -> None:
        """Steps say nothing of it."""
        with pytest.raises(ValueError, match="a clock drives this script"):
            growth(Plan(steps=400, event=Event(bytes=1, every=0)), COLUMN["fast-3000"])

    def test_follow_the_label_where_no_plan_is(self, tmp_path: Path) -> None:
        """Generated programs and fresh batches."""
        fact = truth(labelled(tmp_path, "grows", leaks=True), None, Column("as-is"))

        assert (fact.leaks, fact.component, fact.early) == (True, "host.tensors", False)


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    """A leak and a look-alike, made up."""
    labelled(tmp_path, "grows", leaks=True)
    labelled(tmp_path, "rests", leaks=False)
    return [Cell(label, None, Column("as-is")) for label in read_folder(tmp_path)]


@pytest.fixture
def asked() -> list[str]:
    """The scripts that were asked about."""
    return []


@pytest.fixture
def ask(asked: list[str]) -> Ask:
    """A tool that says leak of what grows."""

    def tool(label: Label, folder: Path, steps: int | None) -> Said:
        asked.append(label.script.stem if steps is None else f"{label.script.stem} for {steps} steps")
        return replace(LEAK, lines=(3,)) if label.script.stem == "grows" else FLAT

    return tool


class TestRuns:
    """Running cells, in parts."""

    def test_do_not_run_what_is_there(self, cells: list[Cell], ask: Ask, asked: list[str], tmp_path: Path) -> None:
        """Another runner takes the results from the file."""
        file = tmp_path / "results.json"

        first = run_column(cells[:1], Results(file, "abc"), ask=ask, jobs=1)
        second = run_column(cells, Results(file, "abc"), ask=ask, jobs=2)
        third = run_column(cells, Results(file, "abc"), ask=ask, jobs=2)

        assert (first, second, third) == (1, 1, 0)
        assert asked == ["grows", "rests"]

    def test_run_again_at_another_commit(
        self, cells: list[Cell], ask: Ask, asked: list[str], tmp_path: Path
    ) -> None:
        """And keep both."""
        file = tmp_path / "results.json"

        run_column(cells, Results(file, "abc"), ask=ask, jobs=1)
        run_column(cells, Results(file, "def"), ask=ask, jobs=1)

        assert asked == ["grows", "rests"] * 2
        assert len(json.loads(file.read_text(encoding="utf-8"))) == 4

    def test_are_scored_from_the_file(self, cells: list[Cell], ask: Ask, tmp_path: Path) -> None:
        """All is right here."""
        results = Results(tmp_path / "results.json", "abc")

        run_column(cells, results, ask=ask, jobs=1)

        assert [asdict(one)["right"] for one in marks_of(cells, Results(tmp_path / "results.json", "abc"))] == [
            True,
            True,
        ]
        assert missed(score(marks_of(cells, results))) == []

    def test_end_early_what_would_take_too_much(self, ask: Ask, asked: list[str], tmp_path: Path) -> None:
        """Ten megabytes a step, for three thousand steps."""
        name = "ten_megabytes_a_step"
        cell = Cell(BY_NAME[name], PLANS[name], COLUMN["fast-3000"])

        run_column([cell], Results(tmp_path / "results.json", "abc"), ask=ask, jobs=1)

        assert asked == ["ten_megabytes_a_step for 150 steps"]
        assert cell.truth.events == 150

    def test_leave_out_what_does_not_apply(self, ask: Ask, asked: list[str], tmp_path: Path) -> None:
        """It is counted, with its reason."""
        cell = Cell(BY_NAME["seen_keys"], PLANS["seen_keys"], COLUMN["second-90"])
        results = Results(tmp_path / "results.json", "abc")

        run_column([cell], results, ask=ask, jobs=1)

        assert asked == []
        assert "left out: 1 not named for it" in summary("second-90", [cell], score(marks_of([cell], results)))

    def test_print_a_row_for_each(
        self, cells: list[Cell], ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What was said, what was right, how long it took."""
        run_column(cells, Results(tmp_path / "results.json", "abc"), ask=ask, jobs=1)

        first, second = capsys.readouterr().out.splitlines()
        assert "grows" in first
        assert " leak     host.tensors     line right, holder right" in first
        assert " flat" in second


class TestBusy:
    """A program that takes all cores."""

    def test_ends_with_its_runner(self, gone: Callable[[int], bool]) -> None:
        """Its loops run meanwhile, and are gone afterwards."""
        with busy(2) as loops:
            assert len(loops) == 2
            assert not any(gone(loop) for loop in loops)

        assert all(gone(loop) for loop in loops)


@pytest.fixture
def gone() -> Callable[[int], bool]:
    """Whether a process is gone."""
    return lambda pid: not Path(f"/proc/{pid}").exists()
