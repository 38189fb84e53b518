"""Rules of the test whether memory grows with every call of a function."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdwater.detectors.flatness import judge_calls

CALLS = np.arange(0.0, 4800.0, 40.0)


def noise(seed: int, size: float) -> np.ndarray:
    """Fluctuation about a level."""
    found: np.ndarray = np.random.default_rng(seed).normal(0, size, len(CALLS))
    return found


class TestGrowth:
    """Growth by calls, and what looks like it."""

    def test_reports_a_leak_at_each_call(self) -> None:
        """A kilobyte a call, exactly counted, is growth of a kilobyte a call."""
        growth = judge_calls(CALLS, 1e6 + 1000 * CALLS)

        assert growth.grows
        assert growth.rate == pytest.approx(1000)

    def test_reports_a_leak_under_noise(self) -> None:
        """Noise of a third of a megabyte does not hide a kilobyte a call."""
        growth = judge_calls(CALLS, 1000 * CALLS + noise(1, 300_000))

        assert growth.grows
        assert growth.low < 1000 < growth.high

    def test_ignores_a_level_memory_and_says_what_it_could_have_missed(self) -> None:
        """A counter that never moves leaves less than its own least rise, over the judged calls."""
        growth = judge_calls(CALLS, np.full(len(CALLS), 5e6), least=16_384)

        assert not growth.grows
        assert growth.missed == pytest.approx(16_384 / (2 / 3 * CALLS[-1]), rel=0.02)

    def test_ignores_a_cache_that_has_filled(self) -> None:
        """Growth that ends within the readings is none."""
        assert not judge_calls(CALLS, np.minimum(1000 * CALLS, 3.5e6)).grows

    def test_ignores_a_cache_that_fills_more_and_more_slowly(self) -> None:
        """Random keys of a bounded set."""
        assert not judge_calls(CALLS, 3e6 * (1 - np.exp(-CALLS / 3000))).grows

    def test_ignores_rows_that_are_gathered_and_written_out(self) -> None:
        """A sawtooth falls back to where it began."""
        assert not judge_calls(CALLS, 1000 * (CALLS % 1900)).grows

    def test_ignores_a_single_step(self) -> None:
        """What is loaded once does not grow."""
        assert not judge_calls(CALLS, np.where(CALLS > 3000, 8e6, 0.0)).grows

    def test_ignores_what_the_interpreter_keeps_for_reuse(self) -> None:
        """A rise of fewer blocks than free lists take is none."""
        assert not judge_calls(CALLS, CALLS // 40, least=192).grows

    @pytest.mark.parametrize("walk", [False, True], ids=["noise", "random walk"])
    def test_ignores_chance(self, walk: bool) -> None:
        """Of 2,000 series without a trend, noise is never called growth, and a random walk twice at most."""
        found = [noise(seed, 1e5) for seed in range(2000)]

        grows = sum(judge_calls(CALLS, np.cumsum(one) if walk else one).grows for one in found)

        assert grows <= (2 if walk else 0)

    @given(shift=st.integers(min_value=0, max_value=2**36))
    def test_does_not_depend_on_the_level(self, shift: int) -> None:
        """What was in use before changes nothing."""
        series = 1000 * CALLS + np.round(noise(2, 3e5))

        assert judge_calls(CALLS, series + shift).grows == judge_calls(CALLS, series).grows

    def test_accepts_calls_that_become_much_slower(self) -> None:
        """Readings may lie very unevenly among the calls."""
        calls = np.concatenate((np.arange(50.0), 50 + 1000.0 * np.arange(1, 9)))

        assert not judge_calls(calls, np.full(len(calls), 7.0)).grows
