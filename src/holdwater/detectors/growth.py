"""Detect memory that grows steadily after the warm-up (the usual shape of a leak).

The floor of each block of steps is taken, a robust line is laid through the floors, and *leak* is said
only if the line rises beyond doubt, by more than the noise, in both halves of what is looked at, and
without slowing down. One reading minus the one before is never a judgement.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from holdwater.detectors.slope import Slope, block_floors, fit_slope
from holdwater.detectors.verdict import Rate
from holdwater.errors import ConfigError
from holdwater.timeline.buckets import Floats
from holdwater.units import Step

REPORTED_CONFIDENCE = 0.95
OBVIOUS = 30.0
"""An even rise of so many times the noise needs no test by rank, which few and similar blocks never pass."""
WINDOWS = (1, 2, 4)
"""What is looked at: the whole settled part, its later half, its last quarter (for what began late)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthConfig:
    """When a rising line is called a leak."""

    false_alarms: float = 0.001
    """Aimed-at chance of a false leak a run, spread over all looks (6 / (π k)² of it for look k) and windows."""
    warmup_share: float = 0.25
    """The part of the history that is left out as warm-up."""
    least_steps: int = 60
    """A run shorter than this is not judged."""
    least_growth: int = 1 << 20
    """Bytes that the settled part must have risen by: below it lies the grain of the allocator."""
    blocks: int = 96
    """Into how many blocks the settled part is cut."""
    persistence: float = 0.5
    """The least slope of either half, as a share of the whole."""

    def __post_init__(self) -> None:
        if not 0 < self.false_alarms < 1:
            raise ConfigError(
                f"growth.false_alarms is {self.false_alarms}, but it is a probability; "
                "set it between 0 and 1, such as 0.001"
            )
        if self.blocks < 24:
            raise ConfigError(
                f"growth.blocks is {self.blocks}, but each half needs a dozen; set growth.blocks = 24 or more"
            )


DEFAULT = GrowthConfig()


@dataclass(frozen=True, slots=True)
class Growth:
    """What a series did over the settled part of a run."""

    kind: Literal["leak", "warming", "bounded", "flat", "unknown"]
    rate: Rate | None
    """None where there are too few settled steps."""
    onset: Step | None
    """For a leak: the first step of the window in which it was seen."""
    level: float
    """Bytes at the end, by the line; the last value where there is no line."""
    risen: float
    """Bytes from the start of the history to the level of its settled part."""


