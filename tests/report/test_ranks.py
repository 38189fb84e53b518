"""Of a run of many processes the worst rank leads."""

from pathlib import Path

import pytest

from holdwater.budget import MachineMemory
from holdwater.cli.main import main
from holdwater.errors import StoreError
from holdwater.guard.guard import Guard
from holdwater.guard.settings import GuardSettings
from holdwater.probes.observer import Observer
from holdwater.probes.sample import Sample
from holdwater.report.ranks import read_ranks
from holdwater.testing import ManualClock
from holdwater.units import Bytes, Step

GB = 10**9


class Growing(Observer):
    """Reads 300 MB that grow by a rate."""

    def __init__(self, clock: ManualClock, rate: float) -> None:
        super().__init__(clock.elapsed, [])
        self._clock, self._rate = clock, rate

    def sample(self, step: Step, *, loss: float | None = None, everything: bool = False) -> Sample:
        """Take one sample."""
        return Sample(step, self._clock.elapsed(), Bytes(int(3e8 + self._rate * step)))


def store_rank(folder: Path, rank: int, rate: float) -> None:
    """A stored rank of 400 steps."""
    clock = ManualClock()
    machine = MachineMemory(total=Bytes(100 * GB), available=Bytes(90 * GB))
    settings = GuardSettings(out=folder, rank=rank, max_memory=Bytes(2 * GB))
    with Guard(settings, machine=machine, clock=clock, observer=Growing(clock, rate)) as guard:
        for _ in range(400):
            clock.advance(0.1)
            guard.step()


class TestRanks:
    """Which rank is shown."""

    def test_the_one_that_leaks_leads(self, tmp_path: Path) -> None:
        """Ranks 0 and 2 are flat."""
        for rank, rate in enumerate((0.0, 5e5, 0.0)):
            store_rank(tmp_path, rank, rate)

        ranks = read_ranks(tmp_path)

        assert (ranks.worst, ranks.verdicts) == (1, {0: "flat", 1: "leak", 2: "flat"})
        assert ranks.in_words() == "This is rank 1 of 3, the worst. The others: flat: rank 0, 2."

    def test_of_two_leaks_the_one_that_is_spent_first_leads(self, tmp_path: Path) -> None:
        """Both leak; rank 1 faster."""
        for rank, rate in enumerate((2e5, 5e5)):
            store_rank(tmp_path, rank, rate)

        assert read_ranks(tmp_path).worst == 1

    def test_one_process_is_not_called_a_rank(self, tmp_path: Path) -> None:
        """Nothing is said of ranks."""
        store_rank(tmp_path, 0, 0.0)

        assert read_ranks(tmp_path).in_words() == ""

    def test_a_folder_without_a_run_is_said_so(self, tmp_path: Path) -> None:
        """The message says what to name."""
        with pytest.raises(StoreError, match="is not the folder of a run"):
            read_ranks(tmp_path)

    def test_the_command_shows_the_worst(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """And another where it is asked for."""
        for rank, rate in enumerate((0.0, 5e5)):
            store_rank(tmp_path, rank, rate)

        main(["report", str(tmp_path)])
        worst = capsys.readouterr().out
        main(["report", str(tmp_path), "--rank", "0"])
        asked = capsys.readouterr().out

        assert "This is rank 1 of 2, the worst." in worst
        assert "leak" in worst.splitlines()[1]
        assert "This is rank 0." in asked
        assert "flat" in asked.splitlines()[1]
