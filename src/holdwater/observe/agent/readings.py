"""The memory readings that the agent takes inside a script, as few and as cheap as possible: about 3 µs on Linux.

Sources: Linux kernel documentation, filesystems/proc.rst (`statm`); glibc manual (`mallinfo2`, `malloc_trim`).
"""

import contextlib
import gc
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from holdwater.actions.perform import trim
from holdwater.errors import ActionError
from holdwater.probes.devices import Pinned, device_in_use, graph_pools, is_unified, mlx_cache, mlx_is_on_the_host
from holdwater.probes.heap import Heap
from holdwater.probes.pace import Pace
from holdwater.probes.statm import Statm
from holdwater.signal_errors import not_the_scripts, suppressed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdwater.probes.probe import Reading

_OWN = ("resident", "file_and_shared", "heap_in_use", "heap_kept", "python_blocks")
"""Readings that observing itself changes."""
_PARTS = {"resident": 0.25, "heap": 0.2, "blocks": 0.1, "handles": 0.05, "device": 0.25, "pinned": 0.05}
"""The parts of the readings' allowance."""
_BESIDE = 3.0
"""A record costs this many times what reading resident memory does, since it is also written."""
EXPENSIVE = 1e-3
"""If reading the heap takes longer than these seconds, it is not read at every turn of a count."""
SEEK_EVERY = 1.0
"""Seconds between two checks whether a device has come into use."""


