"""Split a run's memory into parts that behave differently, as series that add up to the whole."""

from dataclasses import dataclass

import numpy as np

from holdwater.report.plot import PlotSeries
from holdwater.timeline.buckets import Buckets, Floats


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """Memory over steps, by part."""

    steps: Floats
    """Shape (points,)."""
    areas: list[PlotSeries]
    """The parts, from the bottom up; bytes."""
    total: Floats
    """Their sum. Shape (points,)."""


def memory_parts(samples: Buckets) -> MemoryParts:
    """Split resident memory, and stack the children's memory on top.

    The splits are read by the clock, resident memory with every sample: between two readings a split is assumed
    constant, and the difference is shown as unaccounted.
    """
    steps = samples.last_step.astype(np.float64)
    resident = samples.highs("resident")
    if not samples.seen("anonymous"):
        total = np.nan_to_num(resident)
        return MemoryParts(steps, [PlotSeries("resident", total, "--heap")], total)
    anonymous = _held(samples.highs("anonymous"))
    heap = np.minimum(_held(samples.highs("heap_in_use")), anonymous)
    kept = np.minimum(_held(samples.highs("heap_kept")), anonymous - heap)
    areas = [
        PlotSeries("heap in use", heap, "--heap"),
        PlotSeries("heap kept by the allocator", kept, "--kept"),
        PlotSeries("other private memory", anonymous - heap - kept, "--private"),
        PlotSeries("mapped files", _held(samples.highs("file")), "--file"),
        PlotSeries("shared memory", _held(samples.highs("shared_memory")), "--shared"),
    ]
    known = np.sum([area.values for area in areas], axis=0)
    areas.append(PlotSeries("unaccounted", np.maximum(resident - known, 0), "--rest"))
    areas.append(PlotSeries("child processes", _held(samples.highs("children")), "--children"))
    areas = [area for area in areas if float(area.values.max()) > 0]
    return MemoryParts(steps, areas, np.sum([area.values for area in areas], axis=0))


def _held(values: Floats) -> Floats:
    """Repeat each value until the next reading, and the first one before it; zero if never read."""
    known = ~np.isnan(values)
    if not known.any():
        return np.zeros(len(values))
    places = np.maximum.accumulate(np.where(known, np.arange(len(values)), 0))
    places[: int(np.argmax(known))] = int(np.argmax(known))
    held: Floats = values[places]
    return held
