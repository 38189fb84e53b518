"""Judge the shape of a rise: steady to the end of a history, or a few steps up that stopped."""

from dataclasses import dataclass

import numpy as np

from holdwater.detectors.medians import median
from holdwater.detectors.slope import Slope, fit_slope
from holdwater.timeline.buckets import Floats

STRONG = 20.0
"""A rise of this many standard errors is clear enough to test its shape too."""
A_STEP_BETTER = ((5.0, 7.0), (4.0, 2.0))
"""At the end of a run a step explains a rise better only if its residual is this much smaller, in squares of the
noise: much for a weak rise (5 standard errors), whose shape is uncertain, little for a clear one (7)."""
BENT = (4, 16)
"""A rise this many times less steep at its end is a slowing curve: a late part bends less than the whole."""
CLEARLY = 3.0
"""While the run goes on, a line's residual must be this much smaller than a step's or a slowing curve's."""
LATE = 0.4
"""The last part of the steps that must have added something."""
SAME_PACE = 0.93
"""A rise whose later half is this many times as steep as the earlier one is not ending."""
MANY_JUMPS = 12
"""A staircase of fewer steps may be complete."""


@dataclass(frozen=True, slots=True)
class Rise:
    """A line that rises from some place in the history to its end."""

    x: Floats
    y: Floats
    """From its onset. Shape (blocks,)."""
    line: Slope
    before: Floats
    """Blocks before that. Shape (blocks before,)."""

    @property
    def growth(self) -> float:
        """The line's rise."""
        return self.line.value * float(self.x[-1] - self.x[0])


def goes_on(rise: Rise, *, final: bool) -> bool:
    """Whether the rise continues to the end, no slower than before, and in many places."""
    third = len(rise.x) // 3
    early = fit_slope(rise.x[:third], rise.y[:third])
    late = fit_slope(rise.x[-third:], rise.y[-third:])
    strong = rise.line.score >= STRONG
    most = max(early.value, rise.line.value)
    if late.value + 1.64 * late.error < (0.8 if strong else 0.6) * rise.line.value:
        return False
    if strong and late.value < 0.6 * most and late.score < early.score:
        return False
    if _has_stopped(rise) or _comes_by_jumps(rise) or (not final and _slows_down(rise)):
        return False
    return _is_even(rise) if strong else _is_no_step(rise, final=final)


def _has_stopped(rise: Rise) -> bool:
    """Whether the last part of the steps, which has few readings, has added almost nothing.

    Readings are dense at first and sparse later, so that thirds of the readings may all lie in the first half.
    """
    span = float(rise.x[-1] - rise.x[0])
    middle, end = rise.x[-1] - LATE * span, rise.x[-1] - 0.1 * span
    late = rise.x > middle
    if late.mean() > 0.6 * LATE:
        return False
    around, last = rise.y[np.abs(rise.x - middle) <= 0.05 * span], rise.y[rise.x >= end]
    if len(around) < 2 or len(last) < 2:
        return False
    risen = median(last) - median(around)
    doubt = 1.64 * float(np.std(np.diff(rise.y[late]))) / np.sqrt(min(len(around), len(last)))
    return bool(risen + doubt < 0.25 * rise.line.value * (LATE - 0.05) * span)


def _slows_down(rise: Rise) -> bool:
    """Whether a line does not fit clearly better than a logarithm."""
    count = len(rise.y)
    line = _unexplained(rise.y, rise.x)
    slowing = min(_unexplained(rise.y, np.log(1 + np.arange(count) / (count / bent))) for bent in BENT)
    return slowing < line * (1 + CLEARLY * _similar(rise) / count)


def _similar(rise: Rise) -> float:
    """How many times larger correlation makes the variance of a mean."""
    return (1 + rise.line.correlation) / (1 - rise.line.correlation)


def _comes_by_jumps(rise: Rise) -> bool:
    """Whether a few clear steps up make up half of the growth."""
    y = rise.y
    if len(y) < 24:
        return False
    half = 4
    levels = np.median(np.lib.stride_tricks.sliding_window_view(y, half), axis=1)
    apart = levels[half:] - levels[:-half] - rise.line.value * half * float(rise.x[-1] - rise.x[0]) / (len(y) - 1)
    spread = 1.4826 * median(np.abs(apart - median(apart)))
    found, total, at = 0, 0.0, 0
    plain = max(6 * spread, 0.02 * rise.growth)
    while at < len(apart):
        if apart[at] > plain:
            found, total = found + 1, total + float(apart[at : at + 2 * half].max())
            at += 2 * half
        else:
            at += 1
    return 0 < found < MANY_JUMPS and total > 0.4 * rise.growth


def is_straight(rise: Rise) -> bool:
    """Whether the rise is as steep at the end as at the beginning, to a tenth, and the noise allows to know."""
    third = len(rise.x) // 3
    early = fit_slope(rise.x[:third], rise.y[:third])
    late = fit_slope(rise.x[-third:], rise.y[-third:])
    doubt = early.error + late.error
    if len(rise.before) > 0.6 * len(rise.x):
        return False  # a late part of a short run may be the slow end of a warm-up
    return late.value > 0.9 * early.value and doubt < 0.1 * rise.line.value and _is_even(rise)


def _is_even(rise: Rise) -> bool:
    """Whether memory rises evenly in at least six of seven parts."""
    parts = np.array([median(part) for part in np.array_split(rise.y, 8)])
    increments = np.diff(parts)
    return bool((increments > 0.2 * increments.mean()).sum() >= 6)


def _is_no_step(rise: Rise, *, final: bool) -> bool:
    """Whether a line fits better than the best single step up."""
    clip = 5 * rise.line.noise
    line = rise.line.end + rise.line.value * (rise.x - rise.x[-1])
    y = np.clip(rise.y, line - clip, line + clip)
    count = len(y)
    along = _unexplained(y, rise.x)
    total, squares = np.cumsum(y), np.cumsum(y**2)
    left = np.arange(3, count - 2)
    inside = squares[left - 1] - total[left - 1] ** 2 / left
    outside = (squares[-1] - squares[left - 1]) - (total[-1] - total[left - 1]) ** 2 / (count - left)
    tolerated = float(np.interp(rise.line.score, *A_STEP_BETTER)) if final else -CLEARLY
    return bool(along <= np.min(inside + outside) + tolerated * _similar(rise) * along / count)


def _unexplained(y: Floats, by: Floats) -> float:
    """The residual sum of squares of a least-squares fit with one column."""
    y, by = y - y.mean(), by - by.mean()
    return float(y @ y - (y @ by) ** 2 / (by @ by))


def keeps_its_pace(values: Floats) -> bool:
    """Whether a series rises as steeply in its later half as before; its first quarter, the start, is left out.

    Args:
        values: One for each step. Shape (steps,).
    """
    settled = values[len(values) // 4 :]
    middle = len(settled) // 2
    if middle < 2:
        return False
    before = float(settled[middle] - settled[0]) / middle
    after = float(settled[-1] - settled[middle]) / (len(settled) - 1 - middle)
    return after >= SAME_PACE * before > 0
