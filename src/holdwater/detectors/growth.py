"""Detect memory that grows steadily and does not stop (the usual shape of a leak).

A robust line is fitted to blocks of steps, over the whole run and over its later parts. A series is a *leak* only
if in one of them the line rises beyond doubt, rises to the end no slower than before, rises in many places and not
in a few, and reaches a new maximum. The line's error allows for autocorrelated noise, and its threshold for
repeated looks (interim analyses). The difference of two readings is never a judgement.

Source of the threshold: Pocock (1977), "Group sequential methods in the design and analysis of clinical
trials", Biometrika 64: one boundary for all looks; here they come at growing intervals, so that a million
steps need 40, and the boundary was set by simulation (`benchmarks/simulated`).
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from holdwater.detectors.medians import median, percentile
from holdwater.detectors.rise import Rise, goes_on, is_straight
from holdwater.detectors.slope import Slope, blocks, fit_slope, spread_of_steps
from holdwater.detectors.verdict import Rate
from holdwater.errors import ConfigError
from holdwater.timeline.buckets import Floats
from holdwater.units import Step

REPORTED_CONFIDENCE = 0.95
WINDOWS: tuple[tuple[int, tuple[float, ...]], ...] = (
    (1, (0.0, 0.25, 0.5, 0.75)),
    (2, (0.0, 0.5)),
    (4, (0.0, 0.5)),
    (8, (0.0,)),
)
"""The windows: the whole run, its later half, quarter and eighth, and where in each a rise may begin."""
FIRST_LOOK, LOOK_GROWTH = 24, 1.2
"""Readings before the first look, and the factor in the run's length from one look to the next. Between two looks
the verdict stands, so that looking at every step would give the same result."""
LOOKS = 40
"""The number of independent looks to which those in a million steps amount: neighbours see nearly the same."""
MORE_IF_ALIKE = 0.7
"""Additional standard errors if noise is so autocorrelated that its scale is uncertain."""
LAST_SHARE = 0.3
"""The share of the false-alarm probability spent at the look at the end of a run; earlier looks share the rest."""
PLACES = 4
"""Of the nine places where a rise may begin this many count as separate tests: their lines are similar."""
PARTS = 16
"""Number of parts into which a rise is cut to measure how steady its rate is."""
LEAST_RISES = 5
"""Of few readings, this many must have risen in succession."""
SETTLED = 0.15
"""Memory that has kept its level over this part of the run has settled."""
PLAIN = 16
"""Only growth of this many times the least can be judged settled: smaller growth comes in an allocator's steps."""
GrowthKind = Literal["leak", "warming", "bounded", "cyclic", "flat", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthConfig:
    """When a rising line is called a leak."""

    false_alarms: float = 0.001
    """Target probability of a false leak per run, over all looks and windows."""
    warmup_share: float = 1 / 24
    """The part of the history that is left out as warm-up."""
    least_steps: int = 128
    """In a shorter run no leak is reported before it ends."""
    least_steps_at_end: int = 0
    """In a shorter run no leak is reported, even when it has ended."""
    patience: int = 7500
    """Before this step only a line that is straight to a tenth is called a leak, unless the run has ended."""
    least_values: int = 24
    """Fewer readings than this are not judged."""
    least_growth: float = 1 << 20
    """Bytes by which a window must have risen: less is within the granularity of the allocator."""
    blocks: int = 256
    """Number of blocks of a window."""

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

    def least(self, *, final: bool) -> int:
        """Steps that a run needs before it is called a leak, when it has ended or while it goes on."""
        return self.least_steps_at_end if final else self.least_steps

    def threshold(self, *, final: bool, blocks: int = 1 << 20) -> float:
        """Standard errors that a rise needs, at the look when the run has ended or at any earlier one.

        Args:
            final: The run has ended.
            blocks: Number of blocks of the rise: the error of few is itself uncertain (Student's t; the expansion
                is that of Abramowitz and Stegun, 26.7.5).
        """
        chance = self.false_alarms / PLACES
        z = NormalDist().inv_cdf(1 - chance * (LAST_SHARE if final else (1 - LAST_SHARE) / LOOKS))
        free = max(blocks - 2, 2)
        return z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)


