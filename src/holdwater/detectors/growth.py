"""Detect memory that grows steadily and does not stop (the usual shape of a leak).

A robust line is laid through blocks of steps, over the whole run and over its later parts. *Leak* is said only
if in one of them the line rises beyond doubt, goes on rising to the end no slower than before, rises in many
places and not in a few, and reaches what was never reached before. The line's error allows for noise that
resembles itself, and its threshold for how often one looks. One reading minus the one before is never a
judgement.

Source of the threshold: Pocock (1977), "Group sequential methods in the design and analysis of clinical
trials", Biometrika 64: one boundary for all looks; here they come at growing intervals, so that a million
steps need 40, and the boundary was set by simulation (`holdwater.evaluation`).
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from holdwater.detectors.slope import Slope, blocks, fit_slope, spread_of_steps
from holdwater.detectors.verdict import Rate
from holdwater.errors import ConfigError
from holdwater.timeline.buckets import Floats
from holdwater.units import Step

REPORTED_CONFIDENCE = 0.95
WINDOWS = (1, 2, 4, 8)
"""What is looked at: the whole run, its later half, quarter and eighth (for what began late)."""
LOOKS = 40
"""Looks in a million steps."""
STRONG = 20.0
"""A rise of so many standard errors is plain enough for its shape to be asked for too."""
LEAST_RISES = 5
"""Of few readings, so many must have risen one after another."""
GrowthKind = Literal["leak", "warming", "bounded", "cyclic", "flat", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthConfig:
    """When a rising line is called a leak."""

    false_alarms: float = 0.001
    """Aimed-at chance of a false leak a run, over all looks and windows."""
    warmup_share: float = 1 / 16
    """The part of the history that is left out as warm-up."""
    least_steps: int = 128
    """A run shorter than this is called no leak before it ends."""
    patience: int = 1000
    """Before so many steps only a line that is straight to a tenth is called a leak, unless the run has ended."""
    least_values: int = 24
    """Fewer readings than this are not judged."""
    least_growth: float = 1 << 20
    """What a window must have risen by, in bytes: below it lies the grain of the allocator."""
    blocks: int = 64
    """Into how many blocks a window is cut."""

    def __post_init__(self) -> None:
        if not 0 < self.false_alarms < 1:
            raise ConfigError(
                f"growth.false_alarms is {self.false_alarms}, but it is a probability; "
                "set it between 0 and 1, such as 0.001"
            )
        if self.blocks < 24:
            raise ConfigError(
                f"growth.blocks is {self.blocks}, but each third needs eight; set growth.blocks = 24 or more"
            )

    @property
    def threshold(self) -> float:
        """Standard errors that a rise needs: as for so many separate looks, which is a little too many."""
        return NormalDist().inv_cdf(1 - self.false_alarms / LOOKS)


DEFAULT = GrowthConfig()


@dataclass(frozen=True, slots=True)
class Growth:
    """What a series did."""

    kind: GrowthKind
    rate: Rate | None
    """None where there are too few values."""
    onset: Step | None
    """For a leak: the first step of the growth."""
    level: float
    """Bytes at the end, by the line; the last value where there is no line."""
    risen: float
    """Bytes from the start of the history to its settled part."""
    score: float = 0.0
    """The largest rise of all windows, in standard errors."""
    suspicious: bool = False
    """Whether a leak may be coming: worth an experiment."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of the history, up to its end, in blocks."""

    x: Floats
    y: Floats
    line: Slope
    before: Floats
    """What was there before it, in blocks. Shape (blocks before,)."""

    @property
    def growth(self) -> float:
        """What the line rises by over the window."""
        return self.line.value * float(self.x[-1] - self.x[0])


