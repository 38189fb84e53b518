"""A stand-in for the readings of a Mac, so that a run on Apple silicon can be rehearsed on any machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from holdwater.budget import MachineMemory
from holdwater.probes.metal import (
    LAST_COUNT,
    NORMAL_PRESSURE,
    Allocator,
    BufferCount,
    DeviceLimits,
    Footprint,
    install,
    uninstall,
)
from holdwater.units import Bytes


@dataclass(slots=True, kw_only=True)
class StandInMetal:
    """One Mac's memory, in bytes; change its fields as the run goes on."""

    total: int = 96_000_000_000
    """Memory of the machine."""
    working_set: int = 72_000_000_000
    """What the device recommends; Macs of this size recommend three quarters."""
    most_buffers: int = 499_000
    """The most buffers that the device permits."""
    active: int = 0
    """In MLX's arrays."""
    cache: int = 0
    """Freed by MLX and kept."""
    private: int = 0
    """Ordinary private memory of the process."""
    compressed: int = 0
    """The part of it that is compressed."""
    other: int = 0
    """What other libraries hold on the device."""
    buffer_count: int | None = None
    """Metal buffers; None if they cannot be counted."""
    level: int = NORMAL_PRESSURE
    """Memory pressure of the system."""
    swapped: int = 0
    """Of the whole machine."""
    peak: int = 0
    """The highest active memory that was read."""

    def allocator(self) -> Allocator:
        """MLX's counters."""
        self.peak = max(self.peak, self.active)
        return Allocator(Bytes(self.active), Bytes(self.cache), Bytes(self.peak))

    def footprint(self) -> Footprint:
        """All memory of the process."""
        total = self.private + self.active + self.cache + self.other
        return Footprint(Bytes(total), Bytes(self.private), Bytes(self.compressed))

    def pressure_level(self) -> int:
        """The system's memory pressure."""
        return self.level

    def swap_used(self) -> Bytes:
        """What the machine has swapped out."""
        return Bytes(self.swapped)

    def limits(self) -> DeviceLimits:
        """What the device recommends and permits."""
        return DeviceLimits(Bytes(self.working_set), self.most_buffers)

    def buffers(self) -> BufferCount | None:
        """The number of buffers, as an estimate."""
        return None if self.buffer_count is None else BufferCount(self.buffer_count, is_estimate=True)

    def machine(self) -> MachineMemory:
        """The machine, for `Guard(machine=...)`: what it could give to a run now."""
        free = max(self.total - self.footprint().total, 0)
        return MachineMemory(
            total=Bytes(self.total),
            available=Bytes(free),
            unified=True,
            working_set=Bytes(self.working_set),
            buffers=self.most_buffers,
        )

    @contextmanager
    def installed(self) -> Iterator["StandInMetal"]:
        """Let this process read it instead of its own machine, inside a `with` block."""
        install(self)
        try:
            yield self
        finally:
            uninstall()
            LAST_COUNT.buffers = None
