"""Memory of accelerators, as their frameworks and drivers count it: CUDA, MPS and MLX.

A framework is asked only when the program has loaded it: a probe never imports one,
and never starts a device.
"""

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

from holdwater.errors import ProbeError
from holdwater.probes.metal import LAST_COUNT, Allocator, metal, read_allocator
from holdwater.probes.probe import Reading
from holdwater.probes.sample import DeviceMemory
from holdwater.signal_errors import not_the_scripts
from holdwater.units import Bytes

NOTHING = Bytes(0)


class DeviceProbe(Protocol):
    """A reading of one accelerator's allocator, cheap enough for every step."""

    name: str
    measures: str

    def unavailable(self) -> str | None:
        """Return why this probe cannot read here; None if it can."""
        ...

    def read(self) -> DeviceMemory | None:
        """Return what the allocator holds; None as long as the device has not been used."""
        ...


def loaded(name: str) -> Any | None:  # noqa: ANN401 - a module of a framework that may not be installed
    """Return a module that the program has imported; None if it has not."""
    module = sys.modules.get(name)
    return module if isinstance(module, ModuleType) else None


@dataclass(slots=True)
class ExternalMemory:
    """Device memory that another process of the run holds: this process's framework does not count it."""

    held: Bytes = NOTHING

    def take(self, size: int) -> None:
        """Add to it.

        Args:
            size: Bytes.
        """
        self.held = Bytes(self.held + size)


EXTERNAL = ExternalMemory()
"""This process's instance."""


class Cuda:
    """The CUDA caching allocator of the current device (11 µs a reading)."""

    name = "cuda"
    measures = "CUDA memory allocated and reserved"

    def unavailable(self) -> str | None:
        """Return why this probe cannot read here; None if it can."""
        torch = loaded("torch")
        if torch is None:
            return "torch is not loaded"
        if torch.version.cuda is None and torch.version.hip is None:
            return f"torch {torch.__version__} was built without CUDA"
        return None if torch.cuda.is_available() else "no CUDA device is visible"

    def read(self) -> DeviceMemory | None:
        """Return what the allocator holds; None as long as CUDA has not been used."""
        torch = loaded("torch")
        if torch is None or not torch.cuda.is_initialized():
            return None
        statistics = torch.cuda.memory.memory_stats_as_nested_dict()
        if not statistics:
            return DeviceMemory(EXTERNAL.held, EXTERNAL.held)
        return DeviceMemory(
            Bytes(EXTERNAL.held + statistics["allocated_bytes"]["all"]["current"]),
            Bytes(EXTERNAL.held + statistics["reserved_bytes"]["all"]["current"]),
        )


class Mps:
    """The allocator of Apple's Metal backend in PyTorch."""

    name = "mps"
    measures = "MPS memory allocated, and held by the driver"

    def unavailable(self) -> str | None:
        """Return why this probe cannot read here; None if it can."""
        torch = loaded("torch")
        if torch is None:
            return "torch is not loaded"
        return None if torch.backends.mps.is_available() else "this machine has no MPS device"

    def read(self) -> DeviceMemory | None:
        """Return what the allocator holds; None if there is no such device."""
        torch = loaded("torch")
        if torch is None or not torch.backends.mps.is_available():
            return None
        return DeviceMemory(
            Bytes(torch.mps.current_allocated_memory()), Bytes(torch.mps.driver_allocated_memory()), _footprint()
        )


class Mlx:
    """MLX's allocator: resident memory does not see it on Apple silicon."""

    name = "mlx"
    measures = "MLX memory active and cached"

    def unavailable(self) -> str | None:
        """Return why this probe cannot read here; None if it can."""
        return None if _allocator() is not None else "mlx is not loaded"

    def read(self) -> DeviceMemory | None:
        """Return active memory, and active and cached together; None if MLX is not loaded."""
        allocator = _allocator()
        if allocator is None:
            return None
        reserved = Bytes(allocator.active + allocator.cache)
        return DeviceMemory(allocator.active, reserved, _footprint(), LAST_COUNT.buffers)


def _allocator() -> Allocator | None:
    """MLX's counters; None as long as MLX is not loaded."""
    source, mlx = metal(), loaded("mlx.core")
    if source is not None:
        return source.allocator()
    return None if mlx is None else read_allocator(mlx)


def _footprint() -> Bytes | None:
    """All memory of this process as macOS counts it; None elsewhere."""
    source = metal()
    footprint = None if source is None else source.footprint()
    return None if footprint is None else footprint.total


class CudaDriver:
    """Memory used on the device by all processes, as the driver counts it."""

    name = "cuda driver"
    measures = "device memory used by all processes"
    every = 1.0

    def unavailable(self) -> str | None:
        """Return why this probe cannot read here; None if it can."""
        return Cuda().unavailable()

    def read(self) -> Reading:
        """Return the bytes in use.

        Returns:
            Nothing as long as CUDA has not been used.

        Raises:
            ProbeError: The driver does not answer.
        """
        torch = loaded("torch")
        if torch is None or not torch.cuda.is_initialized():
            return {}
        try:
            free, total = torch.cuda.mem_get_info()
        except not_the_scripts(RuntimeError) as error:
            raise ProbeError(f"the CUDA driver does not answer: {error}") from error
        return {"device_used": total - free}


