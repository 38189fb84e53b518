"""Two runs compared to the bit: the first difference is found, and what nobody has seeded is left out."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from holdwater.errors import CheckpointError
from holdwater.store.checkpoints import CheckpointFolder
from holdwater.store.compare import Difference, compare_runs

Tensors = dict[str, Any]


def write(run: Path, step: int, state: Mapping[str, Any] | None = None, **files: Tensors) -> None:
    """A checkpoint of these files of tensors; each has a random state, the same unless one is given."""
    given = {"random": {"torch": np.arange(4)}} | files

    def writer(tensors: Tensors) -> Callable[[Path], None]:
        return lambda path: save_file(tensors, path)

    CheckpointFolder(run / "checkpoints", keep=9).write(
        step, {f"{name}.safetensors": writer(tensors) for name, tensors in given.items()}, state or {}, best=False
    )


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """The folders of two runs whose checkpoints of step 0 agree."""
    for name in ("one", "other"):
        write(tmp_path / name, 0, model={"weight": np.ones(3, np.float32)})
    return tmp_path / "one", tmp_path / "other"


class TestAgreement:
    """What is the same, and what is not compared."""

    def test_counts_what_was_compared(self, runs: tuple[Path, Path]) -> None:
        """Checkpoints of the same steps alone, in their order."""
        for run, steps in zip(runs, ((20, 40, 60), (20, 40)), strict=True):
            for step in steps:
                write(run, step, model={"weight": np.full(3, step), "bias": np.zeros(1)})

        found = compare_runs(*runs)

        assert (found.steps, found.difference, found.unseeded) == ((0, 20, 40), None, ())
        assert found.tensors == 2 + 3 + 3

    def test_leaves_out_what_nobody_has_seeded(self, tmp_path: Path) -> None:
        """A random state that differs before the first step; another one, or a tensor of its name, is compared."""
        for number, name in enumerate(("one", "other")):
            for step in (0, 20):
                random = {"numpy": np.array([number, step]), "torch": np.arange(4)}
                write(tmp_path / name, step, model={"numpy": np.ones(2)}, random=random)

        found = compare_runs(tmp_path / "one", tmp_path / "other")

        assert (found.difference, found.unseeded, found.tensors) == (None, ("numpy",), 4)

    def test_leaves_out_nothing_where_the_first_step_is_not_there(self, tmp_path: Path) -> None:
        """From step 20 on a difference is one of the runs."""
        for number, name in enumerate(("one", "other")):
            write(tmp_path / name, 20, random={"numpy": np.array([number], np.uint8)})

        found = compare_runs(tmp_path / "one", tmp_path / "other")

        assert found.difference == Difference(20, "random.safetensors: numpy", "1 of 1 bytes differ")
        assert found.unseeded == ()

    def test_threads_and_versions_are_no_difference(self, runs: tuple[Path, Path]) -> None:
        """They may differ where the numbers agree."""
        for threads, run in enumerate(runs):
            write(run, 20, {"position": 3, "exactness": {"threads": threads}})

        assert compare_runs(*runs).difference is None


class TestDifference:
    """The first one is named: step, file, tensor, and in what it differs."""

    @pytest.mark.parametrize(
        ("mine", "theirs", "what", "how"),
        [
            ({"a": np.array([1, 2, 3], np.uint8)}, {"a": np.array([1, 9, 9], np.uint8)}, "a", "2 of 3 bytes differ"),
            ({"a": np.ones(2, np.float32)}, {"a": np.ones(3, np.float32)}, "a", "F32 (2,) against F32 (3,)"),
            ({"a": np.zeros(2, np.int32)}, {"a": np.zeros(2, np.float32)}, "a", "I32 (2,) against F32 (2,)"),
            ({"a": np.ones(1), "b": np.ones(1)}, {"a": np.ones(1)}, "b", "only one of the two runs has it"),
            ({"b": np.ones(1)}, {"a": np.ones(1), "b": np.ones(1)}, "a", "only one of the two runs has it"),
        ],
        ids=["bytes", "shape", "type", "missing in the second", "missing in the first"],
    )  # fmt: skip
    def test_of_a_tensor(
        self, runs: tuple[Path, Path], mine: Tensors, theirs: Tensors, what: str, how: str
    ) -> None:
        """Later steps are not looked at."""
        write(runs[0], 20, model=mine)
        write(runs[1], 20, model=theirs)
        for run in runs:
            write(run, 40, model={"a": np.ones(1)})

        found = compare_runs(*runs)

        assert found.difference == Difference(20, f"model.safetensors: {what}", how)
        assert found.steps == (0, 20)

    def test_of_the_files(self, runs: tuple[Path, Path]) -> None:
        """One run has an optimizer's state."""
        write(runs[0], 20, model={"a": np.ones(1)}, optimizer={"a": np.ones(1)})
        write(runs[1], 20, model={"a": np.ones(1)})

        found = compare_runs(*runs)

        assert found.difference == Difference(20, "optimizer.safetensors", "only one of the two has it")

    def test_of_the_manifest(self, runs: tuple[Path, Path]) -> None:
        """The place in the data, say; what agrees is not named."""
        for place, run in enumerate(runs):
            write(run, 20, {"best": 1.5, "position": place})

        assert compare_runs(*runs).difference == Difference(20, "manifest.json: position", "the values differ")

    def test_needs_a_step_that_both_have(self, tmp_path: Path) -> None:
        """Else nothing would be compared, and nothing would differ."""
        write(tmp_path / "one", 20)
        write(tmp_path / "other", 21)

        with pytest.raises(CheckpointError, match="no checkpoint of the same step"):
            compare_runs(tmp_path / "one", tmp_path / "other")

    def test_a_damaged_checkpoint_is_an_error(self, runs: tuple[Path, Path]) -> None:
        """And no difference of the runs."""
        (runs[1] / "checkpoints" / "step-00000000" / "model.safetensors").write_bytes(b"")

        with pytest.raises(CheckpointError, match="damaged"):
            compare_runs(*runs)
