"""What PyTorch's CUDA allocator reserves for a sequence of requests, by its own rules and without a device.

Requests are rounded to 512 bytes. Those of up to 1 MiB come out of segments of 2 MiB; those below 10 MiB out of
segments of 20 MiB; larger ones get a segment of their own size, in steps of 2 MiB. The smallest free block that is
large enough is taken, and split where enough is left. Source: PyTorch, c10/cuda/CUDACachingAllocator.cpp.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass, field

from holdwater.units import Bytes

ROUND = 512
SMALL = 1 << 20
"""Largest request that is small, in bytes."""
SMALL_SEGMENT, LARGE_SEGMENT = 2 << 20, 20 << 20
OWN_SEGMENT, STEP = 10 << 20, 2 << 20
"""Requests from which on a segment is made for one alone, and what its size is a multiple of."""


NOTHING = Bytes(0)


@dataclass(slots=True, eq=False)
class MemoryBlock:
    """A piece of a segment."""

    size: int
    small: bool
    free: bool = True
    before: "MemoryBlock | None" = None
    after: "MemoryBlock | None" = None
    number: int = 0
    """Tells it from free ones of the same size."""


@dataclass(slots=True)
class CachingAllocator:
    """Hands out blocks as PyTorch does."""

    reserved: Bytes = NOTHING
    """What is taken from the device now."""
    peak: Bytes = NOTHING
    """The most that was."""
    allocated: Bytes = NOTHING
    """What is handed out now."""
    _free: dict[bool, list[tuple[int, int, MemoryBlock]]] = field(default_factory=lambda: {True: [], False: []})
    """Free blocks, small and large ones apart: size, number, block; the smallest first."""
    _count: int = 0

    def allocate(self, size: int) -> MemoryBlock:
        """Hand out a block.

        Args:
            size: In bytes.
        """
        size = max(-(-size // ROUND) * ROUND, ROUND)
        small = size <= SMALL
        free = self._free[small]
        at = bisect_left(free, (size, 0))
        block = free.pop(at)[2] if at < len(free) else self._take_segment(size, small=small)
        rest = block.size - size
        if rest >= ROUND if small else rest > SMALL:
            left = MemoryBlock(rest, small, before=block, after=block.after)
            if block.after is not None:
                block.after.before = left
            block.size, block.after = size, left
            self._keep(left)
        block.free = False
        self.allocated = Bytes(self.allocated + block.size)
        return block

    def free(self, block: MemoryBlock) -> None:
        """Take a block back, and join it with free neighbours."""
        self.allocated = Bytes(self.allocated - block.size)
        if block.after is not None and block.after.free:
            self._lose(block.after)
            _join(block, block.after)
        if block.before is not None and block.before.free:
            block, joined = block.before, block
            self._lose(block)
            _join(block, joined)
        self._keep(block)

    def _keep(self, block: MemoryBlock) -> None:
        """Have a block ready to be handed out."""
        self._count += 1
        block.free, block.number = True, self._count
        insort(self._free[block.small], (block.size, block.number, block))

    def _lose(self, block: MemoryBlock) -> None:
        """Have it ready no longer."""
        free = self._free[block.small]
        del free[bisect_left(free, (block.size, block.number))]

    def empty_cache(self) -> None:
        """Give segments back in which nothing is in use."""
        for free in self._free.values():
            for _, _, block in [one for one in free if one[2].before is None and one[2].after is None]:
                self._lose(block)
                self.reserved = Bytes(self.reserved - block.size)

    def _take_segment(self, size: int, *, small: bool) -> MemoryBlock:
        """Take a segment from the device."""
        own = -(-size // STEP) * STEP
        whole = SMALL_SEGMENT if small else LARGE_SEGMENT if size < OWN_SEGMENT else own
        self.reserved = Bytes(self.reserved + whole)
        self.peak = Bytes(max(self.peak, self.reserved))
        return MemoryBlock(whole, small, free=False)


def _join(one: MemoryBlock, other: MemoryBlock) -> None:
    """Make one block of two."""
    one.size, one.after = one.size + other.size, other.after
    if other.after is not None:
        other.after.before = one
