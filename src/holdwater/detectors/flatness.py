"""Decide whether memory grows with every call of a function, from readings between calls, at any time of a test.

The readings after the warm-up are cut into twelve parts of equally many. If memory only fluctuates, every
order of the parts' floors is equally likely, and floors that fall at most once are one case in 117,000: that is
what growth must show, at each look. So the chance of a false alarm is bounded for any number of looks that is
spaced by a factor, whatever the noise looks like. Growth must besides lie clear of a random walk, keep its pace
(a cache that fills slows down or ends), and not have been undone in between.

Source: Rényi (1962), "Théorie des éléments saillants d'une suite d'observations" (the ranks of exchangeable
observations are independent of their distribution); the count of orders with at most one fall is Euler's.
"""

from dataclasses import dataclass

import numpy as np

from holdwater.detectors.slope import blocks, fit_slope
from holdwater.timeline.buckets import Floats

PARTS = 12
"""Parts whose floors are compared."""
FEWEST_READINGS = 36
"""Readings before the first look: after the warm-up is left out, each part has two."""
WARM_UP = 1 / 3
"""The first part of the calls, which is not judged."""
MOST_FALLS = 1
"""Floors that may be lower than the one before."""
CLEAR = 5.0
"""Standard errors by which a rise must differ from none, with an error that allows for a random walk."""
KEEPS_ITS_PACE = 0.8
"""The later half of a rise must be at least this part of the earlier half, else it is settling."""
NOT_UNDONE = 0.75
"""What is left of all rises at the end."""
BLOCKS = 48
"""Readings are joined into this many blocks for the slope."""
REACH = 3.3
"""Standard errors of the upper bound: one in two thousand."""


@dataclass(frozen=True, slots=True)
class CallGrowth:
    """What readings between calls say of one counter."""

    grows: bool
    """Whether it grows with the calls, beyond doubt and without slowing down."""
    rises: bool
    """Whether it has risen at all in the later part: then more calls may tell more."""
    rate: float
    """Per call, by a robust slope."""
    low: float
    """With `high`, the 95 % interval of the rate."""
    high: float
    missed: float
    """The largest growth per call that these readings leave possible."""
    rise: float
    """From the first part's floor to the last part's."""


def judge_calls(calls: Floats, values: Floats, *, least: float = 1.0) -> CallGrowth:
    """Judge one counter.

    Args:
        calls: The number of calls before each reading, increasing. Shape (readings,), at least `FEWEST_READINGS`.
        values: The counter. Shape (readings,).
        least: The rise from which on it counts: what the interpreter and malloc keep for reuse fills up to it.
    """
    late = calls >= calls[0] + WARM_UP * (calls[-1] - calls[0])
    if int(late.sum()) < 2 * PARTS:  # calls that became much slower: the readings themselves are the measure
        late[int(WARM_UP * len(late)) :] = True
    calls, values = calls[late], values[late]
    span = float(calls[-1] - calls[0])
    starts = np.linspace(0, len(values), PARTS + 1)[:-1].astype(np.int64)
    floors = np.minimum.reduceat(values, starts)
    places, means = blocks(calls, values, BLOCKS, floor=False)
    line = fit_slope(places, means, wary=True)
    low, high = line.interval(0.95)
    ups = np.diff(floors)
    rise = float(floors[-1] - floors[0])
    bound = max(line.value + REACH * line.error, rise / span, least / span)
    return CallGrowth(
        grows=bool(rise >= least and line.score > CLEAR and _persists(ups, np.diff(calls[starts]), rise)),
        rises=bool(rise > 0 and ups[PARTS // 2 :].max() > 0),
        rate=line.value,
        low=low,
        high=high,
        missed=bound,
        rise=rise,
    )


def _persists(ups: Floats, apart: Floats, rise: float) -> bool:
    """Whether floors rise in all parts, at an even pace, to a level that they keep."""
    if int((ups <= 0).sum()) > MOST_FALLS or ups[-1] <= 0:
        return False
    middle = PARTS // 2
    earlier, later = (
        float(ups[part].sum() / apart[part].sum()) for part in (slice(middle - 1), slice(middle, None))
    )
    return later >= KEEPS_ITS_PACE * earlier and rise >= NOT_UNDONE * float(ups[ups > 0].sum())