class Readings:
    """Reads resident memory each time; the heap, Python's blocks, handles and the device at their own paces."""

    def __init__(self, report: "Callable[[str, int], None]" = lambda _name, _value: None) -> None:
        """Set up what can be read here.

        Args:
            report: Called once when a device has come into use: `device_size` in bytes, or `unified` where its
                memory is the machine's.
        """
        self._report = report
        self._reported = False
        self._statm = Statm()
        self._heap = Heap()
        self._has_heap = self._heap.unavailable() is None
        self._heap_price = 0.0
        self._device: Any = None
        self._device_sought = 0.0
        self._pinned = Pinned()
        self._first: float | None = None
        """When the first reading was made: before it a script imports for seconds."""
        self._own = dict.fromkeys(_OWN, 0.0)
        self._least_own: dict[str, float] = {}
        """Negative if experiments have freed what is added again."""
        has_proc = os.path.isdir("/proc/self/fd")  # noqa: PTH112 - pathlib is slow to import
        self._cheapest = Pace(_PARTS["resident"], cheapest=True)
        self._dear: list[tuple[Pace, Callable[[], Reading]]] = [
            (Pace(_PARTS[name]), read)
            for name, read, can in (
                ("heap", self._read_heap, self._has_heap),
                ("blocks", self._read_blocks, True),
                ("handles", self._read_handles, has_proc),
            )
            if can
        ]

    def read(self, now: float) -> dict[str, float]:
        """Read what is due; the fields of a `LookRecord`, without our own memory.

        Args:
            now: Seconds on a clock that never goes backwards.
        """
        if self._first is None:
            self._first = now
        passed = now - self._first
        started = time.perf_counter()
        virtual, resident, shared = self._statm.read_whole()
        self._cheapest.note(passed, _BESIDE * (time.perf_counter() - started))
        found: dict[str, float] = {"resident": resident, "file_and_shared": shared, "virtual": virtual}
        if self._device is None and passed >= self._device_sought:
            self._seek_device(passed)
        for pace, read in self._dear:
            if passed >= pace.due:
                began = time.perf_counter()
                found |= read()
                pace.note(passed, time.perf_counter() - began)
        own = self._own
        for name in _OWN:
            if name in found:
                found[name] -= own[name]
        return found

    @property
    def due_at(self) -> float:
        """When the cheapest reading is due again, on the clock that `read` was given."""
        return (self._first or 0.0) + self._cheapest.due

    @property
    def heap_is_cheap(self) -> bool:
        """Whether the heap can be read at every turn of a count: with many free chunks it takes up to 10 ms."""
        return self._heap_price < EXPENSIVE

    @contextlib.contextmanager
    def without_own(self, *, heap: bool = True) -> "Iterator[None]":
        """Exclude from now on the memory that observing itself adds.

        Args:
            heap: In the heap too; the same for all turns, since what one adds another may free. Memory freed
                beyond what was added is the program's own, such as garbage that was collected.
        """
        before = self.in_use(heap=heap)
        try:
            yield
        finally:
            after = self.in_use(heap=heap)
            for name in before.keys() & self._own.keys():
                own = self._own[name] + after[name] - before[name]
                self._own[name] = max(own, self._least_own.get(name, 0.0))

    def heap(self) -> "Callable[[], float] | None":
        """The function that reads the bytes in use on the heap; None if malloc does not report them."""
        return (lambda: self._heap.read_pair()[0]) if self._has_heap else None

    def in_use(self, *, heap: bool = True) -> dict[str, float]:
        """The readings that observing itself changes, by name, for an answer; the readings' pace does not change.

        Args:
            heap: Read the heap too.
        """
        _, resident, shared = self._statm.read_whole()
        found = {"resident": float(resident), "file_and_shared": float(shared)} | self._read_blocks()
        if self._has_heap and heap:
            began = time.perf_counter()
            found |= self._read_heap()
            self._heap_price = time.perf_counter() - began
        return {name: found[name] - self._own[name] for name in _OWN if name in found}

    def in_use_and_pools(self) -> dict[str, float]:
        """The same, what live CUDA graphs and MLX's cache keep, and whether that is on the heap: for a count."""
        found = self.in_use()
        if self._device is None:
            return found
        found["graph_pools"] = float(sum(graph_pools().values()))
        cached = mlx_cache() if self._device.name == "mlx" else None
        if cached is not None:
            found |= {"buffer_cache": float(cached), "device_in_heap": float(mlx_is_on_the_host())}
        return found

    def later(self) -> dict[str, float]:
        """What is in use when a count ends: datasets are measured last, and it began some steps earlier."""
        found = self.in_use()
        return {"later": found.get("heap_in_use", found["resident"])}

    def experiment(self) -> dict[str, Any]:
        """Collect, then trim, and return what each freed: both are safe, and neither changes a result."""
        enabled = gc.isenabled()
        first = self.in_use()
        gc.collect()
        second = self.in_use()
        freed = second["python_blocks"] - first["python_blocks"]
        self._own["python_blocks"] += freed  # it records nothing
        self._least_own["python_blocks"] = self._least_own.get("python_blocks", 0.0) + min(freed, 0.0)
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

    def _read_heap(self) -> dict[str, float]:
        """The heap in use, and what is kept free: by malloc, and by MLX of buffers on the heap."""
        in_use, kept = self._heap.read_pair()
        cached = (mlx_cache() or 0) if mlx_is_on_the_host() else 0
        return {"heap_in_use": in_use - cached, "heap_kept": kept + cached}

    @staticmethod
    def _read_blocks() -> dict[str, float]:
        """Small blocks that Python has handed out (40 µs for a million)."""
        return {"python_blocks": sys.getallocatedblocks()}

    @staticmethod
    def _read_handles() -> dict[str, float]:
        """Open files and threads (20 µs); empty while the script has used up its descriptors."""
        try:
            return {
                "open_files": len(os.listdir("/proc/self/fd")) - 1,  # noqa: PTH208 - half the cost
                "threads": len(os.listdir("/proc/self/task")),  # noqa: PTH208
            }
        except not_the_scripts(OSError):
            return {}

    def _seek_device(self, passed: float) -> None:
        """Check whether the script has begun to use a device, and read it from now on."""
        self._device_sought = passed + SEEK_EVERY
        self._device = device_in_use()
        if self._device is None:
            return
        self._dear.append((Pace(_PARTS["device"]), self._read_device))
        if self._device.name == "cuda" and self._pinned.unavailable() is None:
            self._dear.append((Pace(_PARTS["pinned"]), self._pinned.read))

    def _read_device(self) -> dict[str, float]:
        """Allocated and reserved by the framework, and in use by all processes as the driver counts it."""
        memory = self._device.read()
        if memory is None:
            return {}
        found: dict[str, float] = {"device_allocated": memory.allocated, "device_reserved": memory.reserved}
        if not self._reported and is_unified(self._device.name):
            self._report("unified", 1)
            self._reported = True
        if self._device.name == "cuda":
            with suppressed(Exception):  # a driver that does not answer shows as a missing value
                free, total = sys.modules["torch"].cuda.mem_get_info()
                found["device_used"] = total - free
                if not self._reported:
                    self._report("device_size", total)
                    self._reported = True
        return found
