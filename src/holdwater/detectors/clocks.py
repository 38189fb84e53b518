"""Find what a growth follows: steps, seconds, evaluations, checkpoints, epochs, new shapes or compilations.

Growth follows an event if nearly all of it falls into the few buckets in which the event occurred.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdwater.detectors.medians import median
from holdwater.detectors.verdict import Clock
from holdwater.timeline.buckets import Buckets, Floats

EVENTS: tuple[tuple[str, Clock], ...] = (
    ("evaluations", "evaluation"),
    ("checkpoints", "checkpoint"),
    ("compiles", "compile"),
    ("shapes", "shape"),
    ("epochs", "epoch"),
)
"""Event clocks, the more specific first: an epoch often ends with an evaluation and a checkpoint."""
MOST_RISES, LEAST_APART = 0.4, 3
"""Growth in more of the readings than this, or more often than every third step, counts as growth at each step."""
LEAST_EVENTS = 4
"""With fewer events no growth is attributed to a clock."""
RESTS = 0.3
"""Growth between its rises at less than this part of its mean rate has come to rest there."""
MOST_BESIDE, ARENAS = 2.0, 2 << 20
"""Resident memory tells when a part of it rises if it rises by no more than this many times as much, and by more
bytes at once than Python takes for small objects (1 MiB)."""
MOST_COVERED = 0.6
"""An event that occurs in more of the buckets than this is no clock of its own."""


@dataclass(frozen=True, slots=True)
class Following:
    """The clock that a growth follows."""

    clock: Clock
    per_event: float
    """Bytes per event of that clock; if growth comes every so many steps, bytes per rise."""
    events: int
    every_steps: int | None = None
    """Mean number of steps between two rises, if growth does not come at each step."""


def find_clock(buckets: Buckets, values: Floats, since: int) -> Following | None:
    """Find the clock of a growth.

    Args:
        buckets: The history.
        values: The series, one value a bucket, NaN where not read. Shape (buckets,).
        since: The step at which the growth begins.

    Returns:
        The clock; None if there is no growth, or it is too short.
    """
    keep = _before_the_end(np.flatnonzero(~np.isnan(values) & (buckets.last_step >= since)), values)
    y = values[keep]
    if len(y) < 8 or y[-1] <= y[0]:
        return None
    found = []
    for series, clock in EVENTS:
        counts = _counts(buckets, series)[keep]
        events = int(counts[-1] - counts[0])
        if events >= LEAST_EVENTS and _grows_at(y, counts):
            found.append(Following(clock, float(y[-1] - y[0]) / events, events))
    if found:
        return min(
            found, key=lambda following: following.events
        )  # of several clocks the rarest is the most specific
    steps = buckets.last_step[keep].astype(np.float64)
    seconds = buckets.seconds[keep]
    every = steps_between_rises(steps, y)
    comes_in_rises = every is not None and _rests_between(steps, y, seconds)
    if not comes_in_rises and _is_by_the_second(y, steps, seconds):
        return Following(
            "seconds", float((y[-1] - y[0]) / (seconds[-1] - seconds[0])), int(seconds[-1] - seconds[0])
        )
    count, risen = int(steps[-1] - steps[0]), float(y[-1] - y[0])
    every = every or _by_the_whole(buckets, float(steps[0]), risen)
    return Following("step", risen / max(count, 1) * (every or 1), count // (every or 1), every)


def _before_the_end(keep: npt.NDArray[np.intp], values: Floats) -> npt.NDArray[np.intp]:
    """The readings up to the largest, if that is a late one: memory that a script frees as it ends is ignored."""
    greatest = int(np.argmax(values[keep])) + 1 if len(keep) else 0
    return keep[:greatest] if 2 * greatest >= len(keep) else keep


def steps_between_rises(steps: Floats, values: Floats) -> int | None:
    """Steps between two rises of a growth that does not come at each step.

    Args:
        steps: Steps of the readings. Shape (values,).
        values: The readings. Shape (values,).

    Returns:
        The mean distance; None if growth comes at each step, or readings are too far apart to know.
    """
    rises, apart = np.diff(values), np.diff(steps)
    total, length = float(values[-1] - values[0]), float(steps[-1] - steps[0])
    if len(rises) < 4 * LEAST_EVENTS or total <= 0:
        return None
    at = _rises_at(steps, values)
    if len(at) < LEAST_EVENTS or apart[at].sum() > MOST_RISES * length or rises[at].sum() < 0.7 * total:
        return None
    at = at[np.append(True, np.diff(at) > 1)]  # a rise that spans two readings is one
    middles = steps[at] + apart[at] / 2
    between = np.diff(middles)
    usual = between[np.abs(between - median(between)) <= 0.5 * median(between)]  # one that was missed, or is none
    every = float(usual.mean()) if len(usual) else 0.0
    return round(every) if every >= LEAST_APART and every > 2 * median(apart[at]) else None


def _by_the_whole(buckets: Buckets, since: float, risen: float) -> int | None:
    """Steps between two rises by resident memory, which is read most often, if the growth makes up most of it.

    Small objects that come at each step become resident an arena at a time: only larger rises count.

    Args:
        buckets: The history.
        since: The step at which the growth begins.
        risen: Bytes by which its part of memory has risen.
    """
    whole = buckets.lows("resident")
    keep = _before_the_end(np.flatnonzero(~np.isnan(whole) & (buckets.last_step >= since)), whole)
    if len(keep) < 2:
        return None
    steps, values = buckets.last_step[keep].astype(np.float64), whole[keep]
    every, total = steps_between_rises(steps, values), float(values[-1] - values[0])
    if every is None or not 0 < total <= MOST_BESIDE * risen:
        return None
    return every if total / float(steps[-1] - steps[0]) * every >= ARENAS else None


def _rises_at(steps: Floats, values: Floats) -> npt.NDArray[np.intp]:
    """The readings after which a growth rises by much more than steady growth would."""
    rises, apart = np.diff(values), np.diff(steps)
    excess = rises - float(values[-1] - values[0]) / float(steps[-1] - steps[0]) * apart
    noise = 1.4826 * median(np.abs(excess - median(excess)))
    return np.flatnonzero(excess > max(6 * noise, 0.3 * float(np.sort(excess)[-LEAST_EVENTS])))


def _rests_between(steps: Floats, values: Floats, seconds: Floats) -> bool:
    """Whether growth rests between its rises; what grows by the second goes on, if slower than in long pauses."""
    between = np.ones(len(values) - 1, dtype=bool)
    between[_rises_at(steps, values)] = False
    passed = float(np.diff(seconds)[between].sum())
    rate = float(values[-1] - values[0]) / max(float(seconds[-1] - seconds[0]), 1e-9)
    return float(np.diff(values)[between].sum()) < RESTS * rate * passed


def stairs(buckets: Buckets, values: Floats, series: str) -> Floats:
    """The floor of a series between each two events of a clock, in order. Shape (events + 1,)."""
    keep = ~np.isnan(values)
    counts = _counts(buckets, series)[keep]
    y = values[keep]
    edges = np.flatnonzero(np.diff(counts) > 0) + 1
    parts = [part for part in np.split(y, edges) if len(part)]
    return np.array([float(np.min(part[len(part) // 4 :])) for part in parts])


def _counts(buckets: Buckets, series: str) -> Floats:
    """A counter at the end of each bucket; what was not read yet is 0."""
    counts = np.nan_to_num(buckets.highs(series))
    return np.maximum.accumulate(counts) if len(counts) else counts


def _grows_at(y: Floats, counts: Floats) -> bool:
    """Whether nearly all growth falls into the buckets in which a counter moved, or the one after."""
    moved = np.diff(counts) > 0
    at = moved | np.append(False, moved[:-1])
    if at.mean() > MOST_COVERED:
        return False
    rises = np.diff(y)
    inside = float(rises[at].sum()) / float(y[-1] - y[0])
    return inside > 0.75 and inside > at.mean() + 0.25


def _is_by_the_second(y: Floats, steps: Floats, seconds: Floats) -> bool:
    """Whether time explains the growth clearly better than steps do; only if they differ."""
    count = min(len(y) - 1, 48)
    edges = np.linspace(0, len(y) - 1, count + 1).astype(np.int64)
    rises, by_step, by_second = (np.diff(column[edges]) for column in (y, steps, seconds))
    rates = by_second / np.maximum(by_step, 1)
    if len(rises) < 8 or rates.std() < 0.2 * rates.mean():
        return False
    return _left(rises, by_second) < 0.4 * _left(rises, by_step) and _left(
        rises, by_second
    ) < 0.3 * rises.var() * len(rises)


def _left(rises: Floats, by: Floats) -> float:
    """The share of a growth that a proportional clock leaves unexplained."""
    slope = float(rises @ by) / max(float(by @ by), 1e-300)
    return float(np.sum((rises - slope * by) ** 2))
