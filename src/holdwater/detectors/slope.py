"""A robust slope with a standard error that allows for noise that resembles itself from block to block.

Sources: Sen (1968), "Estimates of the regression coefficient based on Kendall's tau", JASA 63 (the slope);
Bayley and Hammersley (1946), "The 'effective' number of independent observations in an autocorrelated time
series", JRSS Supplement 8 (the correction of its variance); Kendall (1954), "Note on bias in the estimation
of autocorrelation", Biometrika 41 (why an estimated correlation is raised).
"""

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from holdwater.timeline.buckets import Floats, Integers

MOST_CORRELATION = 0.99
"""Noise more alike than this cannot be told from a random walk in a hundred blocks."""


@dataclass(frozen=True, slots=True)
class Slope:
    """A Theil-Sen line through a series of blocks."""

    value: float
    """Per unit of x."""
    level: float
    """The line's height at the median x."""
    noise: float
    """Standard deviation of the residuals, estimated from their median (robust)."""
    error: float
    """Standard error of the slope, corrected for autocorrelation."""
    correlation: float
    """Of neighbouring residuals, raised by what its estimate lacks in so short a series."""

    @property
    def score(self) -> float:
        """How many standard errors the slope lies above zero."""
        if self.error > 0:
            return self.value / self.error
        return 0.0 if self.value == 0 else float(np.copysign(1e9, self.value))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the interval that encloses the true slope with this probability."""
        reach = NormalDist().inv_cdf(0.5 + confidence / 2) * self.error
        return self.value - reach, self.value + reach


@lru_cache(maxsize=64)
def _pairs(count: int) -> tuple[Integers, Integers]:
    """Indices of all pairs."""
    left, right = np.triu_indices(count, k=1)
    return left, right


def fit_slope(x: Floats, y: Floats) -> Slope:
    """Fit a Theil-Sen line.

    Args:
        x: Increasing. Shape (blocks,), at least 3.
        y: Shape (blocks,).
    """
    left, right = _pairs(len(x))
    value = float(np.median((y[right] - y[left]) / (x[right] - x[left])))
    residuals = y - value * x
    residuals = residuals - np.median(residuals)
    noise = 1.4826 * float(np.median(np.abs(residuals)))
    if noise == 0:  # most lie on the line; the others still speak
        noise = 0.2 * float(np.std(residuals))
    clipped = np.clip(residuals, -4 * noise, 4 * noise)
    correlation = _correlation(clipped)
    fresh = clipped[1:] - correlation * clipped[:-1]
    innovation = max(1.4826 * float(np.median(np.abs(fresh - np.median(fresh)))), 0.8 * float(np.std(fresh)))
    spacing = float(x[-1] - x[0]) / (len(x) - 1)
    error = innovation * _error_factor(len(x), round(correlation, 2)) / spacing
    level = float(np.median(y - value * (x - np.median(x))))
    return Slope(value, level, noise, error, correlation)


@lru_cache(maxsize=4096)
def _error_factor(count: int, correlation: float) -> float:
    """Standard error of a slope per unit spacing and unit innovation, for first-order autoregression."""
    position = np.arange(count) - (count - 1) / 2
    weights = position / (position @ position)
    apart = np.abs(np.subtract.outer(position, position))
    covariance = correlation**apart / (1 - correlation**2)
    return float(np.sqrt(weights @ covariance @ weights))


def _correlation(residuals: Floats) -> float:
    """Correlation of neighbours, raised by its bias and by one standard error."""
    energy = float(residuals @ residuals)
    count = len(residuals)
    if energy == 0 or count < 4:
        return 0.0
    found = float(residuals[:-1] @ residuals[1:]) / energy
    found += (2 + 4 * max(found, 0.0)) / count  # Kendall: short series hide correlation, more so with a trend
    found += float(np.sqrt(max(1 - found**2, 0.0) / count))
    return min(max(found, 0.0), MOST_CORRELATION)


def blocks(x: Floats, y: Floats, count: int, *, floor: bool) -> tuple[Floats, Floats]:
    """Cut a series into consecutive blocks and take the floor or the mean of each.

    What a program needs only for a moment stands above the floor; what it keeps lifts it. Where there is
    nothing but noise the mean is the more exact one.

    Args:
        x: Increasing. Shape (values,).
        y: Shape (values,).
        count: How many blocks to make at most.
        floor: Take the smallest value of each block, not the mean.

    Returns:
        The mean x, and the floor or mean, of each block. Shape (blocks,) each.
    """
    count = min(count, len(x))
    edges = np.linspace(0, len(x), count + 1).astype(np.int64)[:-1]
    widths = np.diff(np.append(edges, len(x)))
    values = np.minimum.reduceat(y, edges) if floor else np.add.reduceat(y, edges) / widths
    return np.add.reduceat(x, edges) / widths, values


def spread_of_steps(y: Floats) -> float:
    """How far neighbouring values lie apart, whatever the trend: the noise of blocks (robust)."""
    differences = np.diff(y)
    return 1.4826 * float(np.median(np.abs(differences - np.median(differences)))) / float(np.sqrt(2))
