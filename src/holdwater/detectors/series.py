"""The series of a history that are judged separately, each with its component."""

from dataclasses import dataclass

import numpy as np

from holdwater.detectors.verdict import Component
from holdwater.timeline.buckets import Buckets, Floats

BLOCK_BYTES = 64
"""Approximate mean size of an added small Python block: records of numbers and strings take 45 to 75 bytes."""
LOADED_BLOCK_BYTES = 96
"""Mean size of all blocks, including code: 3.11 with torch loaded has 1.0 million in 100 MB."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series, without the buckets in which it was not read."""

    name: str
    component: Component
    steps: Floats
    """Shape (values,)."""
    floors: Floats
    means: Floats
    every: Floats
    """The floors in all buckets, NaN where not read. Shape (buckets,)."""

    def __len__(self) -> int:
        return len(self.steps)

    def rise(self, since: float) -> float:
        """How far it rose from its last reading before a step to its newest; 0 if there is none."""
        if len(self.floors) == 0:
            return 0.0
        start = max(int(np.searchsorted(self.steps, since, side="right")) - 1, 0)
        return float(self.floors[-1] - self.floors[start])


def take(
    buckets: Buckets, name: str, component: Component, low: Floats | None = None, mean: Floats | None = None
) -> Series:
    """Take a series out of a history.

    Args:
        buckets: The history.
        name: The name of the series.
        component: The component of its findings.
        low: Its floors, if computed from other series; None reads the series of that name.
        mean: Its means; None as for the floors.
    """
    low = buckets.lows(name) if low is None else low
    mean = buckets.means(name) if mean is None else mean
    seen = ~np.isnan(low)
    return Series(name, component, buckets.last_step[seen].astype(np.float64), low[seen], mean[seen], low)


def private_series(buckets: Buckets) -> tuple[Series, ...]:
    """The private memory of this process: heap, Python's blocks, and what is outside both.

    Memory freed by the guard's own collections is added back, so that an experiment does not change the series.
    """
    freed = np.nan_to_num(buckets.highs("garbage"))
    heap_low, heap_mean = buckets.lows("heap_in_use") + freed, buckets.means("heap_in_use") + freed
    blocks_low, blocks_mean = (
        BLOCK_BYTES * buckets.lows("python_blocks"),
        BLOCK_BYTES * buckets.means("python_blocks"),
    )
    found = []
    if buckets.seen("heap_in_use"):
        found.append(take(buckets, "heap_in_use", "host.native", heap_low, heap_mean))
    if buckets.seen("python_blocks"):
        found.append(take(buckets, "python_blocks", "host.python", blocks_low, blocks_mean))
    outside = _outside(buckets)
    if outside is not None:
        found.append(outside)
    return tuple(found)


def _outside(buckets: Buckets) -> Series | None:
    """Private pages that malloc knows nothing of: Python's arenas, and what libraries map themselves."""
    if not (buckets.seen("anonymous") and buckets.seen("heap_in_use")):
        return None
    parts = [buckets.means(name) for name in ("anonymous", "heap_in_use", "heap_kept")]
    outside = parts[0] - parts[1] - parts[2]
    return take(buckets, "outside", "host.native", outside, outside)


def retained(buckets: Buckets) -> Series | None:
    """Free heap that malloc keeps, as far as it is resident."""
    if not buckets.seen("heap_kept"):
        return None
    if not buckets.seen("anonymous"):
        return take(buckets, "heap_kept", "host.retained")
    most_kept = np.maximum(buckets.means("anonymous") - buckets.means("heap_in_use"), 0.0)
    return take(
        buckets,
        "heap_kept",
        "host.retained",
        np.minimum(buckets.lows("heap_kept"), most_kept),
        np.minimum(buckets.means("heap_kept"), most_kept),
    )


def shared(buckets: Buckets) -> Series | None:
    """Shared memory: mapped by this process, or in /dev/shm since the run began."""
    if not buckets.seen("shared_memory") and not buckets.seen("dev_shm"):
        return None
    low = np.fmax(buckets.lows("shared_memory"), buckets.lows("dev_shm"))
    return take(buckets, "shared", "host.shared", low, low)


def device_cache(buckets: Buckets) -> Series | None:
    """What the framework's allocator keeps on the device beyond live tensors."""
    if not buckets.seen("device_reserved"):
        return None
    kept = buckets.lows("device_reserved") - buckets.lows("device_allocated")
    return take(buckets, "device_cache", "device.reserved", kept, kept)


def children(buckets: Buckets) -> Series | None:
    """Private memory of child processes; all that they hold if the private part is not known.

    What they hold also grows when pages that a child shares with its parent are written to, which ends by itself.
    """
    name = "children_own" if buckets.seen("children_own") else "children"
    if not buckets.seen(name):
        return None
    low, mean = buckets.lows(name).copy(), buckets.means(name)
    if not (low > 0).any():
        return None
    first = int(np.argmax(low > 0))
    low[:first] = mean[:first] = np.nan  # the first child's start is not growth
    return take(buckets, name, "host.children", low, mean)


def held_series(buckets: Buckets) -> tuple[Floats, ...]:
    """What counts against budgets, as far as it was read: the footprint, and device and resident memory.

    Args:
        buckets: The history.
    """
    found = [buckets.lows(name) for name in ("footprint", "device_reserved", "resident")]
    return tuple(values[~np.isnan(values)] for values in found)
