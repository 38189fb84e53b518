"""A run's history as columns: each bucket stands for consecutive samples and keeps their extremes."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from holdwater.probes.sample import Look

STEP_SERIES = ("resident", "device_allocated", "device_reserved", "loss", "footprint")
"""Read with every sample."""
LOOK_SERIES = tuple(field.name for field in fields(Look))
"""Read by the clock; the names are those of the fields of `Look`."""
SERIES = STEP_SERIES + LOOK_SERIES
"""All series of a timeline, in the order of the columns."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Buckets:
    """The history of a run. Shapes: (buckets,) and (series, buckets); NaN where nothing was read."""

    first_step: Integers
    last_step: Integers
    seconds: Floats
    """When the bucket's last sample was taken, since the guard began."""
    low: Floats
    high: Floats
    total: Floats
    count: Integers
    """Samples in which the series was read; `total / count` is its mean."""

    def __len__(self) -> int:
        return len(self.first_step)

    def lows(self, series: str) -> Floats:
        """The smallest value in each bucket. Shape (buckets,)."""
        return self._row(self.low, series)

    def highs(self, series: str) -> Floats:
        """The largest value in each bucket. Shape (buckets,)."""
        return self._row(self.high, series)

    def means(self, series: str) -> Floats:
        """The mean value in each bucket. Shape (buckets,)."""
        index = SERIES.index(series)
        with np.errstate(invalid="ignore", divide="ignore"):
            means: Floats = self.total[index] / self.count[index]
        return means

    def seen(self, series: str) -> bool:
        """Whether the series was read at least once."""
        return bool(self.count[SERIES.index(series)].any())

    def peak(self, series: str) -> tuple[float, int] | None:
        """The largest value of the whole history and the bucket it is in; None if never read."""
        highs = self.highs(series)
        if np.isnan(highs).all():
            return None
        bucket = int(np.nanargmax(highs))
        return float(highs[bucket]), bucket

    @staticmethod
    def _row(table: Floats, series: str) -> Floats:
        """One series of a table."""
        row: Floats = table[SERIES.index(series)]
        return row


def no_buckets(count: int = 0) -> Buckets:
    """Allocate a number of empty buckets."""
    shape = (len(SERIES), count)
    return Buckets(
        first_step=np.zeros(count, np.int64),
        last_step=np.zeros(count, np.int64),
        seconds=np.zeros(count),
        low=np.full(shape, np.nan),
        high=np.full(shape, np.nan),
        total=np.zeros(shape),
        count=np.zeros(shape, np.int64),
    )


def later_than(buckets: Buckets, seconds: float) -> Buckets:
    """The buckets from a time of the run on.

    Args:
        buckets: The history.
        seconds: Since the guard began.
    """
    return _part(buckets, slice(int(np.searchsorted(buckets.seconds, seconds)), None))


def without_last(buckets: Buckets) -> Buckets:
    """All buckets but the last.

    Args:
        buckets: The history.
    """
    return _part(buckets, slice(0, -1))


def _part(buckets: Buckets, part: slice) -> Buckets:
    """Some neighbouring buckets."""
    names = ("first_step", "last_step", "seconds", "low", "high", "total", "count")
    return Buckets(*(getattr(buckets, name)[..., part] for name in names))


def merge_pairs(buckets: Buckets) -> Buckets:
    """Merge each bucket of even index with its right neighbour: half as many, and no peak is lost.

    A last bucket without a neighbour stays as it is.
    """
    left, right = slice(0, len(buckets) // 2 * 2, 2), slice(1, None, 2)
    rest = slice(len(buckets) // 2 * 2, None)

    def join(table: npt.NDArray[Any], merged: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Concatenate the merged pairs and the bucket that had no neighbour."""
        return np.concatenate((merged, table[..., rest]), axis=-1)

    low, high, total, count = buckets.low, buckets.high, buckets.total, buckets.count
    return Buckets(
        first_step=join(buckets.first_step, buckets.first_step[left]),
        last_step=join(buckets.last_step, buckets.last_step[right]),
        seconds=join(buckets.seconds, buckets.seconds[right]),
        low=join(low, np.fmin(low[:, left], low[:, right])),
        high=join(high, np.fmax(high[:, left], high[:, right])),
        total=join(total, total[:, left] + total[:, right]),
        count=join(count, count[:, left] + count[:, right]),
    )


def thin(buckets: Buckets, most: int) -> Buckets:
    """Merge pairs until there are at most `most` buckets."""
    while len(buckets) > most:
        buckets = merge_pairs(buckets)
    return buckets


def join_buckets(parts: list[Buckets]) -> Buckets:
    """Concatenate histories, such as those of a run before and after a restart."""
    if not parts:
        return no_buckets()
    return Buckets(
        *(
            np.concatenate([getattr(part, name) for part in parts], axis=-1)
            for name in ("first_step", "last_step", "seconds", "low", "high", "total", "count")
        )
    )
