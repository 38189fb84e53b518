"""The readings of one look, as few and as cheap as they can be: about 3 µs on Linux.

Sources: Linux kernel documentation, filesystems/proc.rst (`statm`); glibc manual (`mallinfo2`, `malloc_trim`).
"""

import contextlib
import gc
import math
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from holdwater.actions.perform import trim
from holdwater.errors import ActionError
from holdwater.probes.devices import Pinned, find_device
from holdwater.probes.heap import Heap
from holdwater.probes.statm import Statm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOTHING = math.nan
COUNTS_SHARE = 0.0005
"""Counting Python's blocks (40 µs for a million), or files and threads (20 µs), takes at most this part of the
time, in the long run."""
FIRST_SHARE, SPREAD = 0.02, 150
"""Counts take at most this part of the time at first; they come ever more seldom, each when so many parts of the
time that has passed have gone by: a short run is to be judged too, and a long one is to be read evenly."""


_OWN = ("resident", "file_and_shared", "heap_in_use", "heap_kept", "python_blocks")
"""Readings that looking itself changes."""


class Readings:
    """Reads resident memory, the heap, Python's blocks and the device."""

    def __init__(self) -> None:
        self._statm = Statm()
        self._heap = Heap()
        self._has_heap = self._heap.unavailable() is None
        self._device: Any = None
        self._device_sought = self._pinned_due = 0.0
        self._pinned = Pinned()
        self._blocks_due = 0.0
        self._files_due = 0.0
        self._began = math.inf
        """When the first reading was made: before it a script imports for seconds."""
        self._own = dict.fromkeys(_OWN, 0.0)
        self._has_proc = os.path.isdir("/proc/self/fd")  # noqa: PTH112 - pathlib is slow to import

    def read(self, now: float) -> tuple[float, ...]:
        """Return the fields of a record from `resident` to `pinned`, in their order, without our own memory."""
        self._began = min(self._began, now)
        resident, shared = self._statm.read()
        in_use = kept = blocks = files = threads = NOTHING
        if self._has_heap:
            in_use, kept = self._heap.read_pair()
        if now >= self._blocks_due:
            before = time.perf_counter()
            blocks = sys.getallocatedblocks()
            self._blocks_due = now + self._pause(now, time.perf_counter() - before)
        if now >= self._files_due and self._has_proc:
            began = time.perf_counter()
            files = len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - half the price
            threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208
            self._files_due = now + self._pause(now, time.perf_counter() - began)
        own = self._own
        return (
            resident - own["resident"],
            shared - own["file_and_shared"],
            in_use - own["heap_in_use"],
            kept - own["heap_kept"],
            blocks - own["python_blocks"],
            files,
            threads,
            *self._read_device(now),
        )

    @contextlib.contextmanager
    def without_own(self) -> "Iterator[None]":
        """Leave out from now on what is added here: the memory of looking itself."""
        before = self.in_use()
        try:
            yield
        finally:
            after = self.in_use()
            for name in before.keys() & self._own.keys():
                self._own[name] += after[name] - before[name]

    @property
    def own_bytes(self) -> int:
        """Resident memory that looking has added so far."""
        return int(self._own["resident"])

    def heap(self) -> "Callable[[], float] | None":
        """What reads the bytes in use on the heap; None where malloc does not say."""
        return (lambda: self._heap.read_pair()[0]) if self._has_heap else None

    def _pause(self, now: float, cost: float) -> float:
        """Seconds until a dear count is made again."""
        return max(cost / FIRST_SHARE, min((now - self._began) / SPREAD, cost / COUNTS_SHARE))

    def in_use(self) -> dict[str, float]:
        """The same by name, for an answer; the rhythm of the records stays as it is."""
        blocks_due, files_due, self._blocks_due = self._blocks_due, self._files_due, 0.0
        names = ("resident", "file_and_shared", "heap_in_use", "heap_kept", "python_blocks")
        values = self.read(time.perf_counter())
        self._blocks_due, self._files_due = blocks_due, files_due
        return {name: value for name, value in zip(names, values, strict=False) if not math.isnan(value)}

    def experiment(self) -> dict[str, Any]:
        """Collect, then trim, and say what each freed: both are safe, and neither changes a result."""
        enabled = gc.isenabled()
        first = self.in_use()
        gc.collect()
        second = self.in_use()
        self._own["python_blocks"] += second["python_blocks"] - first["python_blocks"]  # it leaves no mark
        with contextlib.suppress(ActionError):  # a C library without it frees nothing
            trim()
        third = self.in_use()
        key = "heap_in_use" if "heap_in_use" in first else "resident"
        blocks = 64 * (first["python_blocks"] - second["python_blocks"])
        return {
            "collected": max(first[key] - second[key] + (blocks if key == "heap_in_use" else 0), 0),
            "trimmed": max(second["resident"] - third["resident"], 0),
            "gc_enabled": enabled and gc.get_threshold()[0] > 0,
        }

    def _read_device(self, now: float) -> tuple[float, float, float]:
        """Allocated and reserved on the device, and pinned on the host; NaN where there is none."""
        if self._device is None:
            if now < self._device_sought:
                return NOTHING, NOTHING, NOTHING
            self._device_sought = now + 1.0
            self._device = find_device()
            if self._device is None:
                return NOTHING, NOTHING, NOTHING
        memory = self._device.read()
        if memory is None:
            return NOTHING, NOTHING, NOTHING
        return memory.allocated, memory.reserved, self._read_pinned(now)

    def _read_pinned(self, now: float) -> float:
        """Bytes pinned on the host; NaN in between two readings, and where CUDA is not used."""
        if now < self._pinned_due:
            return NOTHING
        if self._device.name != "cuda" or self._pinned.unavailable() is not None:
            self._pinned_due = math.inf
            return NOTHING
        began = time.perf_counter()
        pinned = self._pinned.read().get("pinned", NOTHING)
        self._pinned_due = now + (time.perf_counter() - began) / COUNTS_SHARE
        return pinned
