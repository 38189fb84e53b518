"""Split resident memory into parts that behave differently, with an unaccounted rest."""

import numpy as np

from holdwater.detectors.evidence import Holdings
from holdwater.detectors.series import LOADED_BLOCK_BYTES
from holdwater.timeline.buckets import Buckets


def split_resident(buckets: Buckets, held: Holdings) -> dict[str, int]:
    """Split resident memory at the time of a count of objects.

    Heap in use is tensors, large Python objects and the rest, which is native. Small Python objects are in
    separate arenas. Pages that libraries have written to are native too; they existed at the first count.

    Args:
        buckets: The history.
        held: The count.

    Returns:
        Bytes by component, with `unaccounted` and `resident`: the parts add up to it.
    """
    at = min(int(np.searchsorted(buckets.last_step, held.step)), len(buckets) - 1)

    def near(series: str) -> float:
        """The newest value of a series up to that step."""
        values = buckets.lows(series)[: at + 1]
        seen = values[~np.isnan(values)]
        return float(seen[-1]) if len(seen) else 0.0

    resident, anonymous, file = near("resident"), near("anonymous"), near("file")
    shared = max(resident - anonymous - file, 0.0)
    in_use = min(near("heap_in_use"), anonymous)
    kept = min(near("heap_kept"), anonymous - in_use)
    outside = anonymous - in_use - kept
    tensors = min(float(held.tensors), in_use)
    large = min(float(held.bulk), in_use - tensors)
    small = min(LOADED_BLOCK_BYTES * (held.python_blocks or 0.0), outside)
    libraries = min(outside - small, held.library_pages)
    parts = {
        "host.python": large + small,
        "host.tensors": tensors,
        "host.native": in_use - tensors - large + libraries,
        "host.retained": kept,
        "host.file": file,
        "host.shared": shared,
        "unaccounted": outside - small - libraries,
        "resident": resident,
    }
    return {name: round(size) for name, size in parts.items()}
