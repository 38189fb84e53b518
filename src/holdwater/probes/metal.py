"""What only macOS and Metal tell of memory: the process's footprint, memory pressure, and the device's limits.

`phys_footprint` is what the system kills by: resident and compressed private memory and what the GPU driver holds
for the process. Resident memory does not include Metal's buffers, and MLX's own counters do not include what other
libraries take. Everything here is None on other systems; `install` puts a stand-in in its place for tests.

Sources: Apple, xnu `osfmk/mach/task_info.h` (TASK_VM_INFO), `bsd/sys/resource.h`; sysctl
`kern.memorystatus_vm_pressure_level` (1 normal, 2 warning, 4 critical); MLX documentation, `mlx.core.device_info`.
"""

import ctypes
import gc
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

from holdwater.probes.probe import Reading
from holdwater.units import Bytes

TASK_VM_INFO = 22
_VM_INFO_WORDS = 38
"""Natural words up to `phys_footprint` (revision 1): every macOS that runs on Apple silicon has them."""
NORMAL_PRESSURE, WARNING_PRESSURE, CRITICAL_PRESSURE = 1, 2, 4
PRESSURE_LEVELS = {NORMAL_PRESSURE: "normal", WARNING_PRESSURE: "warning", CRITICAL_PRESSURE: "critical"}


@dataclass(frozen=True, slots=True)
class Footprint:
    """The memory of this process as macOS counts it."""

    total: Bytes
    """`phys_footprint`."""
    private: Bytes
    """The part that is ordinary private memory: resident, or compressed and swapped."""
    compressed: Bytes
    """The part of that which is compressed, in memory or on disk."""


@dataclass(frozen=True, slots=True)
class Allocator:
    """MLX's own counters."""

    active: Bytes
    cache: Bytes
    peak: Bytes
    """The high-water mark of active memory."""


@dataclass(frozen=True, slots=True)
class DeviceLimits:
    """What the device recommends and permits."""

    working_set: Bytes | None = None
    """The most that one process should hold on the device (`max_recommended_working_set_size`)."""
    buffers: int | None = None
    """The most buffers that MLX allocates (`resource_limit`)."""


@dataclass(frozen=True, slots=True)
class BufferCount:
    """How many Metal buffers exist, in use or in MLX's cache."""

    count: int
    is_estimate: bool
    """MLX did not tell: the number follows from the arrays that Python knows."""


class Metal(Protocol):
    """The readings of one machine; `StandInMetal` in `holdwater.testing` is another implementation."""

    def allocator(self) -> Allocator | None:
        """MLX's counters; None as long as MLX is not loaded."""
        ...

    def footprint(self) -> Footprint | None:
        """The memory of this process as the system counts it; None if it does not tell (2 µs)."""
        ...

    def pressure_level(self) -> int | None:
        """The system's memory pressure: 1 is normal, 2 a warning, 4 critical."""
        ...

    def swap_used(self) -> Bytes | None:
        """What the whole machine has swapped out."""
        ...

    def limits(self) -> DeviceLimits:
        """What the device recommends and permits."""
        ...

    def buffers(self) -> BufferCount | None:
        """How many Metal buffers there are; None as long as MLX is not loaded."""
        ...


