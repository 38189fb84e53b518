"""Blocks of the feature cache in a folder: appended by one process, read by several.

`blocks` holds one block after another; `index` holds a header, then 40 bytes a block: digest, place, length and
checksums. A block is written before its record, and a record counts only if its own checksum is right: a process
that is killed at any moment leaves whole entries, and at most a rest at the end of each file, which the next
writer cuts off. After a power failure a record may stand for data that never reached the disk; the checksum of
the block shows that when it is first read in a process.

Blocks are copied out of the file (`pread`), not mapped. Pages of a mapping count as resident memory, which is
judged for growth, and a file that is damaged or cut under a mapping ends the process with SIGBUS.
"""

import logging
import os
import struct
import sys
import zlib
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from holdwater.store.lock import LOCK, LockState, try_lock
from holdwater.train.finetune.vision.digest_table import DigestTable
from holdwater.train.finetune.vision.storage import DIGEST
from holdwater.units import Bytes, format_size

log = logging.getLogger("holdwater")

INDEX, BLOCKS = "index", "blocks"
HEADER = f"holdwater features 1, {sys.byteorder} endian".encode().ljust(40)
"""How an index begins. The number is that of the format: a folder of another format is emptied."""
RECORD = struct.Struct(f"<{DIGEST}sQQII")
"""Digest, place of the block, its length, its checksum, and the checksum of the record up to here."""
CHECKED = RECORD.size - 4
"""Bytes of a record that its checksum is made of."""
AT_ONCE = 50_000
"""Records that are read at once."""
SPARE = Bytes(500_000_000)
"""Bytes that the cache leaves free on the disk: checkpoints need them more."""
UNSEEN, WHOLE, DAMAGED = range(3)
"""What is known of a block in this process."""


