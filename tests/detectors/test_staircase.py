"""Growth by a few stairs, in runs that are too short to call it a leak."""

import numpy as np
import pytest

from holdwater.budget import Budget, Budgets
from holdwater.detectors.growth import DEFAULT
from holdwater.detectors.judge import JudgeConfig, judge
from holdwater.detectors.staircase import rise_evenly
from holdwater.detectors.verdict import Verdict
from holdwater.probes.sample import Look, Sample
from holdwater.timeline.timeline import Timeline
from holdwater.units import Bytes, Step

STEPS = np.arange(1.0, 101.0)


def stairs(at: list[int], size: float) -> "np.typing.NDArray[np.float64]":
    """Memory that rises at these steps."""
    return 200e6 + size * sum((np.where(step <= STEPS, 1.0, 0.0) for step in at), np.zeros(100))


def judged(floors: "np.typing.NDArray[np.float64]", *, steps_apart: int = 1) -> Verdict:
    """The judgement of a run that has ended, by its heap."""
    timeline = Timeline()
    for number, size in enumerate(floors, start=1):
        step = number * steps_apart
        timeline.append(
            Sample(Step(step), 0.02 * step, Bytes(int(size)), None, Look(heap_in_use=Bytes(int(size))))
        )
    budgets = Budgets(Budget(Bytes(10**10), "given", ""))
    return judge(timeline.buckets(), budgets, config=JudgeConfig(), final=True).verdict


class TestRiseEvenly:
    """Equal stairs, evenly apart."""

    def test_reports_five_stairs(self) -> None:
        """Of 400 kB each, at every twentieth step."""
        growth = rise_evenly(STEPS, stairs([20, 40, 60, 80, 99], 4e5), DEFAULT)

        assert growth is not None
        assert growth.rate is not None
        assert growth.rate.bytes_per_step == pytest.approx(2e4, rel=0.05)

    @pytest.mark.parametrize("at", [[20, 40, 60], [5, 8, 11, 14], [20, 40, 60, 80, 82, 84]])
    def test_ignores_stairs_that_are_few_or_ended_or_uneven(self, at: list[int]) -> None:
        """Three are chance; four at the beginning are a warm-up."""
        assert rise_evenly(STEPS, stairs(at, 4e5), DEFAULT) is None

    def test_ignores_stairs_that_get_lower(self) -> None:
        """What slows down may stop."""
        floors = stairs([20], 3e6) + stairs([40], 1e6) + stairs([60], 5e5) + stairs([80], 2e5)

        assert rise_evenly(STEPS, floors, DEFAULT) is None


class TestShortRuns:
    """What is plain, but little, is told as *warming*."""

    @pytest.mark.parametrize(("grown", "kind"), [(8e5, "warming"), (1e5, "flat"), (6e6, "leak")])
    def test_by_how_much_a_straight_line_has_grown(self, grown: float, kind: str) -> None:
        """In 100 steps; the allocator's grain lies at 1 MiB, a quarter of which is told."""
        noise = np.random.default_rng(0).normal(0, 4096, 100)

        assert judged(200e6 + grown * STEPS / 100 + noise).kind == kind

    def test_a_long_run_is_flat_all_the_same(self) -> None:
        """The same line over 100,000 steps."""
        noise = np.random.default_rng(0).normal(0, 4096, 100)

        assert judged(200e6 + 8e5 * STEPS / 100 + noise, steps_apart=1000).kind == "flat"

    def test_what_has_stopped_is_not(self) -> None:
        """It rose for the first third."""
        noise = np.random.default_rng(0).normal(0, 4096, 100)

        assert judged(200e6 + 8e5 * np.minimum(STEPS / 33, 1) + noise).kind == "flat"


class TestCompilations:
    """Memory that rises with each compilation."""

    @staticmethod
    def judged(compiles: int, steps: int) -> Verdict:
        """A run that compiles at each fourth step so many times, 50 kB each."""
        timeline = Timeline()
        for step in range(1, steps + 1):
            made = min(step // 4, compiles)
            look = Look(heap_in_use=Bytes(50_000_000 + 50_000 * made), compiles=made)
            timeline.append(Sample(Step(step), 0.02 * step, Bytes(100_000_000 + 50_000 * made), None, look))
        budgets = Budgets(Budget(Bytes(10**10), "given", ""))
        return judge(timeline.buckets(), budgets, config=JudgeConfig(), final=True).verdict

    def test_reports_compilations_without_end(self) -> None:
        """To the last step."""
        assert self.judged(compiles=1000, steps=400).kind == "leak"

    def test_ignores_compilations_at_first(self) -> None:
        """Forty shapes, and none in the later half of the run."""
        assert self.judged(compiles=40, steps=400).kind != "leak"
