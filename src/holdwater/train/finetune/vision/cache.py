"""Features of pictures that a frozen vision tower has made once, kept for the next epoch, the next process or run.

A picture costs one pass of the tower instead of one in each epoch.
"""

import hashlib
import logging
import os
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import Tensor

from holdwater.train.finetune.vision.disk_storage import DiskStorage
from holdwater.train.finetune.vision.entry import decode, encode
from holdwater.train.finetune.vision.storage import DIGEST, MemoryStorage, Storage
from holdwater.units import Bytes, format_size

log = logging.getLogger("holdwater")


class FeatureCache:
    """Keeps tensors by key, within a budget, in a folder or in host memory; may be asked from several threads.

    It fills up to its budget and then keeps what it has: nothing is evicted. Each epoch takes every picture once;
    under such cyclic access least-recently-used evicts entries before their next use, while a fixed part is found
    again in every epoch. Source: Mohan et al. (2021), "Analyzing and mitigating data stalls in DNN training",
    PVLDB 14, arXiv 2007.06775 (its cache MinIO).

    In a folder, an entry is checked by its checksum when a process first reads it; a damaged one is a miss, and is
    written anew. Growth stops before the disk is full, so that checkpoints have room; no error of the disk ends
    the run. One process at a time writes. Others read what was there when they opened it, and one of them takes
    over when the writer has ended.
    """

    def __init__(self, budget: Bytes, *, place: Path | None = None) -> None:
        """Open the cache; if its folder cannot be used, that is said, and nothing is kept.

        Args:
            budget: Bytes that it may take, its index included.
            place: The folder; None keeps features in host memory.
        """
        self._budget = budget
        self.hits, self.misses = 0, 0
        """Times that a key was found, or not, in this process."""
        self._storage: Storage = MemoryStorage(budget)
        if place is not None:
            try:
                self._storage = DiskStorage(place, budget)
            except OSError as error:
                self._storage = MemoryStorage(Bytes(0))
                log.warning("the vision cache %s cannot be used (%s): nothing is kept", place, error.strerror)
        self._lock = threading.Lock()
        weakref.finalize(self, self._storage.close)
        _OPEN.add(self)

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Return a copy of what was kept for a key, or None where nothing is. The tensors are the caller's.

        Args:
            key: Must say all that the features follow from: the picture's content, the processor's settings, the
                tower's weights.
        """
        with self._lock:
            block = self._storage.find(_digest(key))
            self.hits += block is not None
            self.misses += block is None
        return None if block is None else decode(block)

    def holds(self, key: str) -> bool:
        """Whether something is kept for a key; it is not read, so it may still turn out to be damaged.

        Args:
            key: As for `get`.
        """
        with self._lock:
            return self._storage.holds(_digest(key))

    def put(self, key: str, features: Mapping[str, Tensor]) -> None:
        """Keep features if the key is new and there is room.

        Args:
            key: As for `get`.
            features: By name, on the CPU, of any type and shape.
        """
        parts = encode(features)
        with self._lock:
            self._storage.add(_digest(key), parts)

    @property
    def bytes_used(self) -> int:
        """Bytes that it takes now."""
        return self._storage.used

    @property
    def summary(self) -> str:
        """How often keys were found and how full it is, for people."""
        asked = self.hits + self.misses
        found = f"{100 * self.hits / asked:.1f} % hits" if asked else "not asked yet"
        return f"vision cache: {found}, {format_size(self.bytes_used)} of {format_size(self._budget)}"

    def close(self) -> None:
        """Close its files, or free its memory; what `get` returned stays valid. Nothing is found or kept after."""
        with self._lock:
            self._storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _after_fork(self) -> None:
        """Only read, in the child of a process that has it open; another thread may have held the lock."""
        self._lock = threading.Lock()
        self._storage.stop_writing()


_OPEN: "weakref.WeakSet[FeatureCache]" = weakref.WeakSet()
"""All caches of this process."""


def _after_fork() -> None:
    """Let a child only read."""
    for cache in _OPEN:
        cache._after_fork()  # noqa: SLF001 - the same module


os.register_at_fork(after_in_child=_after_fork)


def _digest(key: str) -> bytes:
    """What stands for a key in the index."""
    return hashlib.blake2b(key.encode(), digest_size=DIGEST).digest()
