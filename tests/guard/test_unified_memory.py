"""The story of a Mac, rehearsed: what resident memory does not see is judged in time, and survived."""

import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from holdwater.actions.levers import Levers
from holdwater.detectors.verdict import Forecast
from holdwater.guard.core import EARLIEST_JUDGEMENT, FIRST_JUDGEMENT
from holdwater.guard.guard import Guard
from holdwater.guard.settings import GuardSettings
from holdwater.probes.observer import Observer
from holdwater.testing import ManualClock, StandInMemory, StandInMetal
from holdwater.units import Bytes

GB = 1_000_000_000
OTHERS = 8 * GB
Grow = Callable[[StandInMetal, int], None]


class Rehearsal:
    """One guarded process on a rehearsed Mac of 96 GB; a step takes a second."""

    def __init__(self, mac: StandInMetal, *, budget: int | None = 70 * GB) -> None:
        """Prepare.

        Args:
            mac: Its memory.
            budget: In bytes; None finds one.
        """
        self.mac, self.clock = mac, ManualClock()
        self.verdicts: list[str] = []
        """After each step."""
        self._budget = None if budget is None else Bytes(budget)

    def run(self, grow: Grow, *, steps: int) -> Guard:
        """Make steps until the guard ends them.

        Args:
            grow: What a step does to memory.
            steps: Most of them.
        """
        with self.mac.installed():
            observer = Observer(self.clock.elapsed)
            observer.replace(StandInMemory(lambda: self.mac.total - OTHERS - int(self.mac.footprint().total)))
            guard = Guard(
                GuardSettings(max_memory=self._budget, set_limits=False),
                clock=self.clock,
                observer=observer,
                machine=self.mac.machine(),
                levers=Levers(checkpoint=lambda: None, recycle=lambda: None),
            )
            with guard:
                for step in guard.steps(range(1, steps + 1)):
                    self.clock.advance(1.0)
                    grow(self.mac, step)
                    self.verdicts.append(guard.verdict.kind)
        return guard


def leaking(mac: StandInMetal, _: int) -> None:
    """2,000 MB a step in MLX's arrays."""
    mac.active += 2 * GB


class TestLeakOfBytes:
    """An 8B in bfloat16, and a list that keeps arrays."""

    def test_is_a_leak_within_20_steps_and_the_process_is_replaced_within_the_budget(self) -> None:
        """Resident memory stands still all the time."""
        rehearsal = Rehearsal(StandInMetal(active=17 * GB, private=GB))

        guard = rehearsal.run(leaking, steps=300)

        assert rehearsal.verdicts.index("leak") <= 20
        assert guard.recycling
        assert rehearsal.mac.footprint().total <= 70 * GB
        leading = guard.verdict.findings[0]
        assert (leading.verdict, leading.component) == ("leak", "device.active")
        assert isinstance(leading.forecast, Forecast)
        assert leading.forecast.steps == pytest.approx(
            (70 * GB - rehearsal.mac.footprint().total) / (2 * GB), abs=1
        )

    def test_a_budget_that_is_found_is_what_the_device_recommends(self) -> None:
        """7 GB that should have been 70: the budget follows from the machine, and says how."""
        guard = Rehearsal(StandInMetal(active=17 * GB, private=GB), budget=None).run(leaking, steps=3)

        assert str(guard.budget) == "budget 72.0 GB: found, the device's recommended working set of 72.0 GB"

    def test_caches_that_settle_are_no_leak(self) -> None:
        """New shapes in each of the first twenty steps rise as evenly as a leak, and then stop."""

        def settling(mac: StandInMetal, step: int) -> None:
            """A step."""
            mac.active += GB if step <= 20 else 0

        guard = Rehearsal(StandInMetal(active=17 * GB, private=GB)).run(settling, steps=400)

        assert guard.verdict.kind in {"flat", "bounded"}
        assert guard.stop_reason is None

    def test_is_not_judged_early_where_the_budget_lasts(self) -> None:
        """20 MB a step spend 52 GB in thousands of steps: there is time to be sure."""

        def slowly(mac: StandInMetal, _: int) -> None:
            """A step."""
            mac.active += GB // 50

        rehearsal = Rehearsal(StandInMetal(active=17 * GB, private=GB))
        rehearsal.run(slowly, steps=FIRST_JUDGEMENT)

        assert set(rehearsal.verdicts[EARLIEST_JUDGEMENT:-1]) == {"unknown"}


class TestBuffers:
    """Small arrays: their number runs out, not their bytes."""

    def test_the_number_is_forecast_and_the_process_replaced_before_its_limit(self) -> None:
        """A leak of `device.buffers`, against 499,000."""

        def grow(mac: StandInMetal, step: int) -> None:
            """A step."""
            mac.buffer_count = 20_000 + 1_200 * step

        rehearsal = Rehearsal(StandInMetal(active=7 * GB, private=GB, buffer_count=20_000))

        guard = rehearsal.run(grow, steps=1000)

        assert guard.recycling
        assert "the number of buffers is" in str(guard.stop_reason)
        assert rehearsal.mac.buffer_count is not None
        assert 0.8 * 499_000 < rehearsal.mac.buffer_count < 499_000
        leading = guard.verdict.findings[0]
        assert (leading.verdict, leading.component) == ("leak", "device.buffers")
        assert isinstance(leading.forecast, Forecast)
        assert leading.forecast.steps == pytest.approx((499_000 - rehearsal.mac.buffer_count) / 1_200, rel=0.1)


class TestFootprint:
    """What MLX's peak does not see."""

    def test_memory_of_another_library_is_judged_and_kept(self) -> None:
        """MLX counts 7 GB, and macOS ten times that."""

        def grow(mac: StandInMetal, _: int) -> None:
            """A step."""
            mac.other += GB // 5

        rehearsal = Rehearsal(StandInMetal(active=7 * GB, private=GB))

        guard = rehearsal.run(grow, steps=600)

        assert rehearsal.mac.allocator().peak == 7 * GB
        assert guard.recycling
        assert "the process's footprint is" in str(guard.stop_reason)
        assert guard.verdict.findings[0].component == "device.other"


class TestCache:
    """MLX keeps what it frees."""

    def test_a_large_cache_is_cleared_and_measured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The outcome says how much of the footprint that freed."""
        mac = StandInMetal(active=7 * GB, private=GB)
        mlx = ModuleType("mlx.core")
        vars(mlx).update(synchronize=lambda: None, clear_cache=lambda: setattr(mac, "cache", 0))
        monkeypatch.setitem(sys.modules, "mlx.core", mlx)

        def grow(mac: StandInMetal, step: int) -> None:
            """A step frees a buffer of a size that does not return."""
            mac.cache += GB if step <= 12 else 0

        guard = Rehearsal(mac).run(grow, steps=40)

        (outcome,) = guard.outcomes
        assert (outcome.action, outcome.freed_bytes) == ("clear_caches", 11 * GB)
        assert outcome.reason == "the device's cache is 11.0 GB, over 15% of the budget"
