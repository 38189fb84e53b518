"""Sampling: cheap readings always, expensive ones when they are due, failures once."""

import sys
from collections.abc import Mapping

from holdwater.errors import ProbeError
from holdwater.probes.observer import PROBES, Observer
from holdwater.probes.sample import Look
from holdwater.testing import ManualClock, StandInMemory
from holdwater.units import Step


class CostlyProbe:
    """A probe whose every reading takes a while."""

    name = "costly"
    measures = "nothing"
    every = 1.0

    def __init__(self, clock: ManualClock, cost: float) -> None:
        self.reads = 0
        self._clock, self._cost = clock, cost

    def unavailable(self) -> str | None:
        """Always there."""
        return None

    def read(self) -> Mapping[str, float]:
        """Take time."""
        self.reads += 1
        self._clock.advance(self._cost)
        return {"children": 5}


class FailingProbe(CostlyProbe):
    """A probe that fails."""

    name = "failing"

    def read(self) -> Mapping[str, float]:
        """Fail."""
        self.reads += 1
        raise ProbeError("the kernel said no")


class TestObserver:
    """Takes samples."""

    def test_looks_by_the_clock_and_not_by_the_step(self) -> None:
        """A hundred steps in half a second are one look."""
        clock = ManualClock()
        observer = Observer(clock.elapsed, [StandInMemory(lambda: 7, every=1.0)])

        looks = []
        for step in range(1, 101):
            looks.append(observer.sample(Step(step)).look)
            clock.advance(0.005)

        assert [look for look in looks if look is not None] == [Look(available=7)]  # type: ignore[arg-type]

    def test_a_dear_probe_is_read_less_often(self) -> None:
        """At 0.1 s a reading and 0.05 % of the time: every 200 s."""
        clock = ManualClock()
        probe = CostlyProbe(clock, cost=0.1)
        observer = Observer(clock.elapsed, [probe])

        for step in range(1, 1001):
            observer.sample(Step(step))
            clock.advance(1.0)

        assert probe.reads == 5

    def test_a_failing_probe_is_put_aside_with_its_reason(self) -> None:
        """One failure is enough; the rest goes on."""
        clock = ManualClock()
        probe = FailingProbe(clock, cost=0.0)
        observer = Observer(clock.elapsed, [probe, StandInMemory(lambda: 7)])

        for step in range(1, 10):
            sample = observer.sample(Step(step))
            clock.advance(5)
            assert sample.resident > 0

        assert probe.reads == 1
        assert observer.failures == {"failing": "the kernel said no"}

    def test_what_a_failed_probe_read_last_is_no_news(self) -> None:
        """A stale reading of available memory must not make a run wait, or stop, for ever."""
        clock = ManualClock()
        readings = iter([7])
        observer = Observer(clock.elapsed, [StandInMemory(lambda: next(readings)), CostlyProbe(clock, cost=0.0)])

        first = observer.sample(Step(1)).look
        clock.advance(5)
        second = observer.sample(Step(2)).look

        assert first is not None
        assert second is not None
        assert (first.available, second.available, second.children) == (7, None, 5)

    def test_a_stand_in_replaces_the_probe_of_its_name(self) -> None:
        """Rehearsals need no other machine."""
        clock = ManualClock()
        observer = Observer(clock.elapsed)

        observer.replace(StandInMemory(lambda: 123))

        look = observer.sample(Step(1)).look
        assert look is not None
        assert look.available == 123

    def test_every_probe_reads_or_says_why_not(self) -> None:
        """On any machine: fields of a look, or a reason in words; most work on any Linux."""
        on_linux = {"available", "process parts", "children", "shared memory files", "handles"}
        for make in PROBES:
            probe = make()
            reason = probe.unavailable()
            assert reason is None or probe.name not in on_linux or sys.platform != "linux"
            if reason is None:
                assert set() < set(probe.read()) <= set(Look.__slots__), probe.name
            else:
                assert len(reason) > 8, probe.name
