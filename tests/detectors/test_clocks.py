"""What a growth follows."""

import numpy as np
import pytest

from holdwater.detectors.clocks import find_clock, steps_between_rises
from holdwater.detectors.verdict import Clock
from holdwater.probes.sample import Look, Sample
from holdwater.timeline.buckets import Buckets
from holdwater.timeline.timeline import Timeline
from holdwater.units import Bytes, Step


def history(grown: list[float], *, seconds: list[float] | None = None, every: int = 25) -> Buckets:
    """A run with an evaluation every few steps, that has grown by so much at each step."""
    timeline = Timeline()
    for step, size in enumerate(grown, start=1):
        look = Look(evaluations=step // every, epochs=step // (4 * every))
        at = float(step) if seconds is None else seconds[step - 1]
        timeline.append(Sample(Step(step), at, Bytes(int(3e8 + size)), None, look))
    return timeline.buckets()


@pytest.mark.parametrize(
    ("grown", "clock", "per_event"),
    [
        ([1e5 * step for step in range(400)], "step", 1e5),
        ([2e6 * ((step + 1) // 25) for step in range(400)], "evaluation", 2e6),
        ([9e6 * ((step + 1) // 100) for step in range(800)], "epoch", 9e6),
    ],
    ids=["step", "evaluation", "epoch"],
)
def test_finds_the_clock(grown: list[float], clock: Clock, per_event: float) -> None:
    """Growth that comes at few events follows these."""
    buckets = history(grown)

    found = find_clock(buckets, buckets.lows("resident"), 0)

    assert found is not None
    assert found.clock == clock
    assert found.per_event == pytest.approx(per_event, rel=0.05)


def test_ignores_what_is_freed_at_the_end() -> None:
    """A list that goes as its function returns."""
    buckets = history([2e6 * ((step + 1) // 25) for step in range(400)] + [0.0, 0.0])

    found = find_clock(buckets, buckets.lows("resident"), 0)

    assert found is not None
    assert found.clock == "evaluation"
    assert found.per_event == pytest.approx(2e6, rel=0.1)


def test_finds_growth_by_the_second() -> None:
    """Steps are now slow, now fast; memory goes by the clock on the wall."""
    pace = np.where(np.arange(400) // 50 % 2, 0.01, 0.1)
    seconds = np.cumsum(pace).tolist()
    buckets = history([1e6 * at for at in seconds], seconds=seconds)

    found = find_clock(buckets, buckets.lows("resident"), 0)

    assert found is not None
    assert found.clock == "seconds"
    assert found.per_event == pytest.approx(1e6, rel=0.05)


def paused(every: int, pause: float) -> np.ndarray:
    """The time of each of 600 steps of 10 ms with a pause every so many."""
    steps = np.arange(1, 601)
    return 0.01 * steps + pause * (steps // every)


@pytest.mark.parametrize(("every", "pause"), [(20, 0.1), (45, 0.4), (90, 2.0)])
def test_finds_growth_by_rounds_that_take_most_of_the_time(every: int, pause: float) -> None:
    """What an evaluation that nobody marks leaves behind comes by rounds, though time passes mostly there."""
    steps = np.arange(1, 601)
    buckets = history((16e6 * (steps // every)).tolist(), seconds=paused(every, pause).tolist(), every=1000)

    found = find_clock(buckets, buckets.lows("resident"), 0)

    assert found is not None
    assert (found.clock, found.every_steps) == ("step", every)
    assert found.per_event == pytest.approx(16e6, rel=0.2)


@pytest.mark.parametrize(("every", "pause"), [(45, 0.4), (90, 2.0)])
def test_finds_growth_by_the_second_beside_long_pauses(every: int, pause: float) -> None:
    """A thread fills memory all the time, so most of it in the pauses."""
    seconds = paused(every, pause)
    buckets = history((2e6 * seconds).tolist(), seconds=seconds.tolist(), every=1000)

    found = find_clock(buckets, buckets.lows("resident"), 0)

    assert found is not None
    assert found.clock == "seconds"


@pytest.mark.parametrize(("every", "size", "found"), [(50, 4e6, 50), (50, 1e6, None), (1, 80_000, None)])
def test_finds_in_the_whole_what_a_part_is_read_too_seldom_for(every: int, size: float, found: int | None) -> None:
    """Python's blocks are counted every 40 steps, resident memory at each; an arena at a time is no period."""
    timeline = Timeline()
    for step in range(1, 2001):
        grown = int(size * (step // every))
        blocks = grown // 64 if step % 40 == 1 else None
        resident = Bytes(int(3e8) + grown // 1_000_000 * 1_000_000)
        timeline.append(Sample(Step(step), 0.01 * step, resident, None, Look(python_blocks=blocks)))
    buckets = timeline.buckets()

    following = find_clock(buckets, 64 * buckets.lows("python_blocks"), 0)

    assert following is not None
    assert (following.clock, following.every_steps) == ("step", found)


def test_nothing_grows() -> None:
    """Then there is no clock."""
    buckets = history([0.0] * 100)

    assert find_clock(buckets, buckets.lows("resident"), 0) is None


class TestStepsBetweenRises:
    """Growth that comes every so many steps has its period."""

    @pytest.mark.parametrize("every", [5, 50, 100])
    def test_finds_the_period(self, every: int) -> None:
        """Of a growth at every 5th, 50th, 100th step, with noise."""
        steps = np.arange(1.0, 3001)
        noise = np.random.default_rng(0).normal(0, 2e4, 3000)

        assert steps_between_rises(steps, 5e6 * (steps // every) + noise) == every

    def test_finds_it_beside_rises_that_are_missed(self) -> None:
        """Memory that was freed takes up a fourth of them."""
        steps = np.arange(1.0, 3001)
        rounds = steps // 50

        assert steps_between_rises(steps, 5e6 * (rounds - rounds // 4)) == 50

    def test_finds_it_where_readings_are_sparse(self) -> None:
        """Every 7th step was read."""
        steps = np.arange(1.0, 6001, 7)

        found = steps_between_rises(steps, 1e6 * (steps // 50))

        assert found is not None
        assert abs(found - 50) <= 1

    def test_ignores_growth_at_each_step(self) -> None:
        """A straight line, with noise or without."""
        steps = np.arange(1.0, 3001)
        noise = np.random.default_rng(0).normal(0, 3e5, 3000)

        assert steps_between_rises(steps, 1e5 * steps) is None
        assert steps_between_rises(steps, 1e5 * steps + noise) is None

    def test_ignores_what_readings_cannot_tell(self) -> None:
        """Growth every third step, read every 20th."""
        steps = np.arange(1.0, 6001, 20)

        assert steps_between_rises(steps, 1e6 * (steps // 3)) is None

    def test_ignores_steady_growth_that_is_read_ever_more_seldom(self) -> None:
        """As a real run is: later readings lie further apart, and so rise by more."""
        steps = np.unique(np.geomspace(1, 6000, 900).astype(np.int64)).astype(np.float64)
        noise = np.random.default_rng(0).normal(0, 2e4, len(steps))

        assert steps_between_rises(steps, 6e4 * steps + noise) is None
