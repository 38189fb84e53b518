"""Pairs from the zoo, through the installed command: the same code with opposite truths (all of it: `python -m zoo`)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.labels import Label, read_labels

BY_NAME = {label.script.stem: label for label in read_labels()}
PAIRS = [
    BY_NAME[name]
    for name in (
        "cache_without_limit",
        "collector_switched_off",
        "evaluation_with_graphs",
        "loss_summed_as_tensor",
        "view_keeps_base",
    )
]


def judge(label: Label, folder: Path) -> dict[str, str]:
    """What `holdwater run` says of a script: the verdict, and the component of its first finding."""
    program = str(Path(sys.executable).with_name("holdwater"))
    command = [program, "run", "--quiet", "--out", "run", "--json", "v.json", str(label.script)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=200)
    verdict = json.loads((folder / "v.json").read_text(encoding="utf-8"))
    return {"verdict": verdict["verdict"], "component": verdict["findings"][0]["component"]}


@pytest.mark.alone
@pytest.mark.slow
def test_reports_files_that_are_never_closed(tmp_path: Path) -> None:
    """Open files are counted by the clock: beside other tests this short script has too few counts."""
    label = BY_NAME["files_never_closed"]

    assert judge(label, tmp_path) == {"verdict": "leak", "component": label.component}


@pytest.mark.slow
@pytest.mark.parametrize("label", PAIRS, ids=lambda label: str(label.script.stem))
def test_reports_a_leak(label: Label, tmp_path: Path) -> None:
    """And what it is made of."""
    assert judge(label, tmp_path) == {"verdict": "leak", "component": label.component}


@pytest.mark.slow
@pytest.mark.parametrize(
    "label",
    [BY_NAME[str(leak.pair)] for leak in [*PAIRS, BY_NAME["files_never_closed"]]],
    ids=lambda label: str(label.script.stem),
)
def test_ignores_its_twin(label: Label, tmp_path: Path) -> None:
    """The same code, put right."""
    assert judge(label, tmp_path)["verdict"] != "leak"
