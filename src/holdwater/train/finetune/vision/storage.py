"""Where the feature cache keeps its blocks: the interface, and blocks in host memory."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from holdwater.train.finetune.vision.digest_table import DigestTable
from holdwater.units import Bytes

DIGEST = 16
"""Bytes of a digest."""
IN_MEMORY = 128
"""Bytes that a block in memory takes besides its data, about."""


class Storage(Protocol):
    """Keeps blocks of bytes by digest."""

    @property
    def used(self) -> int:
        """Bytes that it takes."""
        ...

    def find(self, digest: bytes, /) -> Tensor | None:
        """A copy of a block, shape (bytes,), uint8; None where there is none that is whole."""
        ...

    def holds(self, digest: bytes, /) -> bool:
        """Whether there is a block, which is not read."""
        ...

    def add(self, digest: bytes, parts: Sequence[memoryview], /) -> None:
        """Keep a block if it is new and there is room."""
        ...

    def stop_writing(self) -> None:
        """This process is a fork of the one that writes."""
        ...

    def close(self) -> None:
        """Release all that is held."""
        ...


class MemoryStorage:
    """Blocks in the memory of this process."""

    def __init__(self, budget: Bytes) -> None:
        """Begin empty.

        Args:
            budget: Bytes that may be taken.
        """
        self._budget, self.used = budget, 0
        self._blocks: list[bytes] = []
        self._table = DigestTable(np.empty(0, np.uint64), np.empty(0, np.uint32))

    def find(self, digest: bytes) -> Tensor | None:
        """A copy of a block, which the caller may write to; None where there is none.

        Args:
            digest: Of `DIGEST` bytes.
        """
        number = self._table.find(digest)
        if number is None or not self._blocks[number].startswith(digest):
            return None
        data = np.frombuffer(self._blocks[number], np.uint8, offset=DIGEST)
        block = torch.empty(len(data), dtype=torch.uint8)
        block.numpy()[:] = data
        return block

    def holds(self, digest: bytes) -> bool:
        """Whether there is a block; it is not read.

        Args:
            digest: Of `DIGEST` bytes.
        """
        return self._table.find(digest) is not None

    def add(self, digest: bytes, parts: Sequence[memoryview]) -> None:
        """Keep a block if it is new and there is room.

        Args:
            digest: Of `DIGEST` bytes.
            parts: Of the block.
        """
        size = sum(map(len, parts)) + IN_MEMORY
        if self.used + size > self._budget or self._table.find(digest) is not None:
            return
        self._table.add(digest, len(self._blocks))
        self._blocks.append(b"".join([digest, *parts]))
        self.used += size

    def stop_writing(self) -> None:
        """Nothing: the memory of a fork is its own."""

    def close(self) -> None:
        """Free the blocks."""
        self._budget, self.used = Bytes(0), 0
        self._blocks = []
        self._table = DigestTable(np.empty(0, np.uint64), np.empty(0, np.uint32))