class MacOS:
    """The readings of macOS and of MLX with Metal."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("/usr/lib/libSystem.dylib", use_errno=True)
        self._task = ctypes.c_uint.in_dll(self._library, "mach_task_self_")
        self._words = (ctypes.c_uint32 * _VM_INFO_WORDS)()

    def allocator(self) -> Allocator | None:
        """MLX's counters; None as long as MLX is not loaded."""
        mlx = _loaded_mlx()
        return None if mlx is None else read_allocator(mlx)

    def footprint(self) -> Footprint | None:
        """Ask the kernel by `task_info`; None if it does not answer."""
        length = ctypes.c_uint(_VM_INFO_WORDS)
        failed = self._library.task_info(self._task, TASK_VM_INFO, self._words, ctypes.byref(length))
        return None if failed or length.value < _VM_INFO_WORDS else footprint_of(bytes(self._words))

    def pressure_level(self) -> int | None:
        """Read `kern.memorystatus_vm_pressure_level`; None if the system has no such value."""
        level, size = ctypes.c_int(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
        name = b"kern.memorystatus_vm_pressure_level"
        answer = ctypes.byref(level), ctypes.byref(size)
        failed = self._library.sysctlbyname(name, *answer, None, ctypes.c_size_t(0))
        return None if failed else level.value

    def swap_used(self) -> Bytes | None:
        """What the whole machine has swapped out."""
        import psutil  # noqa: PLC0415 - slow to import, and this module is imported everywhere

        return Bytes(psutil.swap_memory().used)

    def limits(self) -> DeviceLimits:
        """Ask MLX, or PyTorch, whichever is loaded; nothing is known without them."""
        mlx, torch = _loaded_mlx(), sys.modules.get("torch")
        if mlx is not None and mlx.metal.is_available():
            return limits_of(mlx.device_info())
        if torch is not None and torch.backends.mps.is_available():
            return DeviceLimits(working_set=Bytes(torch.mps.recommended_max_memory()))
        return DeviceLimits()

    def buffers(self) -> BufferCount | None:
        """Estimate from the arrays that Python knows; None as long as MLX does not work on Metal."""
        mlx = _loaded_mlx()
        return None if mlx is None or not mlx.metal.is_available() else estimate_buffers(mlx)


def footprint_of(answer: bytes) -> Footprint:
    """Read the answer of `task_info(TASK_VM_INFO)`.

    Args:
        answer: `struct task_vm_info`, at least up to `phys_footprint`; its fields lie without gaps.
    """

    def size_at(offset: int) -> Bytes:
        """A field of eight bytes."""
        return Bytes(int.from_bytes(answer[offset : offset + 8], "little"))

    internal, compressed = size_at(48), size_at(120)
    return Footprint(total=size_at(144), private=Bytes(internal + compressed), compressed=compressed)


def read_allocator(mlx: Any) -> Allocator:  # noqa: ANN401 - the module `mlx.core`
    """Read MLX's counters (less than 1 µs).

    Args:
        mlx: The module `mlx.core`.
    """
    return Allocator(Bytes(mlx.get_active_memory()), Bytes(mlx.get_cache_memory()), Bytes(mlx.get_peak_memory()))


def limits_of(info: dict[str, Any]) -> DeviceLimits:
    """The limits in what `mlx.core.device_info()` returns; its keys depend on the device.

    Args:
        info: What it has returned.
    """
    working_set, buffers = info.get("max_recommended_working_set_size"), info.get("resource_limit")
    return DeviceLimits(
        None if not working_set else Bytes(int(working_set)), None if not buffers else int(buffers)
    )


def estimate_buffers(mlx: Any) -> BufferCount:  # noqa: ANN401 - as above
    """Estimate the number of buffers: MLX counts them, but does not tell.

    Each array that Python knows counts as one buffer, and MLX's cache as buffers of the same mean size. That is
    too many where arrays are views of another, or not evaluated, and too few where only a graph holds them.
    It takes about 3 ms for 100,000 arrays.

    Args:
        mlx: The module `mlx.core`.
    """
    kind = mlx.array
    arrays = list(map(type, gc.get_objects())).count(kind)
    active, cache = mlx.get_active_memory(), mlx.get_cache_memory()
    cached = int(arrays * cache / active) if active else 0
    return BufferCount(arrays + cached, is_estimate=True)


_installed: list[Metal | None] = []
"""Stand-ins; the last one counts."""
_of_this_machine: list[Metal] = []
"""Made at the first question."""


def metal() -> Metal | None:
    """The readings of this machine; None where there is no Metal."""
    if _installed:
        return _installed[-1]
    if sys.platform != "darwin":
        return None
    if not _of_this_machine:
        _of_this_machine.append(MacOS())
    return _of_this_machine[0]


def install(stand_in: Metal) -> None:
    """Let this process read a stand-in, for rehearsals and tests.

    Args:
        stand_in: Read from now on, until `uninstall` is called.
    """
    _installed.append(stand_in)


def uninstall() -> None:
    """Read again what was read before the last stand-in."""
    _installed.pop()


@dataclass(slots=True)
class _LastCount:
    """The newest count of buffers: counting takes too long for every sample."""

    buffers: int | None = None


LAST_COUNT = _LastCount()
"""Of this process."""


class MetalProcess:
    """Compressed memory, the GPU driver's memory that MLX does not count, swap, and memory pressure."""

    name = "metal"
    measures = "compressed memory, device memory outside the framework, swap, and memory pressure of macOS"
    every = 1.0

    def unavailable(self) -> str | None:
        """Return why this probe cannot read here; None if it can."""
        return "this system has no Metal" if metal() is None else None

    def read(self) -> Reading:
        """Return what the system tells; what it does not tell is left out."""
        source = metal()
        if source is None:
            return {}
        found: dict[str, int] = {}
        footprint, allocator = source.footprint(), source.allocator()
        if footprint is not None:
            found["compressed"] = footprint.compressed
            if allocator is not None:
                counted = footprint.private + allocator.active + allocator.cache
                found["device_other"] = max(footprint.total - counted, 0)
        level, swapped = source.pressure_level(), source.swap_used()
        found |= {} if level is None else {"pressure_level": level}
        return found | ({} if swapped is None else {"swap_used": swapped})


class MetalBuffers:
    """The number of Metal buffers, which has a limit of its own."""

    name = "metal buffers"
    measures = "Metal buffers in use and in the cache (an estimate, since MLX does not tell)"
    every = 1.0

    def unavailable(self) -> str | None:
        """Return why this probe cannot read here; None if it can."""
        return "this system has no Metal" if metal() is None else None

    def read(self) -> Reading:
        """Return the number; nothing as long as MLX is not loaded."""
        source = metal()
        counted = None if source is None else source.buffers()
        if counted is None:
            return {}
        LAST_COUNT.buffers = counted.count
        return {"device_buffers": counted.count}


def _loaded_mlx() -> Any | None:  # noqa: ANN401 - a module that may not be installed
    """MLX, if the program has imported it."""
    module = sys.modules.get("mlx.core")
    return module if isinstance(module, ModuleType) else None
