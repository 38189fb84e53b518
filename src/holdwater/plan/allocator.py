"""What PyTorch's CUDA allocator reserves for a sequence of requests, by its own rules and without a device.

Requests are rounded to 512 bytes. Those of up to 1 MiB come out of segments of 2 MiB; those below 10 MiB out of
segments of 20 MiB; larger ones get a segment of their own size, in steps of 2 MiB. The smallest free block that is
large enough is taken, and split where enough is left. Source: PyTorch, c10/cuda/CUDACachingAllocator.cpp.
"""

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
class Block:
    """A piece of a segment."""

    size: int
    small: bool
    free: bool = True
    before: "Block | None" = None
    after: "Block | None" = None


@dataclass(slots=True)
class CachingAllocator:
    """Hands out blocks as PyTorch does."""

    reserved: Bytes = NOTHING
    """What is taken from the device now."""
    peak: Bytes = NOTHING
    """The most that was."""
    allocated: Bytes = NOTHING
    """What is handed out now."""
    _blocks: set[Block] = field(default_factory=set)

    def allocate(self, size: int) -> Block:
        """Hand out a block.

        Args:
            size: In bytes.
        """
        size = max(-(-size // ROUND) * ROUND, ROUND)
        small = size <= SMALL
        fitting = [one for one in self._blocks if one.free and one.small == small and one.size >= size]
        block = min(fitting, key=lambda one: one.size, default=None) or self._take_segment(size, small=small)
        rest = block.size - size
        if rest >= ROUND if small else rest > SMALL:
            left = Block(rest, small, before=block, after=block.after)
            if block.after is not None:
                block.after.before = left
            block.size, block.after = size, left
            self._blocks.add(left)
        block.free = False
        self.allocated = Bytes(self.allocated + block.size)
        return block

    def free(self, block: Block) -> None:
        """Take a block back, and join it with free ones beside it."""
        self.allocated = Bytes(self.allocated - block.size)
        block.free = True
        if block.after is not None and block.after.free:
            self._join(block, block.after)
        if block.before is not None and block.before.free:
            self._join(block.before, block)

    def _join(self, one: Block, other: Block) -> None:
        """Make one block of two."""
        one.size, one.after = one.size + other.size, other.after
        if other.after is not None:
            other.after.before = one
        self._blocks.discard(other)

    def empty_cache(self) -> None:
        """Give segments back in which nothing is in use."""
        for block in [one for one in self._blocks if one.free and one.before is None and one.after is None]:
            self._blocks.discard(block)
            self.reserved = Bytes(self.reserved - block.size)

    def _take_segment(self, size: int, *, small: bool) -> Block:
        """Take a segment from the device."""
        own = -(-size // STEP) * STEP
        whole = SMALL_SEGMENT if small else LARGE_SEGMENT if size < OWN_SEGMENT else own
        block = Block(whole, small)
        self._blocks.add(block)
        self.reserved = Bytes(self.reserved + whole)
        self.peak = Bytes(max(self.peak, self.reserved))
        return block
