"""The channel between a training process and the one that watches it: a mapped file of fixed size.

The training process writes one record per reading into a ring, and the watcher reads them at its own pace. A
written record survives the writer: the kernel keeps the page when a process is killed. Neither side waits: a late
reader misses records, and knows it.

The child's side imports only the standard library, so that a script starts as fast as without.
"""

import errno
import mmap
import os
import struct
from pathlib import Path
from typing import BinaryIO, Literal

from holdwater.errors import StoreError
from holdwater.probes.record import LookRecord
from holdwater.signal_errors import not_the_scripts, suppressed

CAPACITY = 16_384
"""Records in the ring; with 23 fields 3.0 MB."""

STATES = ("starting", "running", "ending", "ended")
State = Literal["starting", "running", "ending", "ended"]
SOURCES = ("time", "torch", "mlx", "holdwater.step")
Source = Literal["time", "torch", "mlx", "holdwater.step"]

_MAGIC = 0x484F4C4457415431
_RECORD = struct.Struct(f"<{len(LookRecord._fields)}d")
_U64 = struct.Struct("<Q")
_F64 = struct.Struct("<d")
_AT = {
    name: 8 * at
    for at, name in enumerate((
        "magic",
        "written",
        "steps",
        "state",
        "source",
        "asked",
        "answered",
        "hook_seconds",
        "attribution_seconds",
        "first_step_at",
        "last_step_at",
        "samples_total",
        "stopped",
        "wanted",
        "given",
        "recycled",
        "out_of_memory",
        "in_use",
        "began_from",
        "resumable",
        "left_at",
        "went_on_at",
        "goes_on_from",
        "device_size",
        "unified",
        "workers_asked",
        "worker_pid",
        "worker_counts",
        "worker_own",
        "attribution_work",
        "worker_wanted",
        "takes_stops",
        "untaken",
        "worker_rows",
    ))
}
_BEGIN = 512
_SIZE = _BEGIN + CAPACITY * _RECORD.size


def create_channel(path: Path) -> None:
    """Create an empty channel, with space for all of it: to store into a sparse file on a full disk is fatal.

    Args:
        path: A file that does not exist yet.

    Raises:
        StoreError: It cannot be created.
    """
    try:
        with path.open("xb") as file:
            allocate(file, _SIZE)
            file.seek(0)
            file.write(_U64.pack(_MAGIC))
    except not_the_scripts(OSError) as error:
        with suppressed(OSError):
            path.unlink()
        raise StoreError(f"the channel {path} cannot be created: {error.strerror}") from error


def allocate(file: BinaryIO, size: int) -> None:
    """Give an empty file its size, and the space: a store to a mapped page that gets none is fatal (SIGBUS).

    Args:
        file: Empty, and open for writing.
        size: In bytes.

    Raises:
        OSError: There is no room.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except not_the_scripts(OSError) as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise
        else:
            return
    zeros = bytes(min(size, 1 << 20))  # some file systems cannot
    file.writelines(zeros[: size - at] for at in range(0, size, 1 << 20))
    file.flush()


class Channel:
    """Either side of a channel."""

    def __init__(self, path: Path) -> None:
        """Map the file.

        Args:
            path: A file that `create_channel` made.

        Raises:
            StoreError: It is not a channel, or cannot be mapped.
        """
        self.path = path
        try:
            with path.open("r+b") as file:
                self.map = mmap.mmap(file.fileno(), _SIZE)
        except not_the_scripts(OSError, ValueError) as error:
            raise StoreError(f"the channel {path} cannot be mapped: {error}") from error
        if self.get("magic") != _MAGIC:
            raise StoreError(f"{path} is no channel of this version of holdwater")

    def get(self, name: str) -> int:
        """Read a whole number of the header."""
        return int(_U64.unpack_from(self.map, _AT[name])[0])

    def put(self, name: str, value: int) -> None:
        """Write a whole number of the header."""
        _U64.pack_into(self.map, _AT[name], value)

    def get_seconds(self, name: str) -> float:
        """Read a time of the header."""
        return float(_F64.unpack_from(self.map, _AT[name])[0])

    def put_seconds(self, name: str, value: float) -> None:
        """Write a time of the header."""
        _F64.pack_into(self.map, _AT[name], value)

    @property
    def state(self) -> State:
        """The state of the script."""
        return STATES[min(self.get("state"), len(STATES) - 1)]  # type: ignore[return-value]

    @state.setter
    def state(self, state: State) -> None:
        self.put("state", STATES.index(state))

    @property
    def source(self) -> Source:
        """Which clock counts the steps."""
        return SOURCES[min(self.get("source"), len(SOURCES) - 1)]  # type: ignore[return-value]

    @source.setter
    def source(self, source: Source) -> None:
        self.put("source", SOURCES.index(source))

    def write(self, record: LookRecord) -> None:
        """Add one record; the count is raised after it, so that a reader never sees a partial one."""
        written: int = _U64.unpack_from(self.map, _AT_WRITTEN)[0]
        _RECORD.pack_into(self.map, _BEGIN + written % CAPACITY * _RECORD.size, *record)
        _U64.pack_into(self.map, _AT_WRITTEN, written + 1)

    def read(self, since: int) -> tuple[list[LookRecord], int]:
        """Return the records that are new.

        Args:
            since: Number of records that were read before.

        Returns:
            The records, oldest first, without those that were overwritten already; and the new count.
        """
        written = self.get("written")
        first = max(since, written - CAPACITY // 2)  # the older half may be overwritten while it is read
        records = [
            LookRecord(*_RECORD.unpack_from(self.map, _BEGIN + number % CAPACITY * _RECORD.size))
            for number in range(first, written)
        ]
        return records, written

    def close(self) -> None:
        """Unmap the file."""
        self.map.close()


_AT_WRITTEN = _AT["written"]
