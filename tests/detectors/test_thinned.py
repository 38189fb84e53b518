"""A verdict does not depend on how densely which part of a run was read."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdwater.detectors.growth import judge_growth
from holdwater.timeline.buckets import Floats

MB = 1e6
STEPS = 3000
SHAPES: dict[str, Callable[[Floats], Floats]] = {
    "straight": lambda steps: 0.1 * MB * steps,
    "late": lambda steps: 0.2 * MB * np.maximum(steps - 1500, 0),
    "filled": lambda steps: 0.3 * MB * np.minimum(steps, 800),
    "filled late": lambda steps: 0.3 * MB * np.minimum(steps, 1800),
    "settling": lambda steps: 300 * MB * -np.expm1(-steps / 120),
    "level": lambda steps: 0 * steps,
    "shifted": lambda steps: np.where(steps > 1200, 40 * MB, 0.0),
}
LEAKS = {"straight", "late"}


def thinned(pattern: str, keep: int, random: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of the steps are read: so many of them, the first and the last among them. Shape (steps,)."""
    at = np.arange(STEPS)
    weights = {
        "evenly": np.ones(STEPS),
        "dense at first": 1 / (1 + at),
        "dense at last": 1 / (1 + at[::-1]),
        "in clusters": np.where(at // 100 % 3 == 0, 20.0, 1.0),
        "hardly in the middle": np.where((at > 1000) & (at < 2000), 0.05, 1.0),
    }[pattern]
    read = np.zeros(STEPS, bool)
    read[random.choice(STEPS, keep, replace=False, p=weights / weights.sum())] = True
    read[0] = read[-1] = True
    return read


class TestThinning:
    """Any pattern that leaves sixty readings leaves the verdict."""

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize(
        "pattern", ["evenly", "dense at first", "dense at last", "in clusters", "hardly in the middle"]
    )
    @given(keep=st.integers(min_value=60, max_value=2500), seed=st.integers(min_value=0, max_value=10**6))
    @settings(max_examples=25, deadline=None)
    def test_leaves_the_verdict(self, shape: str, pattern: str, keep: int, seed: int) -> None:
        """Of leaks and of their look-alikes."""
        random = np.random.default_rng(seed)
        steps = np.arange(1.0, STEPS + 1)
        memory = 500 * MB + SHAPES[shape](steps) + 0.2 * MB * np.abs(random.standard_normal(STEPS))
        read = thinned(pattern, keep, random)

        assert (judge_growth(steps[read], memory[read], final=True).kind == "leak") == (shape in LEAKS)
