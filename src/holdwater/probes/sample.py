"""The memory that is in use at one step: the record that every higher floor reads.

A field that could not be read is None: missing is not zero.
"""

from dataclasses import dataclass

from holdwater.budget import InUse
from holdwater.units import Bytes, Step


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What the framework's allocator holds on the accelerator."""

    allocated: Bytes
    """In live tensors."""
    reserved: Bytes
    """Taken from the driver: live tensors and the allocator's cache."""
    footprint: Bytes | None = None
    """All memory of this process as macOS counts it, on host and device; None on other systems."""
    buffers: int | None = None
    """Metal buffers, as last counted; None where their number has no limit."""

    @property
    def beside(self) -> Bytes | None:
        """The part of the footprint that the framework does not count; None without a footprint."""
        return None if self.footprint is None else Bytes(max(self.footprint - self.reserved, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Readings of the more expensive probes, refreshed by the clock and not by the step."""

    available: Bytes | None = None
    """What new work could take: on the machine, or within the cgroup if that is less."""
    anonymous: Bytes | None = None
    """Resident heap, stacks and other private memory of this process."""
    file: Bytes | None = None
    """Resident pages of mapped files: the kernel may drop them."""
    shared_memory: Bytes | None = None
    """Resident shared memory."""
    virtual: Bytes | None = None
    """Address space that this process has mapped, touched or not."""
    peak_resident: Bytes | None = None
    """The kernel's own high-water mark of resident memory."""
    heap_in_use: Bytes | None = None
    """Handed out by malloc and not freed."""
    heap_kept: Bytes | None = None
    """Freed by the program and kept by malloc."""
    children: Bytes | None = None
    """Resident memory of all descendants, with shared pages divided among their users (PSS)."""
    children_own: Bytes | None = None
    """Private growth of descendants, and their share (PSS) when they were first seen."""
    child_count: int | None = None
    """Descendants: loader workers, compile workers."""
    dev_shm: Bytes | None = None
    """Shared-memory files of this user that appeared since the run began."""
    open_files: int | None = None
    """File descriptors of this process."""
    threads: int | None = None
    """Threads of this process."""
    cgroup_usage: Bytes | None = None
    """Charged to the cgroup, without page cache that can be dropped."""
    pressure: float | None = None
    """Share of the last 10 s in which some task waited for memory, in percent (PSI some avg10)."""
    device_used: Bytes | None = None
    """In use on the device by all processes, as the driver counts it."""
    device_other: Bytes | None = None
    """Taken on the device by this process beyond what the framework has reserved: other libraries, contexts."""
    device_peak: Bytes | None = None
    """The framework's own high-water mark of what it reserved on the device."""
    pinned: Bytes | None = None
    """Host memory pinned by the framework for transfers."""
    device_buffers: int | None = None
    """Metal buffers, in use or in the framework's cache: an estimate where MLX does not tell."""
    compressed: Bytes | None = None
    """Private memory of this process that macOS has compressed or swapped out."""
    swap_used: Bytes | None = None
    """What the machine has swapped out, on macOS."""
    pressure_level: int | None = None
    """Memory pressure of macOS: 1 is normal, 2 a warning, 4 critical."""
    python_blocks: int | None = None
    """Small blocks that Python has handed out."""
    samples_seen: int | None = None
    """Rows of datasets that loaders have read for the first time."""
    worker_visits: int | None = None
    """Rows that loader workers have read for the first time, each worker for itself."""
    epochs: int | None = None
    """Passes over loaders that have begun."""
    evaluations: int | None = None
    """Evaluations that have begun."""
    checkpoints: int | None = None
    """Checkpoints that were saved."""
    shapes: int | None = None
    """New input shapes."""
    compiles: int | None = None
    """Graphs that were compiled."""
    garbage: Bytes | None = None
    """Bytes that collections made by the guard have freed so far."""


NO_LOOK = Look()


@dataclass(frozen=True, slots=True)
class Sample:
    """The memory of this process at the end of one step."""

    step: Step
    seconds: float
    """Since the guard began."""
    resident: Bytes
    """Resident memory of this process."""
    device: DeviceMemory | None = None
    """None on a CPU."""
    look: Look | None = None
    """Readings of the more expensive probes, if some were due at this step; else None."""
    loss: float | None = None
    """The mean of the losses that the training loop reported since the previous sample."""


def in_use_by_pool(resident: Bytes, device: DeviceMemory | None) -> InUse:
    """What a process holds by pool: resident memory, and what is reserved on the device.

    Where the system counts both together, as macOS does, the host's part is what the framework does not count.

    Args:
        resident: Resident memory.
        device: What is held on the device; None on a CPU.
    """
    if device is None:
        return InUse(resident)
    return InUse(resident if device.beside is None else device.beside, device.reserved)
