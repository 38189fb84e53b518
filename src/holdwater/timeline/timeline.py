"""The history of a run in constant memory: when it is full, neighbours are merged, and peaks survive.

Each bucket covers the same number of samples (its *stride*). When `capacity` buckets are full,
pairs are merged and the stride doubles, so a million samples need as much memory as a thousand.
"""

import numpy as np

from holdwater.probes.sample import Look, Sample
from holdwater.timeline.buckets import (
    LOOK_SERIES,
    SERIES,
    STEP_SERIES,
    Buckets,
    join_buckets,
    merge_pairs,
    no_buckets,
)

CAPACITY = 4096
"""Buckets that a timeline keeps; with 20 series they take 2.7 MB."""

_FIRST_LOOK = len(STEP_SERIES)


class Timeline:
    """Collects samples into buckets."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        """Allocate once, so that the timeline itself never grows.

        Args:
            capacity: Buckets to keep; an even number, at least 4.

        Raises:
            ValueError: The capacity is odd or below 4.
        """
        if capacity < 4 or capacity % 2:
            raise ValueError(f"capacity is {capacity}, but pairs are merged; write an even number from 4 on")
        self.stride = 1
        """Samples that a bucket stands for."""
        self.closed = 0
        """Buckets that are full."""
        self.generation = 0
        """How often pairs were merged; a reader that keeps `closed` must start afresh when it changes."""
        self._closed = no_buckets(capacity)
        self._capacity = capacity
        self._low = [float("nan")] * len(SERIES)
        self._high = [float("nan")] * len(SERIES)
        self._total = [0.0] * len(SERIES)
        self._count = [0] * len(SERIES)
        self._touched: list[int] = []
        """Series that were read in the unfinished bucket."""
        self._samples = 0
        self._first_step = 0
        self._last_step = 0
        self._seconds = 0.0

    def append(self, sample: Sample) -> None:
        """Add one sample; its step must not precede the last one's.

        A second sample of the same step (such as the last of a run) goes into the same bucket.
        """
        if self._samples == 0:
            if self.closed and sample.step == self._closed.last_step[self.closed - 1]:
                self._reopen()
            else:
                self._first_step = sample.step
        self._last_step = sample.step
        self._seconds = sample.seconds
        self._samples += 1
        self._note(0, sample.resident)
        if sample.device is not None:
            self._note(1, sample.device.allocated)
            self._note(2, sample.device.reserved)
            if sample.device.footprint is not None:
                self._note(4, sample.device.footprint)
        if sample.loss is not None:
            self._note(3, sample.loss)
        if sample.look is not None:
            self._note_look(sample.look)
        if self._samples == self.stride:
            self._close_bucket()

    def buckets(self, since: int = 0) -> Buckets:
        """Return a copy of the history from bucket `since` on, the unfinished last bucket included."""
        closed, end = self._closed, self.closed
        parts = [
            Buckets(
                closed.first_step[since:end],
                closed.last_step[since:end],
                closed.seconds[since:end],
                closed.low[:, since:end],
                closed.high[:, since:end],
                closed.total[:, since:end],
                closed.count[:, since:end],
            )
        ]
        if self._samples:
            last = no_buckets(1)
            self._write(last, 0)
            parts.append(last)
        return join_buckets(parts)

    def peak(self, series: str) -> float | None:
        """The largest value of a series in the whole history; None if it was never read."""
        index = SERIES.index(series)
        peak = np.nanmax(np.append(self._closed.high[index, : self.closed], self._high[index]), initial=-np.inf)
        return None if np.isinf(peak) else float(peak)

    def _note(self, index: int, value: float) -> None:
        """Add one value to the unfinished bucket. A NaN (such as a diverged loss) is not a value."""
        if value != value:  # noqa: PLR0124 - the cheapest test for NaN
            return
        if not self._count[index]:
            self._touched.append(index)
        if not self._low[index] <= value:  # true for the first value too: NaN compares false
            self._low[index] = value
        if not self._high[index] >= value:
            self._high[index] = value
        self._total[index] += value
        self._count[index] += 1

    def _note_look(self, look: Look) -> None:
        """Add the readings of more expensive probes to the unfinished bucket."""
        for index, name in enumerate(LOOK_SERIES, start=_FIRST_LOOK):
            value = getattr(look, name)
            if value is not None:
                self._note(index, value)

    def _reopen(self) -> None:
        """Reopen the last closed bucket as the unfinished one."""
        self.closed -= 1
        at, closed = self.closed, self._closed
        self._touched = [int(index) for index in np.flatnonzero(closed.count[:, at])]
        for index in self._touched:
            self._low[index] = float(closed.low[index, at])
            self._high[index] = float(closed.high[index, at])
            self._total[index] = float(closed.total[index, at])
            self._count[index] = int(closed.count[index, at])
        closed.low[:, at] = closed.high[:, at] = np.nan
        closed.total[:, at] = closed.count[:, at] = 0
        self._first_step = int(closed.first_step[at])
        self._samples = self.stride - 1

    def _write(self, into: Buckets, at: int) -> None:
        """Copy the unfinished bucket to a position of `into`."""
        into.first_step[at] = self._first_step
        into.last_step[at] = self._last_step
        into.seconds[at] = self._seconds
        for index in self._touched:
            into.low[index, at] = self._low[index]
            into.high[index, at] = self._high[index]
            into.total[index, at] = self._total[index]
            into.count[index, at] = self._count[index]

    def _close_bucket(self) -> None:
        """Move the finished bucket to the closed ones, and merge pairs when they are full."""
        self._write(self._closed, self.closed)
        self.closed += 1
        for index in self._touched:
            self._low[index] = self._high[index] = float("nan")
            self._total[index] = 0.0
            self._count[index] = 0
        self._touched.clear()
        self._samples = 0
        if self.closed == self._capacity:
            self._merge()

    def _merge(self) -> None:
        """Halve the number of buckets in place."""
        half = self._capacity // 2
        merged = merge_pairs(self._closed)
        for name in ("first_step", "last_step", "seconds", "low", "high", "total", "count"):
            table = getattr(self._closed, name)
            table[..., :half] = getattr(merged, name)
            table[..., half:] = np.nan if name in {"low", "high"} else 0
        self.closed = half
        self.stride *= 2
        self.generation += 1
