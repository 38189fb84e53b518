"""A robust slope with a standard error that allows for autocorrelated noise from block to block.

Sources: Sen (1968), "Estimates of the regression coefficient based on Kendall's tau", JASA 63 (the slope);
Bayley and Hammersley (1946), "The 'effective' number of independent observations in an autocorrelated time
series", JRSS Supplement 8 (the correction of its variance); Kendall (1954), "Note on bias in the estimation
of autocorrelation", Biometrika 41 (why an estimated correlation is raised).
"""

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from holdwater.detectors.medians import median, percentile
from holdwater.timeline.buckets import Floats, Integers

MOST_CORRELATION = 0.995
"""Noise with a higher correlation cannot be distinguished from a random walk in a few hundred blocks."""

SCALES = (4, 8)
"""Numbers of blocks that are joined to test whether noise is smoother than it looks."""
HIGH, HIGH_WARY = 0.5, 1.8
"""Standard errors by which a high correlation is raised, in addition to half of one."""
NEAR_WALK = 0.9
"""Noise with a higher correlation has had too little time to show its range."""
ROUNDING = 1e-4
"""The relative error of a slope because blocks differ in length."""
FOR_A_FLOOR = 3
"""A floor needs at least this many readings, if that leaves enough blocks: one reading has no floor."""
FEWEST_BLOCKS, FILLED = 24, 0.97
"""A series is cut into at least this many blocks, and into more only if this part of them holds readings."""
PLAINLY_SIMILAR = 3.5
"""Joined blocks count as correlated from this many standard errors on."""


@dataclass(frozen=True, slots=True)
class Slope:
    """A robust line through a series of blocks."""

    value: float
    """Per unit of x."""
    end: float
    """The line's height at the last block."""
    noise: float
    """Standard deviation of the residuals, estimated from their median (robust)."""
    error: float
    """Standard error of the slope, corrected for autocorrelation."""
    correlation: float
    """Correlation of neighbouring residuals, corrected for its bias in so short a series."""

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


def fit_slope(x: Floats, y: Floats, *, bend: float = 0.0, wary: bool = False) -> Slope:
    """Fit a robust line, or one that is level up to a bend.

    A Theil-Sen line through a few dozen blocks identifies outliers; least squares through all blocks, with
    outliers clipped, gives the slope.

    Args:
        x: Increasing, about evenly spaced. Shape (blocks,), at least 3.
        y: Shape (blocks,).
        bend: The part of the blocks before the rise begins.
        wary: Allow for much more correlation than was found, if it is high: for repeated looks, some of which
            meet a stretch that is like a random walk.
    """
    count = len(x)
    base = float(y[0])
    y = y - base  # a level of gigabytes would lose digits
    start = min(int(bend * count), count - 3)
    ramp = np.maximum(x - x[start], 0.0)
    rough = _rough(x[start:], y[start:])
    height = median(y[start:] - rough * ramp[start:])
    residuals = y - height - rough * ramp
    noise = 1.4826 * median(np.abs(residuals - median(residuals)))
    reach = 4 * noise if noise > 0 else np.inf
    drawn = height + rough * ramp + np.clip(residuals, -reach, reach)
    apart = ramp - ramp.mean()
    value = float(apart @ drawn) / float(apart @ apart)
    level = float(np.mean(drawn - value * ramp))
    left = drawn - level - value * ramp
    error, correlation = _error(left, count, start, HIGH_WARY if wary else HIGH)
    spacing = float(x[-1] - x[0]) / (count - 1)
    even = float(_energy(count, start)) * spacing**2
    error *= float(np.sqrt(even / (apart @ apart))) / spacing  # readings may leave gaps between blocks
    error = float(np.hypot(error, ROUNDING * value))
    return Slope(
        value, base + level + value * float(ramp[-1]), max(noise, float(np.std(left))), error, correlation
    )


def _rough(x: Floats, y: Floats) -> float:
    """The Theil-Sen slope through at most 48 blocks."""
    if len(x) > 48:
        x, y = blocks(x, y, 48, floor=False)
    left, right = _pairs(len(x))
    return median((y[right] - y[left]) / (x[right] - x[left]))


@lru_cache(maxsize=256)
def _energy(count: int, start: int) -> float:
    """The sum of squares of an evenly spaced ramp about its mean, a block apart."""
    ramp = np.maximum(np.arange(count, dtype=np.float64) - start, 0.0)
    ramp -= ramp.mean()
    return float(ramp @ ramp)


@lru_cache(maxsize=256)
def _weights(count: int, start: int) -> Floats:
    """The least-squares weight of each block, for a slope per block."""
    ramp = np.maximum(np.arange(count, dtype=np.float64) - start, 0.0)
    ramp -= ramp.mean()
    weights: Floats = ramp / (ramp @ ramp)
    return weights


@lru_cache(maxsize=8192)
def _error_factor(count: int, start: int, correlation: float) -> float:
    """Standard error of a slope per block and per unit innovation, for first-order autoregression."""
    weights = _weights(count, start)
    smooth = weights.copy()  # the sum over all pairs, by one recursion from each side
    backward = weights.copy()
    for at in range(1, count):
        smooth[at] += correlation * smooth[at - 1]
        backward[-1 - at] += correlation * backward[-at]
    variance = float(weights @ (smooth + backward - weights)) / (1 - correlation**2)
    return float(np.sqrt(max(variance, 0.0)))