DEFAULT = GrowthConfig()
PATIENT_TICKS = 2000
"""The patience in seconds if time is the clock."""
SETTLED_SECONDS = 30.0
"""Seconds before a leak is reported if no steps are counted: imports and loading look like growth."""


def by_time(seconds_per_step: float) -> GrowthConfig:
    """The settings if time is the clock.

    Args:
        seconds_per_step: The length of a step, which is a tick.
    """
    ticks = round(SETTLED_SECONDS / seconds_per_step)
    return GrowthConfig(
        least_steps=max(ticks, DEFAULT.least_steps), least_steps_at_end=ticks, patience=PATIENT_TICKS
    )


@dataclass(frozen=True, slots=True)
class Growth:
    """What a series did."""

    kind: GrowthKind
    rate: Rate | None
    """None if there are too few values."""
    onset: Step | None
    """For a leak: the first step of the growth."""
    level: float
    """Bytes at the end, by the line; the last value if there is no line."""
    risen: float
    """Bytes from the start of the history to its settled part."""
    score: float = 0.0
    """The largest rise of all windows, in standard errors."""
    suspicious: bool = False
    """Whether a leak may be coming: worth an experiment."""
    unsteady: float = 0.0
    """Standard deviation of the rate between parts of the growth, in bytes per step."""
    lasted: float = 0.0
    """Steps over which the growth was seen."""
    noise: float = 0.0
    """Standard deviation of readings about the line, in bytes."""