def judge_growth(steps: Floats, floors: Floats, *, look: int, config: GrowthConfig = DEFAULT) -> Growth:
    """Judge one series of memory.

    Args:
        steps: The step of each value, increasing. Shape (values,).
        floors: Bytes. Shape (values,).
        look: The number of this judgement within the run, from 1.
        config: When a rising line is called a leak.
    """
    last = float(floors[-1]) if len(floors) else 0.0
    if len(steps) == 0 or steps[-1] - steps[0] < config.least_steps:
        return Growth("unknown", None, None, last, 0.0)
    if floors.min() == floors.max():
        return Growth("flat", Rate(0.0, 0.0, 0.0, REPORTED_CONFIDENCE), None, last, 0.0)
    settled = steps >= steps[0] + config.warmup_share * (steps[-1] - steps[0])
    if settled.sum() < 24:
        return Growth("unknown", None, None, last, 0.0)
    window_steps, window = steps[settled], floors[settled]
    x, y = block_floors(window_steps, window, config.blocks)
    line = fit_slope(x, y)
    low, high = line.interval(REPORTED_CONFIDENCE)
    rate = Rate(line.value, low, high, REPORTED_CONFIDENCE)
    level = line.level + line.value * float(steps[-1] - np.median(x))
    risen = float(np.median(y)) - float(floors[0])
    alpha = config.false_alarms * 6 / (np.pi * look) ** 2
    for share in WINDOWS:
        start = len(x) - max(len(x) // share, 24)
        late = line if share == 1 else fit_slope(x[start:], y[start:])
        steady = _rises_steadily(x[start:], y[start:], late, alpha / len(WINDOWS), config)
        if (steady and _is_new(x, y, start, late, config)) or (share == 1 and _is_straight(x, y, line, config)):
            low, high = late.interval(REPORTED_CONFIDENCE)
            onset = _onset(steps, floors, late, x[start:])
            return Growth("leak", Rate(late.value, low, high, REPORTED_CONFIDENCE), onset, level, risen)
    return Growth(_harmless_kind(x, y, line, risen, config), rate, None, level, risen)


def _rises_steadily(x: Floats, y: Floats, line: Slope, alpha: float, config: GrowthConfig) -> bool:
    """Whether the line rises beyond doubt, by more than the noise, and in both halves alike."""
    growth = line.value * (x[-1] - x[0])
    if growth < max(config.least_growth, 4 * line.noise):
        return False
    middle = len(x) // 2
    halves = (fit_slope(x[:middle], y[:middle]), fit_slope(x[middle:], y[middle:]))
    if min(half.value for half in halves) < config.persistence * line.value:
        return False
    return line.interval(1 - alpha)[0] > 0 and all(half.interval(REPORTED_CONFIDENCE)[0] > 0 for half in halves)


def _is_straight(x: Floats, y: Floats, line: Slope, config: GrowthConfig) -> bool:
    """Whether the line rises by so many times its noise, and so evenly, that it needs no test by rank."""
    if line.value * (x[-1] - x[0]) <= max(config.least_growth, OBVIOUS * line.noise):
        return False
    middle = len(x) // 2
    early, late = fit_slope(x[:middle], y[:middle]).value, fit_slope(x[middle:], y[middle:]).value
    return min(early, late) > 0.75 * max(early, late)


def _is_new(x: Floats, y: Floats, start: int, late: Slope, config: GrowthConfig) -> bool:
    """Whether a late window shows what was not there before: a level never reached, by growth that is no slower.

    The tooth of a saw only comes back to where the one before it was; a curve that flattens rose faster before.
    """
    if start == 0:
        return True
    if late.level + late.value * (x[-1] - np.median(x[start:])) < y[:start].max() + config.least_growth / 4:
        return False
    before = slice(max(2 * start - len(x), 0), start)
    return len(x[before]) < 12 or fit_slope(x[before], y[before]).value < 1.3 * late.value


def _onset(steps: Floats, floors: Floats, line: Slope, window: Floats) -> Step:
    """Follow the line back from the window in which it was seen, as far as the series lies on it."""
    expected = line.level + line.value * (steps - np.median(window))
    tolerance = max(6 * line.noise, 0.02 * line.value * (window[-1] - window[0]))
    before = steps < window[0]
    off = np.flatnonzero(before & (np.abs(floors - expected) > tolerance))
    first = 0 if len(off) == 0 else int(off[-1]) + 1
    return Step(int(steps[first]))


def _harmless_kind(
    x: Floats, y: Floats, line: Slope, risen: float, config: GrowthConfig
) -> Literal["warming", "bounded", "flat"]:
    """Tell what still rises from what rose and stopped, and from what hardly moved."""
    newest = float(np.median(y[-6:])) - float(np.median(y))
    if newest > max(config.least_growth, 8 * line.noise, 0.02 * float(np.median(y))):
        return "warming"  # the end lies far above the rest: too late to tell a shift from a beginning
    grown = line.value * (x[-1] - x[0])
    if line.interval(0.99)[0] > 0 and grown > max(config.least_growth, 4 * line.noise):
        middle = len(x) // 2
        later = fit_slope(x[middle:], y[middle:])
        if later.interval(0.99)[0] > 0:
            return "warming"
    moved = max(risen, grown)
    return "bounded" if moved > max(16 * config.least_growth, 0.05 * float(np.median(y))) else "flat"
