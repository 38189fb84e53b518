"""Growth: what leaks is reported, and what looks like a leak is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdwater.detectors.growth import DEFAULT, GrowthConfig, by_time, judge_few, judge_growth
from holdwater.detectors.slope import fit_slope
from holdwater.errors import ConfigError
from holdwater.timeline.buckets import Floats

MB = 1e6


def run_of(steps: int = 1000, *, noise: float = 0.2 * MB, seed: int = 0) -> tuple[Floats, Floats]:
    """Steps, and a healthy run's memory: 300 MB with a little noise."""
    random = np.random.default_rng(seed)
    return np.arange(1.0, steps + 1), 300 * MB + noise * random.standard_normal(steps)


class TestReportsLeaks:
    """Memory that grows steadily is a leak."""

    @pytest.mark.parametrize("rate", [20e3, 0.2 * MB, 10 * MB], ids=["20 kB", "200 kB", "10 MB"])
    def test_reports_steady_growth_with_its_rate(self, rate: float) -> None:
        """The true rate lies within the interval."""
        steps, memory = run_of()
        memory += rate * steps

        growth = judge_growth(steps, memory)

        assert growth.kind == "leak"
        assert growth.rate is not None
        assert growth.rate.low <= rate <= growth.rate.high
        assert growth.rate.bytes_per_step == pytest.approx(rate, rel=0.02)

    def test_reports_growth_that_begins_late(self) -> None:
        """A leak of the second epoch is found, with its onset."""
        steps, memory = run_of()
        memory += 0.5 * MB * np.maximum(steps - 450, 0)

        growth = judge_growth(steps, memory)

        assert growth.kind == "leak"
        assert growth.onset is not None
        assert abs(growth.onset - 450) < 25

    def test_reports_growth_that_began_in_the_last_fifth(self) -> None:
        """The last quarter is looked at too."""
        steps, memory = run_of(10_000)
        memory += 0.5 * MB * np.maximum(steps - 8200, 0)

        growth = judge_growth(steps, memory)

        assert growth.kind == "leak"
        assert growth.onset is not None
        assert abs(growth.onset - 8200) < 250

    def test_does_not_call_growth_at_the_very_end_flat(self) -> None:
        """Too late to tell a leak from a shift: it still rises."""
        steps, memory = run_of(10_000)
        memory += 5 * MB * np.maximum(steps - 9900, 0)

        assert judge_growth(steps, memory).kind == "warming"

    @pytest.mark.parametrize(("jumps", "kind"), [((9300,), "flat"), ((8000, 8700, 9400), "warming")])
    def test_tells_a_late_jump_from_late_growth(self, jumps: tuple[int, ...], kind: str) -> None:
        """In a run that has ended, 6 MB that came at once and stayed are no rise; those that came bit by bit are."""
        steps, memory = run_of(10_000)
        for at in jumps:
            memory += 6 * MB / len(jumps) * (steps > at)

        assert judge_growth(steps, memory, final=True).kind == kind

    def test_waits_for_what_follows_a_late_jump(self) -> None:
        """While the run goes on, more may come."""
        steps, memory = run_of(10_000)
        memory += 6 * MB * (steps > 9300)

        assert judge_growth(steps, memory).kind == "warming"

    def test_reports_growth_under_large_spikes(self) -> None:
        """What a step needs for a moment stands above the floor."""
        steps, memory = run_of()
        memory += 0.1 * MB * steps
        memory[::7] += 500 * MB

        assert judge_growth(steps, memory).kind == "leak"

    def test_reports_a_leak_once_a_hundred_steps(self) -> None:
        """A staircase with many stairs is a slope."""
        steps, memory = run_of(5000)
        memory += 5 * MB * (steps // 100)

        assert judge_growth(steps, memory).kind == "leak"


class TestIgnoresLookAlikes:
    """What only looks like a leak is not called one."""

    def test_ignores_noise(self) -> None:
        """Flat is flat."""
        assert judge_growth(*run_of()).kind == "flat"

    def test_ignores_a_single_spike(self) -> None:
        """One evaluation step that needs three times the memory is not growth."""
        steps, memory = run_of()
        memory[700] *= 3

        assert judge_growth(steps, memory).kind == "flat"

    def test_ignores_a_cache_that_filled_in_the_first_epoch(self) -> None:
        """It rose by 200 MB, and stopped: bounded."""
        steps, memory = run_of()
        memory += np.minimum(steps, 150) / 150 * 200 * MB

        assert judge_growth(steps, memory).kind == "bounded"

    @pytest.mark.parametrize("at", [300, 500, 620, 700, 800, 900])
    def test_ignores_a_one_time_shift(self, at: int) -> None:
        """Memory that moves up once and stays is not growth, wherever it happens."""
        steps, memory = run_of()
        memory[at:] += 80 * MB

        assert judge_growth(steps, memory).kind != "leak"

    def test_ignores_a_sawtooth_of_collections(self) -> None:
        """Garbage that is collected every 90 steps comes and goes."""
        steps, memory = run_of()
        memory += (steps % 90) * MB

        assert judge_growth(steps, memory).kind != "leak"

    def test_ignores_growth_that_slows_down(self) -> None:
        """A warm-up that saturates is still warming, or has settled."""
        steps, memory = run_of()
        memory += 300 * MB * (1 - np.exp(-steps / 300))

        assert judge_growth(steps, memory).kind in {"warming", "bounded"}

    def test_ignores_growth_within_the_grain_of_the_allocator(self) -> None:
        """Less than 1 MiB over the whole run."""
        steps, memory = run_of(noise=100)
        memory += 500 * steps

        assert judge_growth(steps, memory).kind == "flat"

    @pytest.mark.parametrize("seed", range(8))
    def test_ignores_noise_that_resembles_itself(self, seed: int) -> None:
        """Neighbouring readings that are alike make trends that mean nothing."""
        random = np.random.default_rng(seed)
        shocks, memory = random.standard_normal(2000) * MB, np.zeros(2000)
        for index in range(1, 2000):
            memory[index] = 0.98 * memory[index - 1] + shocks[index]

        assert judge_growth(np.arange(2000.0), 300 * MB + memory).kind != "leak"

    def test_does_not_judge_a_short_run(self) -> None:
        """One reading minus the one before is not a judgement."""
        steps, memory = run_of(40)
        memory += 5 * MB * steps

        assert judge_growth(steps, memory).kind == "warming"


@pytest.mark.parametrize(("goes_on", "kind"), [(True, "leak"), (False, "bounded")])
def test_growth_that_stops_where_readings_are_sparse(goes_on: bool, kind: str) -> None:
    """Each step is read at first, and every 25th later: half of the steps, of which there are few readings."""
    steps = np.concatenate([np.arange(1.0, 501), np.arange(520.0, 1001, 25)])
    bent = np.where(steps > 540, 540.0, steps) if not goes_on else steps
    memory = 300 * MB + np.maximum(bent - 300, 0) * 0.15 * MB + 0.05 * MB * np.sin(steps)

    assert judge_growth(steps, memory, final=True).kind == kind


class TestInvariances:
    """What a verdict does not depend on."""

    @settings(deadline=None, max_examples=25)
    @given(shift=st.integers(min_value=0, max_value=2**36), rate=st.sampled_from([0.0, 1e5]))
    def test_does_not_depend_on_the_baseline(self, shift: int, rate: float) -> None:
        """Adding a constant to every reading never makes or unmakes a leak."""
        steps, memory = run_of()
        memory += rate * steps

        before = judge_growth(steps, memory)
        after = judge_growth(steps, memory + shift)

        assert (before.kind == "leak") == (after.kind == "leak")

    def test_refuses_a_probability_that_is_none(self) -> None:
        """The message names the key, the value and what to write."""
        with pytest.raises(ConfigError, match=r"growth\.false_alarms is 2, .* between 0 and 1"):
            GrowthConfig(false_alarms=2)


class TestSlope:
    """The robust line."""

    def test_is_exact_on_a_line(self) -> None:
        """Value and level of a straight line."""
        line = fit_slope(np.arange(10.0), 3.0 * np.arange(10.0) + 2)

        assert line.value == pytest.approx(3.0)
        assert line.noise == pytest.approx(0.0, abs=1e-9)
        assert line.interval(0.95) == pytest.approx((3.0, 3.0), rel=2e-4)

    def test_encloses_the_truth_as_often_as_it_says(self) -> None:
        """95 % intervals on independent noise: 91 to 99 of 100."""
        random = np.random.default_rng(1)
        x = np.arange(60.0)
        hits = 0
        for _ in range(200):
            low, high = fit_slope(x, 0.5 * x + random.standard_normal(60)).interval(0.95)
            hits += low <= 0.5 <= high

        assert 182 <= hits <= 198

    def test_noise_that_resembles_itself_widens_the_interval(self) -> None:
        """The same noise, summed up: a random walk proves next to nothing."""
        random = np.random.default_rng(1)
        x, noise = np.arange(200.0), random.standard_normal(200)

        assert fit_slope(x, np.cumsum(noise)).error > 10 * fit_slope(x, noise).error


class TestByTime:
    """Where no steps are counted, imports and loading look like growth."""

    @pytest.mark.parametrize(("seconds", "leaks"), [(8, False), (25, False), (45, True)])
    @pytest.mark.parametrize("final", [True, False])
    def test_a_leak_needs_half_a_minute(self, seconds: int, leaks: bool, final: bool) -> None:
        """200 MB of data that are loaded at an even pace."""
        ticks = np.arange(1.0, 10 * seconds)

        found = judge_growth(ticks, 1e8 + 2e6 * ticks, final=final, config=by_time(0.1))

        assert (found.kind == "leak") == leaks


class TestSettled:
    """A rise by unequal steps that keeps its level at the end has stopped."""

    @pytest.mark.parametrize(("filled", "kind"), [(0.8, "bounded"), (1.0, "leak")])
    def test_a_rise_that_keeps_its_level_is_none(self, filled: float, kind: str) -> None:
        """32 entries of 2 MB, the last of them at 80 % of the run, or at its end."""
        steps = np.arange(1.0, 1001.0)
        memory = 300 * MB + 2 * MB * np.floor(32 * np.minimum(steps / (1000 * filled), 1.0))

        assert judge_growth(steps, memory, final=True).kind == kind


class TestFewReadings:
    """Of few readings only those that rise to the end, over a good part of the run, are a leak."""

    @pytest.mark.parametrize(("apart", "kind"), [(300, "leak"), (20, "unknown")])
    def test_a_rise_within_a_tenth_of_the_run_says_nothing(self, apart: int, kind: str) -> None:
        """Three level readings, then ten that rise by 3 MB each, up to step 10,000."""
        steps = np.array([1.0, 4000.0, 7000.0, *(10_000.0 - apart * np.arange(9, -1, -1))])
        memory = np.array([200.0 * MB] * 3 + [200 * MB + 3 * MB * rise for rise in range(10)])

        assert judge_few(steps, memory, final=True, config=DEFAULT).kind == kind