def judge_growth(
    steps: Floats, floors: Floats, means: Floats | None = None, *, final: bool = False, config: GrowthConfig = DEFAULT
) -> Growth:
    """Judge one series of memory.

    Args:
        steps: The step of each value, increasing. Shape (values,).
        floors: The smallest value since the step before. Shape (values,).
        means: The mean value since the step before; None takes the floors. Shape (values,).
        final: The run has ended: there is nothing to wait for.
        config: When a rising line is called a leak.
    """
    last = float(floors[-1]) if len(floors) else 0.0
    if len(steps) < config.least_values:
        return judge_few(steps, floors, final=final, config=config)
    if floors.min() == floors.max():
        return Growth("flat", Rate(0.0, 0.0, 0.0, REPORTED_CONFIDENCE), None, last, 0.0)
    values, floor = _steadier(steps, floors, means, config)
    windows = [_cut(steps, values, floor, share, config) for share in WINDOWS]
    windows = [window for window in windows if len(window.x) >= config.least_values]
    if not windows:
        return Growth("unknown", None, None, last, 0.0)
    whole = windows[0]
    length = steps[-1] - steps[0]
    early = length < config.patience and not final
    patient = final or length >= config.least_steps
    risen = float(np.median(whole.y)) - float(values[: max(len(values) // 64, 1)].min())
    level = whole.line.level + whole.line.value * float(steps[-1] - np.median(whole.x))
    score = max(window.line.score for window in windows)
    suspicious = False
    for window in windows:
        if not _rises(window, config):
            continue
        suspicious = True
        if patient and (_is_straight(window) if early else _goes_on(window)):
            onset = _onset(steps, values, window)
            line = window.line
            level = line.level + line.value * float(steps[-1] - np.median(window.x))
            return Growth("leak", _rate(line), onset, level, risen, score, suspicious)
    return Growth(_harmless_kind(windows, floors, risen, config), _rate(whole.line), None, level, risen, score, suspicious)


def judge_few(steps: Floats, floors: Floats, *, final: bool, config: GrowthConfig) -> Growth:
    """Judge a series of few readings: only one that rises from reading to reading until the end is a leak.

    Args:
        steps: The step of each value, increasing. Shape (values,).
        floors: The values. Shape (values,).
        final: The run has ended.
        config: When a rise counts.
    """
    last = float(floors[-1]) if len(floors) else 0.0
    grown = np.flatnonzero(np.diff(floors) > 0)
    if len(floors) < LEAST_RISES + 2 or len(grown) < LEAST_RISES or not final:
        return Growth("unknown", None, None, last, 0.0)
    start = int(grown[-LEAST_RISES :][0])
    rises = np.diff(floors[start:])
    while start > 0 and floors[start - 1] < floors[start]:
        start -= 1
    total, length = last - float(floors[start]), float(steps[-1] - steps[start])
    steady = rises.min() >= 0 and (rises > 0).mean() >= 0.8 and rises[-2:].sum() > 0
    late = last - float(np.interp(steps[-1] - length / 2, steps, floors))
    if not steady or total < config.least_growth or late < 0.3 * total or length < 0.1 * (steps[-1] - steps[0]):
        return Growth("unknown", None, None, last, 0.0)
    line = fit_slope(steps[start:], floors[start:])
    return Growth("leak", _rate(line), Step(int(steps[start])), last, total, suspicious=True)


def _steadier(
    steps: Floats, floors: Floats, means: Floats | None, config: GrowthConfig
) -> tuple[Floats, bool]:
    """The floors or the means, whichever is steadier from block to block, and whether it is the floors."""
    if means is None:
        return floors, True
    low = spread_of_steps(blocks(steps, floors, 2 * config.blocks, floor=True)[1])
    mean = spread_of_steps(blocks(steps, means, 2 * config.blocks, floor=False)[1])
    return (means, False) if mean < 0.9 * low else (floors, True)


def _cut(steps: Floats, values: Floats, floor: bool, share: int, config: GrowthConfig) -> Window:  # noqa: FBT001
    """Cut off the last part of the history; of the whole, the warm-up is left out."""
    length = float(steps[-1] - steps[0])
    begin = steps[0] + (length * config.warmup_share if share == 1 else length * (1 - 1 / share))
    at = int(np.searchsorted(steps, begin))
    x, y = blocks(steps[at:], values[at:], config.blocks, floor=floor)
    before = blocks(steps[:at], values[:at], config.blocks, floor=floor)[1] if at and share > 1 else values[:0]
    line = fit_slope(x, y) if len(x) >= 3 else Slope(0.0, 0.0, 0.0, 0.0, 0.0)
    return Window(x, y, line, before)


def _rises(window: Window, config: GrowthConfig) -> bool:
    """Whether the line rises beyond doubt, by more than the grain, to where memory never was."""
    if window.growth < config.least_growth or window.line.score < config.threshold:
        return False
    if len(window.before) == 0:
        return True
    end = float(np.median(window.y[-max(len(window.y) // 8, 1) :]))
    return end - float(window.before.max()) > 0.5 * window.growth


def _goes_on(window: Window) -> bool:
    """Whether the rise goes on to the end, no slower than before, and in many places."""
    third = len(window.x) // 3
    early = fit_slope(window.x[:third], window.y[:third])
    late = fit_slope(window.x[-third:], window.y[-third:])
    strong = window.line.score >= STRONG
    most = max(early.value, window.line.value)
    if late.value + 1.64 * late.error < (0.8 if strong else 0.6) * window.line.value:
        return False
    if strong and late.value < 0.6 * most and late.score < early.score:
        return False
    return _is_even(window) if strong else _is_no_step(window)


def _is_straight(window: Window) -> bool:
    """Whether the rise is as steep at the end as at the beginning, to a tenth, and the noise allows to say so."""
    third = len(window.x) // 3
    early = fit_slope(window.x[:third], window.y[:third])
    late = fit_slope(window.x[-third:], window.y[-third:])
    doubt = early.error + late.error
    return late.value > 0.9 * early.value and doubt < 0.1 * window.line.value and _is_even(window)


def _is_even(window: Window) -> bool:
    """Whether memory rises in at least six of seven parts alike."""
    parts = np.array([np.median(part) for part in np.array_split(window.y, 8)])
    increments = np.diff(parts)
    return bool((increments > 0.2 * increments.mean()).sum() >= 6)


def _is_no_step(window: Window) -> bool:
    """Whether a line fits at least as well as the best single step up."""
    y = window.y
    clip = 5 * window.line.noise
    line = window.line.level + window.line.value * (window.x - np.median(window.x))
    y = np.clip(y, line - clip, line + clip)
    count = len(y)
    along = np.sum((y - line - np.mean(y - line)) ** 2)
    total, squares = np.cumsum(y), np.cumsum(y**2)
    left = np.arange(3, count - 2)
    inside = squares[left - 1] - total[left - 1] ** 2 / left
    outside = (squares[-1] - squares[left - 1]) - (total[-1] - total[left - 1]) ** 2 / (count - left)
    return bool(along <= np.min(inside + outside) * 1.05)


def _rate(line: Slope) -> Rate:
    """A line's slope as a rate."""
    low, high = line.interval(REPORTED_CONFIDENCE)
    return Rate(line.value, low, high, REPORTED_CONFIDENCE)


def _onset(steps: Floats, values: Floats, window: Window) -> Step:
    """Follow the line back from the window in which it was seen, as far as the series lies on it."""
    line = window.line
    expected = line.level + line.value * (steps - np.median(window.x))
    tolerance = max(6 * line.noise, 0.05 * window.growth)
    off = np.flatnonzero((steps < window.x[0]) & (np.abs(values - expected) > tolerance))
    first = 0 if len(off) == 0 else int(off[-1]) + 1
    return Step(int(steps[first]))


def _harmless_kind(windows: list[Window], floors: Floats, risen: float, config: GrowthConfig) -> GrowthKind:
    """Tell what still rises from what comes and goes, from what rose and stopped, from what hardly moved."""
    whole, latest = windows[0], windows[min(2, len(windows) - 1)]
    newest = float(np.median(whole.y[-4:])) - float(np.median(whole.y))
    base = float(np.median(whole.y))
    grain = max(config.least_growth, 0.01 * base)
    if _comes_and_goes(floors, grain):
        return "cyclic"
    rising = latest.line.score > 3 and latest.growth > max(grain / 4, 0.02 * risen)
    if rising and max(newest, whole.growth) > max(config.least_growth, 4 * whole.line.noise):
        return "warming"
    if newest > max(grain, 8 * whole.line.noise, 0.3 * risen):
        return "warming"  # the end lies far above the rest: too late to tell a shift from a beginning
    moved = max(risen, whole.growth)
    return "bounded" if moved > max(16 * config.least_growth, 0.05 * base) else "flat"


def _comes_and_goes(floors: Floats, grain: float) -> bool:
    """Whether memory rises and falls again, at least three times, to about where it was."""
    height = float(np.percentile(floors, 98) - np.percentile(floors, 2))
    if height < 4 * grain:
        return False
    smooth = np.array([part.min() for part in np.array_split(floors, min(len(floors), 512))])
    middle = float(np.percentile(floors, 2)) + 0.5 * height
    falls = np.flatnonzero((smooth[:-1] > middle) & (smooth[1:] <= middle))
    return len(falls) >= 3
