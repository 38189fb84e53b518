"""What a script's signal handler raises while its guard works reaches the script, at every place."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdwater import Guard
from holdwater.budget import MachineMemory
from holdwater.probes.observer import Observer
from holdwater.store.history import read_history
from holdwater.store.run_store import RunStore
from holdwater.testing import ManualClock, StandInMemory
from holdwater.units import Bytes, Step
from tests.raising_handler import lost_by

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # a file that was opened just before
GB = 10**9
LARGE = MachineMemory(total=Bytes(100 * GB), available=Bytes(90 * GB))


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guard]:
    """One that reads everything, acts, judges and writes at each step, since ten minutes pass in each."""
    clock = ManualClock()
    made = Guard(out=tmp_path, machine=LARGE, clock=clock, observer=Observer(clock.elapsed))
    with made:
        made.observer.replace(StandInMemory(lambda: 10 * GB))
        yield made


def test_a_store_is_opened(tmp_path: Path) -> None:
    """In a new folder each time."""
    number = 0

    def open_store() -> None:
        """Open, begin and close one."""
        nonlocal number
        number += 1
        store = RunStore(tmp_path / str(number))
        store.begin(began=0.0, first_step=Step(0), facts={})
        store.close()

    places, lost = lost_by(open_store)

    assert lost == []
    assert places > 20


class TestGuard:
    """A step of a guarded loop, and what it says of the run."""

    def test_steps(self, guard: Guard, tmp_path: Path) -> None:
        """The run goes on, and its samples are stored."""

        def wait() -> None:
            """Make everything due."""
            guard._clock.advance(600.0)  # type: ignore[attr-defined] # a manual one

        def step() -> None:
            """Step, and mark an event."""
            guard.step(loss=1.0)
            guard.mark("epoch")

        places, lost = lost_by(step, prepare=wait)

        assert lost == []
        assert places > 300
        guard._flush()
        assert read_history(tmp_path).marks[-1].step == guard.step_number

    def test_sums_up(self, guard: Guard) -> None:
        """Of a few steps."""
        for _ in range(3):
            guard._clock.advance(600.0)  # type: ignore[attr-defined] # a manual one
            guard.step(loss=1.0)

        places, lost = lost_by(guard.summary)

        assert lost == []
        assert places > 20

    def test_begins_and_ends(self) -> None:
        """Without a store."""

        def guarded() -> None:
            """One step."""
            clock = ManualClock()
            with Guard(machine=LARGE, clock=clock, observer=Observer(clock.elapsed)) as it:
                clock.advance(60.0)
                it.step()

        places, lost = lost_by(guarded)

        assert lost == []
        assert places > 100
