"""Detect growth in stairs: at each event of a clock, or every so many steps, and none between them."""

import numpy as np

from holdwater.detectors.clocks import EVENTS, Following, find_clock, stairs
from holdwater.detectors.growth import REPORTED_CONFIDENCE, Growth, GrowthConfig
from holdwater.detectors.medians import median
from holdwater.detectors.verdict import Rate
from holdwater.timeline.buckets import Buckets, Floats
from holdwater.units import Step

ALIKE = 0.4
"""The least stair is at least this part of the mean."""
LEAST_RISES = 4
"""Fewer stairs are chance."""
MOST = 0.7
"""The least share of the growth that the stairs make up."""
APART = 2.5
"""The longest distance between stairs is at most this many times the shortest; to the end of the run, the mean."""

SETTLING = frozenset(("compile", "shape"))
"""Clocks whose events come at first, and end in a healthy run when each has come once."""
LEAST_WAIT = 16
"""Steps that events are taken to be apart, at least."""


def climb_at_events(
    buckets: Buckets, steps: Floats, every: Floats, config: GrowthConfig, *, least: int
) -> tuple[Growth, Following] | None:
    """Find a growth by equal stairs, each at an event.

    Args:
        buckets: The history.
        steps: The step of each reading of the series. Shape (values,).
        every: The series, one value a bucket, NaN where not read. Shape (buckets,).
        config: When a growth counts.
        least: The fewest levels between events, including the first.

    Returns:
        The growth as a leak, and its clock; None if there is none.
    """
    if np.nanmax(every, initial=-np.inf) - np.nanmin(every, initial=np.inf) < config.least_growth:
        return None
    for name, clock in EVENTS:
        if not buckets.seen(name):
            continue
        levels = stairs(buckets, every, name)
        if len(levels) < least:
            continue
        rises = np.diff(levels[1:])
        grown = float(levels[-1] - levels[1])
        fades = rises.min() < ALIKE * rises.mean() or rises[-2:].mean() < 0.7 * rises.mean()
        if grown < config.least_growth or fades or (clock in SETTLING and _have_ended(buckets, name)):
            continue
        following = find_clock(buckets, every, 0)
        if following is not None and following.clock == clock:
            return _grown(steps, float(levels[-1]), grown, rises), following
    return None


def _have_ended(buckets: Buckets, name: str) -> bool:
    """Whether the events of a clock have not come for much longer than they were apart."""
    counts = np.nan_to_num(buckets.highs(name))
    steps = buckets.last_step.astype(np.float64)
    first, last = (float(steps[np.argmax(counts >= count)]) for count in (1, counts.max()))
    return bool(steps[-1] - last > APART * max((last - first) / max(float(counts.max()) - 1, 1), LEAST_WAIT))


def rise_evenly(steps: Floats, floors: Floats, config: GrowthConfig) -> Growth | None:
    """Find a growth by a few equal stairs, evenly apart, with nothing between them.

    Args:
        steps: The step of each reading. Shape (values,).
        floors: The readings. Shape (values,).
        config: When a growth counts.

    Returns:
        The growth, which would be a leak if it continued; None if there is none.
    """
    rises = np.diff(floors)
    total = float(floors[-1] - floors[0]) if len(floors) else 0.0
    if len(rises) < 4 * LEAST_RISES or total < config.least_growth:
        return None
    plain = max(0.3 * float(np.sort(rises)[-LEAST_RISES]), 6 * median(np.abs(rises)))
    at = np.flatnonzero(rises > plain)
    at = at[np.append(True, np.diff(at) > 1)] if len(at) else at  # a stair that spans two readings is one
    if len(at) < LEAST_RISES:
        return None
    sizes = np.array([float(floors[min(index + 2, len(floors) - 1)] - floors[index]) for index in at])
    apart = np.diff(steps[at])
    equal = sizes.min() >= ALIKE * sizes.mean() and sizes.sum() >= MOST * total
    even = apart.max() <= APART * apart.min() and steps[-1] - steps[at[-1]] <= APART * apart.mean()
    return _grown(steps, float(floors[-1]), total, sizes) if equal and even else None


def _grown(steps: Floats, level: float, grown: float, rises: Floats) -> Growth:
    """Convert stairs to a growth per step."""
    length = float(steps[-1] - steps[0])
    error = float(rises.std()) / max(np.sqrt(len(rises)), 1.0) * len(rises) / length
    per_step = grown / length
    rate = Rate(per_step, per_step - 1.96 * error, per_step + 1.96 * error, REPORTED_CONFIDENCE)
    return Growth("leak", rate, Step(int(steps[0])), level, grown, suspicious=True)
