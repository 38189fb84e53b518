"""Find storages that are pages of a mapped file: loading a checkpoint with `mmap=True` makes such tensors."""

import time
from bisect import bisect_right
from functools import lru_cache

from holdwater.probes.mappings import file_ranges

LEAST = 4096
"""Storages smaller than a page are not checked."""
A_SECOND = 4
"""The process's mappings are read again at most this often a second: 1 ms for a thousand of them."""


def bytes_of_files(storages: dict[int, int]) -> int:
    """Bytes of the storages that are in mapped files.

    Args:
        storages: Sizes by address; addresses below zero are a device's.
    """
    large = [(address, size) for address, size in storages.items() if address > 0 and size >= LEAST]
    if not large:
        return 0
    ranges = _ranges(int(time.monotonic() * A_SECOND))
    return sum(size for address, size in large if _inside(ranges, address))


@lru_cache(maxsize=1)
def _ranges(_moment: int) -> list[tuple[int, int]]:
    """The mappings of files, cached for a quarter of a second."""
    return file_ranges()


def _inside(ranges: list[tuple[int, int]], address: int) -> bool:
    """Whether an address lies in one of the ranges."""
    at = bisect_right(ranges, (address, 1 << 64)) - 1
    return at >= 0 and ranges[at][0] <= address < ranges[at][1]
