"""The number of threads is measured with the run's own steps, and the state stays as it is."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from holdwater.train import threads
from holdwater.train.threads import candidates, choose_threads, explicit_threads, fastest, measure
from tests.train.finetune.test_state import made
from tests.train.test_skipped_steps import held, pretraining, same

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """A test may change their number."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Machine:
    """A clock that a pass advances, by the number of threads."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds, self.now = seconds, 0.0
        self.passes: list[int] = []

    def take(self) -> None:
        """A pass."""
        self.passes.append(torch.get_num_threads())
        self.now += self.seconds[torch.get_num_threads()]

    def clock(self) -> float:
        """Seconds."""
        return self.now


@pytest.mark.parametrize(("cores", "numbers"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_powers_of_two_and_all_cores_are_tried(cores: int, numbers: list[int]) -> None:
    """A few numbers, however many cores."""
    assert candidates(cores) == numbers


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [({1: 0.01, 2: 0.1}, 1), ({1: 0.01, 2: 0.006}, 2), ({1: 0.01, 2: 0.0095}, 1), ({1: 8.0, 2: 4.0, 4: 3.0}, 4)],
    ids=["shared cores", "free cores", "about the same", "long steps"],
)
def test_the_fastest_number_is_chosen(seconds: dict[int, float], chosen: int) -> None:
    """Fewer threads where more gain next to nothing."""
    machine = Machine(seconds)

    assert fastest(measure(sorted(seconds), machine.take, clock=machine.clock)) == chosen


def test_long_steps_are_measured_once_and_not_with_few_threads() -> None:
    """Nobody waits for minutes."""
    machine = Machine({1: 60.0, 2: 30.0, 4: 16.0, 8: 7.0})

    found = measure([1, 2, 4, 8], machine.take, clock=machine.clock)

    assert machine.passes == [8, 4]
    assert found == {4: 16.0, 8: 7.0}


def test_what_the_user_has_set_is_not_measured() -> None:
    """A flag, then the variable of OpenMP."""
    torch.set_num_threads(2)

    assert explicit_threads(3, {"OMP_NUM_THREADS": "2"}) == 3
    assert explicit_threads(None, {"OMP_NUM_THREADS": "2"}) == 2
    assert explicit_threads(None, {}) is None


@pytest.mark.parametrize("how", ["pretraining", "eager", "fused"])
def test_measuring_changes_nothing(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, moments, random states, and which batch is the next."""
    monkeypatch.setattr(threads, "TURN", 0.01)
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    state: Any = (
        pretraining("stop")
        if how == "pretraining"
        else made(tmp_path, train_seq_length=16, lora_dropout=0.1, quantize="8" if how == "fused" else None)
    )
    before, place, random = held(state), state.batches.state(), torch.get_rng_state()

    choose_threads(state)

    assert same(before, held(state))
    assert state.batches.state() == place
    assert torch.equal(torch.get_rng_state(), random)
    weights = getattr(state, "backend", state).weights
    assert not any(grad.any() for grad in weights.grads) or how == "fused"  # which overwrites them


def test_a_run_says_and_records_its_number_and_keeps_it(
    holdwater: Run, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replaced and a resumed process use it; a run that is told the same number has the same bits."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    flags = (
        *("train", "--preset", "tiny", "--train-seq-length", "16", "--eval-batches", "2", "--max-memory", "4GB"),
        *("--sample-length", "0", "--data", str(text_file), "--reload-interval", "30"),
    )

    first = holdwater(*flags, "--steps", "80", "--out", "run")
    resumed = holdwater(*flags, "--steps", "120", "--out", "run", "--resume")
    number = recorded(tmp_path / "run", 80)
    told = holdwater(*flags, "--steps", "120", "--out", "told", "--threads", str(number))

    assert [first.returncode, resumed.returncode, told.returncode] == [0, 0, 0], first.stderr + resumed.stderr
    assert first.stderr.count("holdwater: threads: ") == 1 or threads.usable_cores() == 1
    assert "threads" not in resumed.stderr + told.stderr
    assert {recorded(tmp_path / "run", step) for step in (0, 80, 120)} == {number}


def recorded(run: Path, step: int) -> int:
    """The number of threads that a checkpoint holds."""
    manifest = json.loads((run / f"checkpoints/step-{step:08}/manifest.json").read_text())
    return int(manifest["state"]["exactness"]["threads"])
