"""A robust slope with an interval that allows for noise that resembles itself from block to block.

Sources: Sen (1968), "Estimates of the regression coefficient based on Kendall's tau", JASA 63 (the
slope and its interval); Bayley and Hammersley (1946), "The 'effective' number of independent
observations in an autocorrelated time series", JRSS Supplement 8 (the correction of its variance).
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from holdwater.timeline.buckets import Floats

MOST_CORRELATION = 0.95
"""Noise more alike than this is a random walk, in which no slope can be seen."""


@dataclass(frozen=True, slots=True)
class Slope:
    """A Theil-Sen line through a series of blocks."""

    value: float
    """Per unit of x."""
    level: float
    """The line's height at the median x."""
    noise: float
    """Standard deviation of the residuals, estimated from their median (robust)."""
    pairs: Floats
    """All pairwise slopes, sorted. Shape (pairs,)."""
    rank_spread: float
    """Standard deviation of Kendall's S, corrected for autocorrelation."""

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the interval that encloses the true slope with this probability.

        An end is infinite where there are too few blocks for so high a confidence.
        """
        reach = NormalDist().inv_cdf(0.5 + confidence / 2) * self.rank_spread
        count = len(self.pairs)
        below, above = int((count - reach) // 2), int((count + reach) // 2) + 1
        low = self.pairs[below] if below >= 0 else -np.inf
        high = self.pairs[above] if above < count else np.inf
        return float(low), float(high)


def fit_slope(x: Floats, y: Floats) -> Slope:
    """Fit a Theil-Sen line.

    Args:
        x: Increasing. Shape (blocks,), at least 3.
        y: Shape (blocks,).
    """
    upper = np.triu_indices(len(x), k=1)
    pairs = np.sort((y[upper[1]] - y[upper[0]]) / (x[upper[1]] - x[upper[0]]))
    value = float(np.median(pairs))
    residuals = y - value * x
    residuals = residuals - np.median(residuals)
    noise = 1.4826 * float(np.median(np.abs(residuals)))
    count = len(x)
    inflation = _variance_inflation(residuals)
    rank_spread = float(np.sqrt(count * (count - 1) * (2 * count + 5) / 18 * inflation))
    return Slope(value, float(np.median(y - value * (x - np.median(x)))), noise, pairs, rank_spread)


def _variance_inflation(residuals: Floats) -> float:
    """How many times larger the variance is than that of independent blocks (at least 1)."""
    energy = float(residuals @ residuals)
    if energy == 0:
        return 1.0
    correlation = float(residuals[:-1] @ residuals[1:]) / energy
    correlation += 1 / len(residuals)  # the estimate is biased towards zero in short series
    correlation = min(max(correlation, 0.0), MOST_CORRELATION)
    return (1 + correlation) / (1 - correlation)


def block_floors(x: Floats, y: Floats, blocks: int) -> tuple[Floats, Floats]:
    """Take the smallest y in each of a number of consecutive blocks of equal length.

    What a program needs only for a moment stands above the floor; what it keeps lifts it.

    Args:
        x: Increasing. Shape (values,).
        y: Shape (values,).
        blocks: How many blocks to make at most.

    Returns:
        The mean x and the floor of each block. Shape (blocks,) each.
    """
    count = min(blocks, len(x))
    edges = np.linspace(0, len(x), count + 1).astype(np.int64)[:-1]
    widths = np.diff(np.append(edges, len(x)))
    return np.add.reduceat(x, edges) / widths, np.minimum.reduceat(y, edges)