class DevicePeak:
    """The high-water mark of memory reserved on the device, as the framework records it."""

    name = "device peak"
    measures = "the high-water mark of memory reserved on the device"
    every = 1.0

    def unavailable(self) -> str | None:
        """Return why this probe cannot read here; None if it can."""
        return None if Mlx().unavailable() is None else Cuda().unavailable()

    def read(self) -> Reading:
        """Return the high-water mark; nothing as long as the device has not been used."""
        torch, allocator = loaded("torch"), _allocator()
        if torch is not None and torch.cuda.is_initialized():
            return {"device_peak": torch.cuda.max_memory_reserved()}
        return {} if allocator is None else {"device_peak": allocator.peak}


class Pinned:
    """Host memory that the CUDA framework has pinned for transfers."""

    name = "pinned"
    measures = "pinned host memory"
    every = 1.0

    def unavailable(self) -> str | None:
        """Return why this probe cannot read here; None if it can."""
        reason = Cuda().unavailable()
        if reason is None and not hasattr(loaded("torch").cuda, "host_memory_stats"):  # type: ignore[union-attr]
            return "this torch has no torch.cuda.host_memory_stats"
        return reason

    def read(self) -> Reading:
        """Return the bytes pinned; nothing as long as CUDA has not been used."""
        torch = loaded("torch")
        if torch is None or not torch.cuda.is_initialized():
            return {}
        return {"pinned": torch.cuda.host_memory_stats().get("allocated_bytes.current", 0)}


DEVICES: tuple[type[DeviceProbe], ...] = (Cuda, Mps, Mlx)


def find_device() -> DeviceProbe | None:
    """The first accelerator that a loaded framework can use; None if there is none."""
    if _mlx_uses_metal():
        return Mlx()
    return next((probe for make in DEVICES if (probe := make()).unavailable() is None), None)


def device_in_use() -> DeviceProbe | None:
    """The first accelerator that the program has begun to use; None if there is none.

    CUDA is asked nothing before that: its driver is started by the question whether there is a device.
    """
    torch = loaded("torch")
    if torch is not None and torch.cuda.is_initialized():
        return Cuda()
    if _mlx_uses_metal():
        return Mlx()
    return next((probe for make in (Mps, Mlx) if (probe := make()).unavailable() is None), None)


def _mlx_uses_metal() -> bool:
    """Whether MLX holds arrays on Metal: then PyTorch, if it is loaded too, is not what the program uses."""
    allocator = None if metal() is None else _allocator()
    return allocator is not None and allocator.active + allocator.cache > 0


def graph_pools() -> dict[tuple[int, ...], int]:
    """Bytes that live CUDA graphs keep in private pools, in use or not, by the pool's number (1 to 20 ms).

    Such memory is reserved for its graph until that is freed, so its growth is not fragmentation.

    Returns:
        Empty if CUDA is not in use, or the allocator cannot be asked now.
    """
    torch = loaded("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    if torch.cuda.is_current_stream_capturing():
        return {}
    found: dict[tuple[int, ...], int] = {}
    try:
        for segment in torch.cuda.memory_snapshot():
            pool = tuple(segment.get("segment_pool_id", (0, 0)))
            if pool != (0, 0):
                found[pool] = found.get(pool, 0) + segment["total_size"]
    except not_the_scripts(RuntimeError):
        return {}
    return found


def is_unified(device: str) -> bool:
    """Whether a device shares the machine's memory: host and device are one pool.

    Args:
        device: The name of its probe. MLX is such a device only with Metal: on Linux its arrays are on the host.
    """
    mlx = loaded("mlx.core")
    on_cpu = device == "mlx" and sys.platform == "darwin" and mlx is not None and not mlx.metal.is_available()
    return device in {"mps", "mlx"} and metal() is not None and not on_cpu


def mlx_cache() -> int | None:
    """Bytes of freed buffers that MLX keeps for reuse; None if it is not loaded, or does not tell."""
    mlx = loaded("mlx.core")
    try:
        return None if mlx is None else int(mlx.get_cache_memory())
    except not_the_scripts(RuntimeError, AttributeError):
        return None


def mlx_is_on_the_host() -> bool:
    """Whether MLX's arrays are host memory, since it was built without Metal and CUDA; False if unknown."""
    mlx = loaded("mlx.core")
    backends = [getattr(mlx, name, None) for name in ("metal", "cuda")]
    try:
        return mlx is not None and not any(one is not None and one.is_available() for one in backends)
    except not_the_scripts(RuntimeError, AttributeError):
        return False
