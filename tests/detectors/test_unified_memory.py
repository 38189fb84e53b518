"""Tests of the judgement of a machine on which host and device share their memory, and buffers have a limit."""

import numpy as np

from holdwater.budget import Budget, Budgets
from holdwater.detectors.headroom import HeadroomConfig, judge_headroom
from holdwater.detectors.judge import JudgeConfig, judge
from holdwater.detectors.pools import uses
from holdwater.detectors.verdict import Finding, Forecast
from holdwater.probes.sample import DeviceMemory, Look, Sample
from holdwater.timeline.timeline import Timeline
from holdwater.units import Bytes, Step

GB = 1_000_000_000
BUDGETS = Budgets(Budget(Bytes(70 * GB), "given", "given (70.0 GB)"), unified=True, buffers=499_000)
HEADROOM = HeadroomConfig(waiting_below=Bytes(0), stopping_below=Bytes(0))


def sample(
    step: int = 0,
    *,
    resident: int = GB,
    active: int = 0,
    footprint: int | None = None,
    buffers: int | None = None,
    look: Look | None = None,
) -> Sample:
    """One sample of a Mac."""
    total = None if footprint is None else Bytes(footprint)
    device = DeviceMemory(Bytes(active), Bytes(active), total, buffers)
    return Sample(Step(step), 0.1 * step, Bytes(resident), device, look)


def findings(samples: list[Sample]) -> dict[str, Finding]:
    """The findings on an ended run, by component."""
    timeline = Timeline()
    for one in samples:
        timeline.append(one)
    verdict = judge(timeline.buckets(), BUDGETS, config=JudgeConfig(), final=True).verdict
    return {finding.component: finding for finding in verdict.findings}


class TestPools:
    """What counts against which limit."""

    def test_the_footprint_counts_where_the_system_tells_it(self) -> None:
        """Pages of mapped files are resident, but the system need not kill for them."""
        (use,) = uses(sample(resident=9 * GB, active=3 * GB, footprint=5 * GB), BUDGETS)

        assert (use.pool, use.used) == ("unified", 5 * GB)

    def test_resident_and_reserved_memory_count_where_it_does_not(self) -> None:
        """Without a footprint both are added up."""
        (use,) = uses(sample(resident=9 * GB, active=3 * GB), BUDGETS)

        assert use.used == 12 * GB

    def test_a_footprint_below_the_frameworks_own_count_is_not_believed(self) -> None:
        """What MLX has allocated and not yet touched will be touched."""
        (use,) = uses(sample(active=30 * GB, footprint=5 * GB), BUDGETS)

        assert use.used == 30 * GB

    def test_buffers_are_a_pool_of_their_own(self) -> None:
        """Their number has a limit, however small they are; messages have no bytes in them."""
        found = judge_headroom(sample(buffers=450_000, footprint=GB), BUDGETS, HEADROOM)

        assert (found.level, found.component) == ("threshold", "device.buffers")
        assert found.reason == "the number of buffers is 450,000, over 80% of the device's limit of 499,000"

    def test_a_footprint_beyond_the_budget_is_over_budget_although_mlx_sees_little(self) -> None:
        """51 GB against 7: what MLX does not count is held all the same."""
        found = judge_headroom(sample(active=7 * GB, footprint=75 * GB), BUDGETS, HEADROOM)

        assert found.level == "over budget"
        assert found.reason == "the process's footprint is 75.0 GB, over the budget of 70.0 GB"

    def test_pressure_of_the_system_asks_for_releases(self) -> None:
        """A warning of macOS means that memory is short, whoever holds it."""
        warned = judge_headroom(sample(look=Look(pressure_level=2)), BUDGETS, HEADROOM)
        calm = judge_headroom(sample(look=Look(pressure_level=1)), BUDGETS, HEADROOM)

        assert (warned.level, calm.level) == ("waiting", "calm")


class TestBuffers:
    """The number of buffers as a component."""

    def test_reports_a_number_that_grows_while_bytes_stand_still(self) -> None:
        """It is forecast against the device's limit, and its message counts."""
        rng = np.random.default_rng(0)
        samples = [
            sample(step, active=7 * GB, footprint=9 * GB, look=Look(device_buffers=int(number)))
            for step, number in enumerate(20_000 + 200 * np.arange(400) + rng.integers(0, 300, 400))
        ]

        found = findings(samples)["device.buffers"]

        assert found.verdict == "leak"
        assert isinstance(found.forecast, Forecast)
        assert found.forecast.limit_bytes == 499_000
        assert 1900 < found.forecast.steps < 2100
        assert found.message == "buffers on the device: 200 more each step since step 0"

    def test_ignores_a_number_that_settles(self) -> None:
        """A cache that fills is no leak."""
        samples = [
            sample(
                step, active=7 * GB, footprint=9 * GB, look=Look(device_buffers=min(5_000 + 300 * step, 20_000))
            )
            for step in range(400)
        ]

        assert "device.buffers" not in findings(samples)

    def test_the_bytes_are_reported_alone_where_they_run_out_first(self) -> None:
        """A leak of large arrays adds buffers too: one leak, one finding."""
        samples = [
            sample(
                step,
                active=GB + step * 100_000_000,
                footprint=2 * GB + step * 100_000_000,
                look=Look(device_buffers=2_000 + 10 * step),
            )
            for step in range(400)
        ]

        found = findings(samples)

        assert found["device.active"].verdict == "leak"
        assert "device.buffers" not in found

    def test_both_are_reported_where_the_number_runs_out_first(self) -> None:
        """Small arrays reach the limit of buffers long before that of bytes."""
        samples = [
            sample(
                step,
                active=GB + step * 1_000_000,
                footprint=2 * GB + step * 1_000_000,
                look=Look(device_buffers=2_000 + 1_000 * step),
            )
            for step in range(400)
        ]

        found = findings(samples)

        assert found["device.buffers"].verdict == "leak"
        assert found["device.active"].verdict == "leak"
        assert found["device.buffers"].spent_after < found["device.active"].spent_after


class TestFootprint:
    """Memory that MLX's counters do not see."""

    def test_reports_growth_outside_the_framework(self) -> None:
        """A library that holds Metal memory of its own is seen by the footprint."""
        samples = [
            sample(
                step,
                active=7 * GB,
                footprint=8 * GB + step * 50_000_000,
                look=Look(device_other=Bytes(step * 50_000_000)),
            )
            for step in range(400)
        ]

        found = findings(samples)["device.other"]

        assert found.verdict == "leak"
        assert isinstance(found.forecast, Forecast)
        assert found.forecast.limit_bytes == 70 * GB
        assert 800 < found.forecast.steps < 860
