"""Measure the cost of the guard's hook, and limit how often it samples.

Durations go into a histogram of fixed size with bins 5 % wide, so percentiles of any number of steps
take constant memory.
"""

import math
from dataclasses import dataclass

_LEAST = 1e-7
_WIDTH = math.log(1.05)
_BINS = 400
"""From 0.1 µs to 29 s."""

SHARE = 0.0012
"""The part of the time that sampling may take before the guard samples less often than every step."""

SPACING = 1 / 500
"""The part of the time passed that may lie between two samples, in whole steps: with steps of uneven length no
further than 1/400."""

MOST_STRIDE = 1000
"""Most steps between two samples."""


@dataclass(frozen=True, slots=True)
class Overhead:
    """What the guard cost."""

    guard_seconds: float
    """Time in the hook, including expensive probes and the store; remedies are accounted for as actions."""
    run_seconds: float
    """From the guard's first step to its last."""
    step_us_mean: float
    step_us_p50: float
    step_us_p99: float
    startup_seconds: float


class Account:
    """Adds up durations of the hook, in seconds.

    A step without a sample costs nothing here: one addition and one comparison take less
    time than reading a clock.
    """

    def __init__(self) -> None:
        self.spacing = SPACING
        """The part of the time passed that may lie between two samples."""
        self.total = 0.0
        self.steps = 0
        self.samples = 0
        self._bins = [0] * _BINS
        self._waits, self._waited = 0, 0.0
        self._recent_cost = 0.0
        self._recent_period = 0.0

    def wait(self, seconds: float) -> None:
        """Count a sample that waits to be observed with others."""
        self._waits += 1
        self._waited += seconds

    def add(self, seconds: float, *, steps: int) -> None:
        """Count a sample with which all that waited were observed, and the steps since the previous one."""
        self._fill(0.0, steps - self._waits - 1)
        if self._waits:
            self._fill(self._waited / self._waits, self._waits)
        self._fill(seconds, 1)
        self.total += self._waited + seconds
        self.steps += steps
        self.samples += self._waits + 1
        self._waits, self._waited = 0, 0.0

    def _fill(self, seconds: float, steps: int) -> None:
        """Put so many steps into the bin of a duration."""
        index = int(math.log(seconds / _LEAST) / _WIDTH) if seconds > _LEAST else 0
        self._bins[min(index, _BINS - 1)] += steps

    def stride(self, cost: float, period: float, elapsed: float) -> int:
        """The number of steps until the next sample.

        Sampling stays within its share, but samples are never further apart than `spacing` of the time that has
        passed: a short run must be judged too.

        Args:
            cost: Seconds that the last sample took, without those that waited for it.
            period: Seconds since the last sample that was added, divided by the steps between.
            elapsed: Seconds since the first step.
        """
        cost = (self._waited + cost) / (self._waits + 1)
        weight = 1 - 0.95 ** (self._waits + 1)
        typical = min(cost, 4 * self._recent_cost) if self._recent_cost else cost  # a judgement is rare
        self._recent_cost += weight * (typical - self._recent_cost) if self._recent_cost else cost
        self._recent_period += weight * (period - self._recent_period) if self._recent_period else period
        if self._recent_cost <= SHARE * self._recent_period or self._recent_period <= 0:
            return 1
        most = min(max(int(elapsed * self.spacing / self._recent_period), 1), MOST_STRIDE)
        return min(math.ceil(self._recent_cost / (SHARE * self._recent_period)), most)

    def percentile(self, share: float) -> float:
        """The duration that this share of the steps did not exceed, in seconds; 0 without steps."""
        goal, seen = share * self.steps, 0
        for index, count in enumerate(self._bins):
            seen += count
            if seen >= goal and count:
                return float(_LEAST * math.exp(_WIDTH * (index + 1)))
        return 0.0