def _error(residuals: Floats, count: int, start: int, doubt: float) -> tuple[float, float]:
    """The standard error of a slope per block, and the correlation that it allows for.

    Noise may be smooth on a scale that fine blocks do not show, so the error is found from blocks of several
    sizes, and the largest is taken.
    """
    correlation = _correlation(residuals, doubt)
    error = _innovation(residuals, correlation, doubt) * _error_factor(count, start, round(correlation, 2))
    for size in SCALES:
        wide = count // size
        if wide < 24:
            break
        means = residuals[count - wide * size :].reshape(wide, size).mean(axis=1)
        similar = _correlation(means, doubt)
        if similar <= max(PLAINLY_SIMILAR / float(np.sqrt(wide)), correlation**size):
            continue
        coarse = _innovation(means, similar, doubt) * _error_factor(
            wide, min(start // size, wide - 3), round(similar, 2)
        )
        error, correlation = max((error, correlation), (coarse / size, similar))
    return error, correlation


def _innovation(residuals: Floats, correlation: float, doubt: float) -> float:
    """Standard deviation of each block's innovation.

    The residual after removing the raised correlation is too large if the noise is known well; it is used for
    repeated looks, and if the noise is near a random walk.
    """
    fresh = residuals[1:] - correlation * residuals[:-1]
    found = max(1.4826 * median(np.abs(fresh - median(fresh))), 0.8 * float(np.std(fresh)))
    if doubt > HIGH or correlation > NEAR_WALK:
        return found
    return min(found, 1.05 * float(np.std(residuals)) * float(np.sqrt(1 - correlation**2)))


def _correlation(residuals: Floats, doubt: float) -> float:
    """Correlation of neighbours, raised by its bias and its uncertainty, the more the nearer it is to one.

    The residuals of a random walk look like an autoregression that is less than one by 10 in their number, so
    from a correlation of 0.4 on more is added.
    """
    energy = float(residuals @ residuals)
    count = len(residuals)
    if energy == 0 or count < 4:
        return 0.0
    found = max(float(residuals[:-1] @ residuals[1:]) / energy, 0.0)
    high = min(max((found - 0.4) / 0.3, 0.0), 1.0)
    certain = (0.5 + doubt * high) * float(np.sqrt(max(1 - found**2, 0.0) / count))
    return min(found + (2 + 4 * found + 4 * high) / count + certain, MOST_CORRELATION)


def blocks(x: Floats, y: Floats, count: int, *, floor: bool) -> tuple[Floats, Floats]:
    """Cut a series into blocks of equal length in x, and take the floor or the mean of each.

    Equal in steps or seconds, not in readings: the density of readings says nothing about a part of the run.
    If readings are too sparse for so many blocks, there are fewer; a block without readings lies on the line
    between its neighbours.
    Memory that a program needs only briefly is above the floor; memory that it keeps raises the floor. If there
    is only noise the mean is more exact.

    Args:
        x: Increasing. Shape (values,).
        y: Shape (values,).
        count: The most blocks to make.
        floor: Take the smallest value of each block, not the mean. The least of many readings is lower than that
            of few, so it is taken of equally many in each block.

    Returns:
        The mean x, and the floor or mean, of each block. Shape (blocks,) each.
    """
    count = _blocks_that_are_read(x, min(count, max(len(x) // FOR_A_FLOOR, FEWEST_BLOCKS)) if floor else count)
    if count >= len(x) and _is_even(x):
        return x, y
    edges = np.linspace(x[0], x[-1], count + 1)
    starts = np.concatenate(([0], np.searchsorted(x, edges[1:-1], side="right")))
    widths = np.diff(np.append(starts, len(x)))
    read = widths > 0
    starts, widths = starts[read], widths[read]
    if floor:
        each = max(int(percentile(widths, 10)), 1)
        taken = starts[:, None] + (np.arange(each) + 0.5)[None, :] * (widths / each)[:, None]
        values = y[taken.astype(np.int64)].min(axis=1)
    else:
        values = np.add.reduceat(y, starts) / widths
    places = np.add.reduceat(x, starts) / widths
    if read.all():
        return places, values
    middles = (edges[1:] + edges[:-1]) / 2
    middles[read] = places
    return middles, np.interp(middles, places, values)


def _is_even(x: Floats) -> bool:
    """Whether positions are about evenly spaced."""
    apart = np.diff(x)
    return len(x) < 3 or float(apart.max()) < 2.5 * float(apart.mean())


def _blocks_that_are_read(x: Floats, most: int) -> int:
    """The largest number of blocks of which nearly all hold a reading, at most `most`."""
    length = float(x[-1] - x[0]) if len(x) else 0.0
    count = min(most, len(x))
    if length <= 0:
        return count
    places = (x - x[0]) / length
    while count > FEWEST_BLOCKS:
        block = np.minimum((places * count).astype(np.int64), count - 1)
        if np.count_nonzero(np.diff(block)) + 1 >= FILLED * count:
            break
        count = max(int(0.8 * count), FEWEST_BLOCKS)
    return count


def spread_of_steps(y: Floats) -> float:
    """The mean distance of neighbouring values, independent of the trend: the noise of blocks."""
    differences = np.diff(y)
    return float(np.mean(np.abs(differences - median(differences))))