class DiskStorage:
    """Blocks in a folder."""

    def __init__(self, folder: Path, budget: Bytes) -> None:
        """Open what is there; only the first process may add to it.

        Args:
            folder: Is made if it is missing.
            budget: Bytes that its files may take. What is there already is kept, even if it is more.

        Raises:
            OSError: Nothing can be opened there.
        """
        self._folder, self._budget = folder, budget
        self._said: set[str] = set()
        self._lock: LockState = "impossible"
        self._known = bytearray()
        self._index_end = self._blocks_end = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._open()
        self._say_why_nothing_is_added()

    @property
    def used(self) -> int:
        """Bytes of the files."""
        return self._index_end + self._blocks_end

    def find(self, digest: bytes) -> Tensor | None:
        """A copy of a block, which the caller may write to; None where there is none that is whole.

        Args:
            digest: Of `DIGEST` bytes.
        """
        number = self._table.find(digest)
        if number is None or self._known[number] == DAMAGED:
            return None
        record = self._record(number)
        if record is not None and record.digest != digest:
            return None  # another digest with the same beginning
        block = None if record is None else self._read(record)
        unseen = self._known[number] == UNSEEN
        if record is None or block is None or (unseen and zlib.crc32(block.numpy().data) != record.checksum):
            self._known[number] = DAMAGED
            self._say("an entry is damaged; it is computed anew")
            return None
        self._known[number] = WHOLE
        return block

    def holds(self, digest: bytes) -> bool:
        """Whether there is a block; it is not read.

        Args:
            digest: Of `DIGEST` bytes.
        """
        return self._table.find(digest) is not None

    def add(self, digest: bytes, parts: Sequence[memoryview]) -> None:
        """Keep a block if it is new, or takes the place of a damaged one, and there is room.

        Args:
            digest: Of `DIGEST` bytes.
            parts: Of the block.
        """
        if self._lock == "busy":
            self._take_over()
        number, length = self._table.find(digest), sum(map(len, parts))
        if self._lock != "locked" or self._full:
            return
        if number is not None:
            record = self._record(number) if self._known[number] == DAMAGED else None
            fits = record is not None and (record.digest, record.length) == (digest, length)
            if record is not None and fits and self._write(number, digest, record.place, parts):
                self._known[number] = UNSEEN
            return
        index_end = len(HEADER) + (len(self._known) + 1) * RECORD.size
        if index_end + self._blocks_end + length > self._budget or not self._leaves_spare(length):
            return
        if self._write(len(self._known), digest, self._blocks_end, parts):
            self._table.add(digest, len(self._known))
            self._known.append(UNSEEN)
            self._index_end, self._blocks_end = index_end, self._blocks_end + length

    def stop_writing(self) -> None:
        """Leave the lock to the process that this one is a fork of."""
        self._lock = "impossible"
        self._lock_file.close()

    def close(self) -> None:
        """Close the files; nothing is found any more."""
        self._lock = "impossible"
        self._files.close()
        self._table = _table([], [])

    def _take_over(self) -> None:
        """Become the writer if the other process has ended, with all that it wrote."""
        if try_lock(self._lock_file) == "busy":
            return
        self.close()
        try:
            self._open()
        except OSError as error:
            self._say(f"it cannot be opened again ({error.strerror})")

    def _open(self) -> None:
        """Open the files, as a writer if no other process is one, and read the index."""
        with ExitStack() as files:
            self._lock_file = files.enter_context((self._folder / LOCK).open("a+"))
            self._lock = try_lock(self._lock_file)
            index, blocks = self._folder / INDEX, self._folder / BLOCKS
            writes = self._lock == "locked"
            if writes and not _begins_well(index):
                for path in (index, blocks):
                    path.unlink(missing_ok=True)  # whoever reads them goes on with those that it has open
            mode = os.O_CREAT | (os.O_RDWR if writes else os.O_RDONLY)
            self._index = os.open(index, mode, 0o644)
            files.callback(os.close, self._index)
            self._blocks = os.open(blocks, mode, 0o644)
            files.callback(os.close, self._blocks)
            self._load()
            if writes:
                self._cut()
            self._files = files.pop_all()
        self._full = False

    def _say_why_nothing_is_added(self) -> None:
        """Warn where nothing will be, from the start."""
        if self._lock == "busy":
            log.warning(
                "the vision cache %s is being filled by another process: this one only reads it", self._folder
            )
        elif self._lock == "impossible":
            log.warning("the vision cache %s is on a file system without locks: it is only read", self._folder)
        elif self.used > self._budget:
            held, most = format_size(self.used), format_size(self._budget)
            log.warning("the vision cache %s holds %s, more than %s: nothing is added", self._folder, held, most)

    def _load(self) -> None:
        """Read the index."""
        size = os.fstat(self._index).st_size
        count = max(size - len(HEADER), 0) // RECORD.size
        self._index_end = len(HEADER) + count * RECORD.size if size else 0
        self._blocks_end, self._known = 0, bytearray(count)
        prefixes, numbers = [], []
        well = os.pread(self._index, len(HEADER), 0) == HEADER
        for begin in range(0, count if well else 0, AT_ONCE):
            part = os.pread(self._index, AT_ONCE * RECORD.size, len(HEADER) + begin * RECORD.size)
            part = part[: len(part) // RECORD.size * RECORD.size]
            columns = np.frombuffer(part, "<u8").reshape(-1, RECORD.size // 8)
            places = range(0, len(part), RECORD.size)
            right = np.flatnonzero([_is_right(part[at : at + RECORD.size]) for at in places])
            if len(right):
                prefixes.append(columns[right, 0])
                numbers.append((right + begin).astype(np.uint32))
                self._blocks_end = max(self._blocks_end, int((columns[right, 2] + columns[right, 3]).max()))
        self._table = _table(prefixes, numbers)

    def _record(self, number: int) -> "_Record | None":
        """What the index says of a block; None where that is damaged."""
        try:
            data = os.pread(self._index, RECORD.size, len(HEADER) + number * RECORD.size)
        except OSError:
            return None
        return _Record(*RECORD.unpack(data)[:4]) if _is_right(data) else None

    def _read(self, record: "_Record") -> Tensor | None:
        """Copy a block out of the file; None where it is not there, or the disk fails."""
        try:
            if record.place + record.length > os.fstat(self._blocks).st_size:
                return None
            block = torch.empty(record.length, dtype=torch.uint8)
            rest, place = block.numpy().data, record.place
            while rest:
                count = os.preadv(self._blocks, [rest], place)
                if not count:
                    return None
                rest, place = rest[count:], place + count
        except OSError:
            return None
        return block

    def _write(self, number: int, digest: bytes, place: int, parts: Sequence[memoryview]) -> bool:
        """Write a block, then its record; False if the disk is full or fails, which ends all writing."""
        checksum = 0
        for part in parts:
            checksum = zlib.crc32(part, checksum)
        record = RECORD.pack(digest, place, sum(map(len, parts)), checksum, 0)
        record = record[:CHECKED] + zlib.crc32(record[:CHECKED]).to_bytes(4, "little")
        try:
            _write_all(self._blocks, parts, place)
            if not self._index_end:
                _write_all(self._index, [memoryview(HEADER)], 0)
            _write_all(self._index, [memoryview(record)], len(HEADER) + number * RECORD.size)
        except OSError as error:
            self._full = True
            self._say(f"it cannot be written ({error.strerror}): nothing is added any more")
            self._cut()
            return False
        return True

    def _leaves_spare(self, length: int) -> bool:
        """Whether the disk has room for a block and what others need; if not, nothing is added any more."""
        try:
            disk = os.fstatvfs(self._blocks)
        except OSError:
            return True  # whether there is room is seen when it is written
        self._full = disk.f_bavail * disk.f_frsize < length + SPARE
        if self._full:
            self._say(f"its disk has less than {format_size(SPARE)} left: nothing is added any more")
        return not self._full

    def _cut(self) -> None:
        """Cut off what is no whole entry."""
        with suppress(OSError):
            os.ftruncate(self._index, self._index_end)
            if os.fstat(self._blocks).st_size > self._blocks_end:
                os.ftruncate(self._blocks, self._blocks_end)

    def _say(self, what: str) -> None:
        """Warn once."""
        if what not in self._said:
            self._said.add(what)
            log.warning("the vision cache %s: %s", self._folder, what)


class _Record(NamedTuple):
    """What the index says of a block."""

    digest: bytes
    place: int
    length: int
    checksum: int


def _is_right(record: bytes) -> bool:
    """Whether a record is whole."""
    return len(record) == RECORD.size and record[CHECKED:] == zlib.crc32(record[:CHECKED]).to_bytes(4, "little")


def _begins_well(index: Path) -> bool:
    """Whether an index is there and has this format."""
    try:
        with index.open("rb") as file:
            return file.read(len(HEADER)) == HEADER
    except FileNotFoundError:
        return False


def _write_all(file: int, parts: Sequence[memoryview], place: int) -> None:
    """Write parts one after another."""
    for part in parts:
        rest = part
        while rest:
            count = os.pwrite(file, rest, place)
            rest, place = rest[count:], place + count


def _table(prefixes: list[Any], numbers: list[Any]) -> DigestTable:
    """A table of what was read in several parts."""
    return DigestTable(
        np.concatenate([np.empty(0, np.uint64), *prefixes]), np.concatenate([np.empty(0, np.uint32), *numbers])
    )