def judge_growth(
    steps: Floats,
    floors: Floats,
    means: Floats | None = None,
    *,
    final: bool = False,
    config: GrowthConfig = DEFAULT,
) -> Growth:
    """Judge one series of memory.

    Args:
        steps: The step of each value, increasing. Shape (values,).
        floors: The smallest value since the previous step. Shape (values,).
        means: The mean value since the previous step; None takes the floors. Shape (values,).
        final: The run has ended: there is nothing to wait for.
        config: When a rising line is called a leak.
    """
    last = float(floors[-1]) if len(floors) else 0.0
    if len(steps) < config.least_values:
        return judge_few(steps, floors, final=final, config=config)
    if floors.min() == floors.max():
        return Growth("flat", Rate(0.0, 0.0, 0.0, REPORTED_CONFIDENCE), None, last, 0.0)
    values, floor = _steadier(steps, floors, means, config)
    still = float(values.max() - values.min()) < config.least_growth
    windows = ((1, (0.0,)),) if still else WINDOWS  # a series that hardly moved is no leak in any window
    rises = _candidates(steps, values, config, windows, floor=floor, wary=not final)
    if not rises:
        return judge_few(steps, floors, final=final, config=config)
    whole = rises[0]
    length = steps[-1] - steps[0]
    early = length < config.patience and not final
    risen = median(whole.y) - float(values[: max(len(values) // 64, 1)].min())
    score = max(rise.line.score for rise in rises)
    suspicious = False
    for rise in sorted(rises, key=lambda rise: -rise.line.score):
        if not _rises(rise, config, final=final):
            continue
        suspicious = True
        goes = not _has_settled(rise, config) and (is_straight(rise) if early else goes_on(rise, final=final))
        if goes and length >= config.least(final=final):
            onset = _onset(steps, values, rise)
            unsteady, lasted = _unsteadiness(rise), float(rise.x[-1] - rise.x[0])
            end = rise.line.end + rise.line.value * float(steps[-1] - rise.x[-1])
            noise = _noise(steps, values, rise)
            return Growth("leak", _rate(rise.line), onset, end, risen, score, suspicious, unsteady, lasted, noise)
    kind = _harmless_kind(rises, floors, risen, config, final=final)
    return Growth(kind, _rate(whole.line), None, whole.line.end, risen, score, suspicious)


def _candidates(  # noqa: PLR0913 - the data and the options of a fit
    steps: Floats,
    values: Floats,
    config: GrowthConfig,
    windows: tuple[tuple[int, tuple[float, ...]], ...],
    *,
    floor: bool,
    wary: bool,
) -> list[Rise]:
    """Lines over the whole history without its warm-up, and over its later parts."""
    length = float(steps[-1] - steps[0])
    found: list[Rise] = []
    for share, bends in windows:
        begin = steps[0] + (length * config.warmup_share if share == 1 else length * (1 - 1 / share))
        at = int(np.searchsorted(steps, begin))
        x, y = blocks(steps[at:], values[at:], config.blocks, floor=floor)
        if len(x) < config.least_values:
            continue
        earlier = blocks(steps[:at], values[:at], 64, floor=floor)[1] if at and share > 1 else values[:0]
        for bend in bends:
            start = int(bend * len(x))
            if len(x) - start >= config.least_values / 2 or bend == 0:
                line = fit_slope(x, y, bend=bend, wary=wary)
                found.append(Rise(x[start:], y[start:], line, np.append(earlier, y[:start])))
    return found


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
    if len(floors) < LEAST_RISES + 2 or len(grown) < LEAST_RISES:
        return Growth("unknown", None, None, last, 0.0)
    start = int(grown[-LEAST_RISES:][0])
    rises = np.diff(floors[start:])
    while start > 0 and floors[start - 1] < floors[start]:
        start -= 1
    start = _after_jumps(steps, floors, start)
    total, length = last - float(floors[start]), float(steps[-1] - steps[start])
    few = len(floors) - 1 - start < LEAST_RISES
    steady = rises.min() >= 0 and (rises > 0).mean() >= 0.8 and rises[-2:].sum() > 0
    late = last - float(np.interp(steps[-1] - length / 2, steps, floors))
    short = length < 0.1 * (steps[-1] - steps[0])
    if few or not steady or short or total < config.least_growth or late < 0.3 * total:
        return Growth("unknown", None, None, last, 0.0)
    if not final or steps[-1] - steps[0] < config.least(final=True):
        return Growth("unknown", None, None, last, total, suspicious=True)
    line = fit_slope(steps[start:], floors[start:])
    return Growth("leak", _rate(line), Step(int(steps[start])), last, total, suspicious=True)


def _after_jumps(steps: Floats, floors: Floats, start: int) -> int:
    """The first reading after the last jump: a rise too large for its part of the time is not growth."""
    while len(floors) - 1 - start >= LEAST_RISES:
        shares = np.diff(steps[start:]) / max(float(steps[-1] - steps[start]), 1.0)
        total = float(floors[-1] - floors[start])
        jumps = np.flatnonzero(np.diff(floors[start:]) > total * (2 * shares + 0.15))
        if len(jumps) == 0:
            return start
        start += int(jumps[-1]) + 1
    return start


def _steadier(steps: Floats, floors: Floats, means: Floats | None, config: GrowthConfig) -> tuple[Floats, bool]:
    """The floors or the means, whichever varies less from block to block, and whether it is the floors."""
    if means is None:
        return floors, True
    low = spread_of_steps(blocks(steps, floors, 2 * config.blocks, floor=True)[1])
    mean = spread_of_steps(blocks(steps, means, 2 * config.blocks, floor=False)[1])
    return (means, False) if 0.7 * mean < low else (floors, True)


def _rises(rise: Rise, config: GrowthConfig, *, final: bool) -> bool:
    """Whether the line rises beyond doubt, by more than the granularity, to a new maximum."""
    alike = min(max((rise.line.correlation - 0.6) / 0.3, 0.0), 1.0)
    if (
        rise.growth < config.least_growth
        or rise.line.score < config.threshold(final=final, blocks=len(rise.x)) + MORE_IF_ALIKE * alike
    ):
        return False
    if len(rise.before) < 2:
        return True
    end = float(np.mean(rise.y[-max(len(rise.y) // 8, 1) :]))
    doubt = rise.line.noise * float(np.sqrt(2 * np.log(len(rise.before))))  # how high noise alone has reached
    return end - (float(rise.before.max()) - doubt) > 0.5 * rise.growth


def _unsteadiness(rise: Rise) -> float:
    """How much the rate differs between the parts of a rise."""
    parts = zip(np.array_split(rise.x, PARTS), np.array_split(rise.y, PARTS), strict=True)
    rates = np.array([fit_slope(x, y).value for x, y in parts if len(x) >= 3])
    return float(np.std(rates, ddof=1)) if len(rates) > 2 else 0.0


def _noise(steps: Floats, values: Floats, rise: Rise) -> float:
    """Standard deviation of the readings about the line."""
    at = int(np.searchsorted(steps, rise.x[0]))
    line = rise.line.end + rise.line.value * (steps[at:] - rise.x[-1])
    return float(np.std(values[at:] - line))


def _rate(line: Slope) -> Rate:
    """A line's slope as a rate."""
    low, high = line.interval(REPORTED_CONFIDENCE)
    return Rate(line.value, low, high, REPORTED_CONFIDENCE)


def _onset(steps: Floats, values: Floats, rise: Rise) -> Step:
    """Extend the line back from its window as far as the series lies on it."""
    line = rise.line
    expected = line.end + line.value * (steps - rise.x[-1])
    tolerance = max(6 * line.noise, 0.05 * rise.growth)
    off = np.flatnonzero((steps < rise.x[0]) & (np.abs(values - expected) > tolerance))
    first = 0 if len(off) == 0 else int(off[-1]) + 1
    return Step(int(steps[first]))


def _harmless_kind(
    rises: list[Rise], floors: Floats, risen: float, config: GrowthConfig, *, final: bool
) -> GrowthKind:
    """Classify a series that is no leak: warming, cyclic, bounded or flat."""
    whole, latest = rises[0], rises[-1]
    base = median(whole.y)
    grain = max(config.least_growth, 0.01 * base)
    if _comes_and_goes(floors, grain):
        return "cyclic"
    moved = max(risen, whole.growth, float(whole.y[-1] - whole.y[0]))
    little = moved <= max(16 * config.least_growth, 0.05 * base)
    if moved > max(config.least_growth, 4 * whole.line.noise) and _settled_share(whole, grain, moved) < SETTLED:
        newest = median(whole.y[-2:]) - base
        rising = latest.line.score > 3 and latest.growth > max(grain / 4, 0.02 * moved)
        once = final and little and _is_one_jump(whole, newest)
        if rising or (newest > max(grain, 0.3 * moved) and not once):
            return "warming"
    return "flat" if little else "bounded"


def _is_one_jump(rise: Rise, grown: float) -> bool:
    """Whether most of so many bytes came at once: a block that a jump divides lies between its levels."""
    return float((rise.y[2:] - rise.y[:-2]).max()) >= 0.8 * grown


def _settled_share(rise: Rise, grain: float, moved: float) -> float:
    """The last part of a window in which memory has stayed close to its current level."""
    level = median(rise.y[-max(len(rise.y) // 16, 2) :])
    off = np.flatnonzero(np.abs(rise.y - level) > max(grain / 2, 0.04 * moved))
    return 1.0 if len(off) == 0 else 1 - (int(off[-1]) + 1) / len(rise.y)


def _has_settled(rise: Rise, config: GrowthConfig) -> bool:
    """Whether memory has kept its level at the end of a rise, where a line would have continued."""
    return rise.growth >= PLAIN * config.least_growth and _settled_share(rise, 0.0, rise.growth) >= SETTLED


def _comes_and_goes(floors: Floats, grain: float) -> bool:
    """Whether memory rises and falls again, at least three times, to about the same level."""
    height = percentile(floors, 98) - percentile(floors, 2)
    if height < 4 * grain:
        return False
    smooth = np.array([part.min() for part in np.array_split(floors, min(len(floors), 512))])
    middle = percentile(floors, 2) + 0.5 * height
    falls = np.flatnonzero((smooth[:-1] > middle) & (smooth[1:] <= middle))
    return len(falls) >= 3
