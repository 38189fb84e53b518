"""Read resident memory of this process from `/proc/self/statm` (about 1.5 µs), without imports."""

import os

from holdwater.signal_errors import not_the_scripts


class Statm:
    """`/proc/self/statm`, kept open and read in place; elsewhere psutil is used."""

    def __init__(self) -> None:
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._process = None
        try:
            self._file = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        except not_the_scripts(OSError):
            import psutil  # noqa: PLC0415 - not needed on Linux, and slow to import

            self._file = -1
            self._process = psutil.Process()

    def resident(self) -> int:
        """Return resident memory in bytes; the shortest way to it."""
        if self._process is not None:
            return int(self._process.memory_info().rss)
        return int(os.pread(self._file, 64, 0).split(None, 2)[1]) * self._page

    def read(self) -> tuple[int, int]:
        """Return resident memory, and the part of it that is file-backed or shared, in bytes."""
        return self.read_whole()[1:]

    def read_whole(self) -> tuple[int, int, int]:
        """Return address space, resident memory, and its file-backed or shared part, in bytes."""
        if self._process is not None:
            memory = self._process.memory_info()
            return memory.vms, memory.rss, getattr(memory, "shared", 0)
        virtual, resident, shared, _ = os.pread(self._file, 64, 0).split(None, 3)
        return int(virtual) * self._page, int(resident) * self._page, int(shared) * self._page

    def close(self) -> None:
        """Close the file descriptor."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def read_resident() -> int:
    """Resident memory of this process in bytes, read once: nothing stays open."""
    statm = Statm()
    try:
        return statm.resident()
    finally:
        statm.close()
