"""What is explained with which window."""

import json
from pathlib import Path
from typing import Any

import pytest

from holdwater.detectors.evidence import WorkerGain
from holdwater.detectors.verdict import Component, Finding, Rate, Verdict
from holdwater.observe.explainer import Explainer
from holdwater.observe.questions import WELL_EXPLAINED
from holdwater.probes.children import FORK, Child
from holdwater.units import Step

SCRIPT = "kept = []\nfor step in range(9):\n    kept.append(bytes(10_000))\n"


@pytest.fixture
def script(tmp_path: Path) -> str:
    """A script of three lines."""
    file = tmp_path / "train.py"
    file.write_text(SCRIPT, encoding="utf-8")
    return str(file)


def seen(script: str, *, size: int, inside: str | None = None) -> dict[str, Any]:
    """What a window of 100 steps has shown: a list that has gained so many bytes; 0 is nothing."""
    naming = {"role": "global", "name": "kept", "owner": "__main__", "file": script, "line": None}
    gain = {
        "kind": "container", "type": "list", "count": 100, "elements": {"bytes": 24}, "nodes": 0, "files": 0,
        "weight": {"tensors": 0, "python": size, "native": 0}, "views": False, "handles": 0,
        "path": [naming], "naming": naming, "bases": {"builtins.bytes": 1.0}, "traits": [],
    }  # fmt: skip
    found = {
        "from_step": 100,
        "to_step": 200,
        "gains": [gain] if size else [],
        "users_files": [script],
        "missing": [],
    }
    return found if inside is None else found | {"inside": inside}


def leak(component: Component = "host.python") -> Finding:
    """10 kB a step."""
    return Finding(
        verdict="leak", component=component, detected_step=Step(250), message="", rate=Rate(1e4, 9e3, 1.1e4, 0.95)
    )


class TestWindows:
    """The newest says most, unless it says too little."""

    def test_one_that_saw_nothing_does_not_replace_one_that_did(self, script: str, tmp_path: Path) -> None:
        """The script ended in it."""
        explainer = Explainer(tmp_path)
        explainer._use(seen(script, size=1_000_000), None)
        explainer._use(seen(script, size=0), None)

        made = explainer.explain(leak())

        assert made is not None
        assert made.explained == 1.0
        assert made.sites[0].name == "kept"

    def test_what_was_only_read_is_asked_again(self, script: str, tmp_path: Path) -> None:
        """No line of it was seen to run: another window may see one."""
        explainer, verdict = Explainer(tmp_path), Verdict.of((leak(),), Step(250))
        explainer._use(seen(script, size=1_000_000), None)
        assert explainer.explained(verdict) < WELL_EXPLAINED

        explainer._use(seen(script, size=1_000_000) | {"ran": {script: [3]}}, None)
        assert explainer.explained(verdict) == 1.0

    def test_one_that_names_no_holder_does_not_replace_one_that_does(self, script: str, tmp_path: Path) -> None:
        """The longer window has recorded who allocates, and counted when nothing had come."""
        explainer = Explainer(tmp_path)
        place = {"file": script, "line": 3, "inner": "f", "bytes": 990_000, "steps": 90, "of_steps": 99}
        explainer._use(seen(script, size=900_000), None)
        explainer._use(seen(script, size=0), {"places": [place]})

        made = explainer.explain(leak())

        assert made is not None
        assert made.sites[0].name == "kept"

    def test_the_newest_of_two_that_explain_it(self, script: str, tmp_path: Path) -> None:
        """Growth may have changed."""
        explainer = Explainer(tmp_path)
        explainer._use(seen(script, size=1_000_000), None)
        explainer._use(seen(script, size=500_000), None)

        made = explainer.explain(leak())

        assert made is not None
        assert made.explained == 0.5


def answer(folder: Path, number: int, script: str, size: int) -> None:
    """Leave what a loader's worker has seen: a list that has gained so many bytes."""
    text = json.dumps(seen(script, size=size, inside="inside a loader worker (process 7)"))
    (folder / f"worker-1-{number}.json").write_text(text, encoding="utf-8")


