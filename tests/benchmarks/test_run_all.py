"""`make bench`: every row of the results table has a command that measures it."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import run_all

ROOT = Path(__file__).resolve().parents[2]


def test_measures_every_result_of_the_documents(tmp_path: Path) -> None:
    """The tables of README and docs/results.md are made from these files."""
    text = (ROOT / "docs" / "results.md").read_text() + (ROOT / "README.md").read_text()
    shown = {name for names in re.findall(r"<!-- bar: (.+?) -->", text) for name in names.split()}
    shown |= {
        part.partition(":")[0] for parts in re.findall(r"<!-- rows: (.+?) -->", text) for part in parts.split("; ")
    }

    assert len(shown) > 20
    assert shown == {one.result for one in run_all.measurements(tmp_path)} - {""}


def test_measures_every_column_of_the_matrix(tmp_path: Path) -> None:
    """Those with a name of their own are asked for by it; the others are the matrix's usual ones."""
    named = {
        one.words[one.words.index("--name") + 1] for one in run_all.measurements(tmp_path) if "--name" in one.words
    }

    assert named == {"generated-held-out", "gpu-as-is"}


def test_each_script_is_there(tmp_path: Path) -> None:
    """By its path, or as a module of the zoo."""
    for one in run_all.measurements(tmp_path):
        script = Path(one.words[0])
        if one.words[0] == "-m":
            script = ROOT / "zoo" / f"{one.words[1].removeprefix('zoo').lstrip('.') or '__main__'}.py"
        assert script.is_file(), one


@pytest.mark.parametrize("there", [False, True])
def test_a_device_that_is_not_there_is_the_reason(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs none is measured in any case."""
    monkeypatch.setattr(run_all, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: there)))
    on_device = {
        "gpu_explanations",
        "tuning_speed",
        "tuning_static",
        "tuning_memory",
        "tuning_rebirth",
        "tuning_survival",
        "vision_speed",
        "vision_static",
        "vision_memory",
        "plan_inverse",
        "picture_story_cuda",
    }

    left_out = [one for one in run_all.measurements(tmp_path) if run_all.why_not(one) == "needs a CUDA device"]

    assert {one.result for one in left_out} == (set() if there else {*on_device, "zoo_matrix"})
    assert len(left_out) == (0 if there else 12)


def test_a_package_that_is_not_there_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody else's program needs."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    reasons = {one.result: run_all.why_not(one) for one in run_all.measurements(tmp_path)}

    assert reasons["auto_find_batch_size"] == "needs accelerate"
    assert reasons["speed"] is None
