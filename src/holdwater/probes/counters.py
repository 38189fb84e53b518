"""Exact counters of this process's memory, for readings between calls of a function.

Python's blocks and malloc's bytes in use change only when something is allocated or freed, so a leak shows in them
after a few calls. What neither counts (memory that a library maps itself) is left to resident memory, without the
free heap that malloc keeps.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from holdwater.errors import ProbeError
from holdwater.probes.devices import DeviceProbe, device_in_use
from holdwater.probes.heap import Heap
from holdwater.probes.host import read_kib_table
from holdwater.probes.statm import Statm

CounterName = Literal["blocks", "malloc", "rest", "shared", "device"]
STATUS = Path("/proc/self/status")
MEBIBYTE = float(1 << 20)
LARGEST_BLOCK = 512
"""Python's own allocator takes objects up to this size."""


@dataclass(frozen=True, slots=True)
class Counter:
    """One counter, and what it counts."""

    name: CounterName
    measures: str
    least: float
    """What the interpreter, malloc or the kernel may keep for reuse: a smaller rise says nothing."""
    warming: float
    """What a library's tables may take in its first hundreds of calls: until then a smaller rise says nothing."""
    size: int = 1
    """The most bytes that one of it stands for."""
    exact: bool = True
    """Whether it changes only when something is allocated or freed."""


COUNTERS = (
    Counter("blocks", "objects of up to 512 bytes, in Python's own allocator", 192.0, 4096.0, LARGEST_BLOCK),
    Counter("malloc", "bytes that malloc has handed out", 16_384.0, MEBIBYTE / 2),
    Counter("device", "bytes that the framework has handed out on the device", 4096.0, MEBIBYTE / 2),
    Counter("shared", "shared memory that is mapped", MEBIBYTE, MEBIBYTE, exact=False),
    Counter("rest", "memory that libraries map themselves", MEBIBYTE, MEBIBYTE, exact=False),
)
"""In the order in which they are believed: exact ones first."""


class Counters:
    """Reads all counters that this process has."""

    def __init__(self) -> None:
        heap = Heap()
        self._heap = heap if heap.unavailable() is None else None
        self._statm = Statm()
        self._table = STATUS.exists()
        self._device: DeviceProbe | None = None

    def read(self) -> dict[CounterName, float]:
        """Read each; one that cannot be read here is left out."""
        found: dict[CounterName, float] = {"blocks": float(sys.getallocatedblocks())}
        kept = 0
        if self._heap is not None:
            in_use, kept = self._heap.read_pair()
            found["malloc"] = float(in_use)
        found |= self._resident(kept)
        self._device = self._device or device_in_use()
        memory = None if self._device is None else self._device.read()
        if memory is not None:
            found["device"] = float(memory.allocated)
        return found

    @property
    def malloc(self) -> Callable[[], float] | None:
        """Reads malloc's bytes in use; None if this C library does not tell."""
        heap = self._heap
        return None if heap is None else lambda: float(heap.read_pair()[0])

    def close(self) -> None:
        """Release what is open."""
        self._statm.close()

    def _resident(self, kept: int) -> dict[CounterName, float]:
        """Private resident memory without the heap that malloc keeps, and shared memory."""
        if self._table:
            try:
                table = read_kib_table(STATUS)
            except ProbeError:
                table = {}
            if "RssAnon" in table and "RssShmem" in table:
                return {"rest": float(table["RssAnon"] - kept), "shared": float(table["RssShmem"])}
            self._table = False
        resident, shared = self._statm.read()
        return {"rest": float(resident - shared - kept)}