class TestWorkers:
    """A loader's workers say what they hold; an answer without gains replaces none with some."""

    def test_one_that_explains_little_does_not_replace_one_that_explains_much(
        self, script: str, tmp_path: Path
    ) -> None:
        """Counts lie farther and farther apart, and the last may have met a lull."""
        explainer = Explainer(tmp_path)
        for number, size in ((2, 900_000), (3, 10_000)):
            answer(tmp_path, number, script, size)
            explainer.poll()

        made = explainer.explain(leak("host.children"))

        assert made is not None
        assert made.explained == 0.9

    def test_its_own_part_of_what_several_processes_have_grown_by(self, script: str, tmp_path: Path) -> None:
        """One of two that grow alike is to explain half of the growth, and a loader's worker all of it."""
        children = [Child(pid, "a fork of the training process", 0, 10_000_000) for pid in (7, 8)]
        explainer = Explainer(tmp_path, lambda: children)
        shares = []
        for pid in (7, None):
            told = json.dumps(seen(script, size=500_000, inside="inside a process (process 7)") | {"pid": pid})
            (tmp_path / "worker-1-1.json").write_text(told, encoding="utf-8")
            explainer.poll()
            explainer.workers = explainer.workers[:1]
            made = explainer.explain(leak("host.children"))
            shares.append(None if made is None else made.explained)

        assert shares == [1.0, 0.5]

    @pytest.mark.parametrize(("apart", "explained"), [(True, 1.0), (False, 0.0)])
    def test_children_that_become_more(self, apart: bool, explained: float, tmp_path: Path) -> None:
        """Named where the program starts them; the processes of a pool, started together, are no such growth."""
        file = tmp_path / "train.py"
        file.write_text("import subprocess\nserver = subprocess.Popen(command)\n", encoding="utf-8")
        children = [
            Child(pid, "the subprocess `server`", 8_000_000, 8_000_000, reading=pid if apart else 3)
            for pid in range(1, 9)
        ]
        explainer = Explainer(tmp_path, list, lambda: children)
        explainer._use(seen(str(file), size=0), None)

        made = explainer.explain(leak("host.children"))

        assert made is not None
        assert made.explained == explained
        assert [site.line for site in made.sites] == [2] * apart
        assert any("8 processes that were started during the run" in link for link in made.chain) == apart

    def test_a_process_that_explains_nothing_is_named_all_the_same(self, tmp_path: Path) -> None:
        """By the name that it has told: the training process was not asked."""
        explainer = Explainer(tmp_path, lambda: [Child(7, FORK, 0, 10_000_000)])
        told = seen("", size=0, inside="inside a process") | {"pid": 7, "processes": {"7": "SyncManager-1"}}
        (tmp_path / "worker-1-1.json").write_text(json.dumps(told), encoding="utf-8")
        explainer.poll()

        made = explainer.explain(leak("host.children"))

        assert made is not None
        assert made.chain[0].startswith("the multiprocessing manager `SyncManager-1` (process 7)")

    def test_what_a_loader_worker_s_dataset_gained_is_evidence(self, tmp_path: Path) -> None:
        """With the batches that it made meanwhile; another child has no dataset of a loader."""
        explainer = Explainer(tmp_path)
        for number, pid in ((1, None), (2, 7)):
            told = seen("", size=0, inside="") | {"pid": pid, "in_dataset": 160, "from_step": 16, "to_step": 32}
            (tmp_path / f"worker-{number}-1.json").write_text(json.dumps(told | {"gains": [{}]}), encoding="utf-8")
        explainer.poll()

        assert explainer.worker_gains == (WorkerGain(16, 160),)

    def test_the_newest_that_has_seen_something(self, script: str, tmp_path: Path) -> None:
        """In the order in which they were left."""
        explainer = Explainer(tmp_path)
        for number, size in ((2, 1_000_000), (3, 0)):
            answer(tmp_path, number, script, size)
        explainer.poll()

        made = explainer.explain(leak("host.children"))

        assert made is not None
        assert made.explained == 1.0
        assert not list(tmp_path.glob("worker-*"))
