"""Probes of a run outside its own pages: child processes, shared-memory files, open files."""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from holdwater.errors import ProbeError
from holdwater.probes.host import read_kib_table
from holdwater.probes.probe import Reading
from holdwater.signal_errors import not_the_scripts, suppressed

OBSERVERS: set[int] = set()
"""Processes of holdwater's own that are children of the observed one: they belong to no run."""


def descendants_of(process: psutil.Process) -> list[psutil.Process]:
    """The processes that a process has started, and theirs, without those that observe it.

    Args:
        process: Their parent.
    """
    return [child for child in process.children(recursive=True) if child.pid not in OBSERVERS]


class Children:
    """Memory of all descendants; pages that several share are counted once among them (PSS)."""

    name = "children"
    measures = "memory of child processes (loader and compile workers)"
    every = 5.0

    def __init__(self) -> None:
        self._process = psutil.Process()

    def unavailable(self) -> str | None:
        """Return why this probe cannot read here; None if it can."""
        return None

    def read(self) -> Reading:
        """Return the number of descendants and their memory.

        Returns:
            PSS if the kernel reports it, else resident memory.

        Raises:
            ProbeError: The process table cannot be read.
        """
        try:
            children = descendants_of(self._process)
        except psutil.Error as error:
            raise ProbeError(f"the child processes cannot be listed: {error}") from error
        return {"child_count": len(children), "children": sum(map(proportional_size, children))}


def proportional_size(process: psutil.Process) -> int:
    """PSS of a process, or its resident memory; 0 if it has ended meanwhile."""
    try:
        return read_kib_table(Path(f"/proc/{process.pid}/smaps_rollup"))["Pss"]
    except not_the_scripts(ProbeError, KeyError):
        try:
            return int(process.memory_info().rss)
        except psutil.Error:
            return 0


class SharedMemoryFiles:
    """Files in /dev/shm that this run's processes created: they hold tensors passed between processes.

    A file counts if one of the run's processes has it open or mapped, is named in its file name as by PyTorch, or
    recorded that it created it. Files of other programs do not count.
    """

    name = "shared memory files"
    measures = "files in /dev/shm that this run made"
    every = 5.0

    def __init__(
        self,
        folder: Path = Path("/dev/shm"),  # noqa: S108 - it is what is measured
        *,
        pids: Callable[[], Iterable[int]] | None = None,
        noted: Path | None = None,
    ) -> None:
        """Count from now on.

        Args:
            folder: The folder of shared-memory files.
            pids: The run's processes; None is this one and its children.
            noted: A file in which the run's processes record the names that they create, one a line.
        """
        self._folder, self._noted = folder, noted
        self._pids = _own_processes if pids is None else pids
        self._since = time.time() - FILE_CLOCK
        self._ours: set[int] = set()
        """Inodes."""
        self._look_again = 0.0

    def unavailable(self) -> str | None:
        """Return why this probe cannot read here; None if it can."""
        return None if self._folder.is_dir() else f"this system has no {self._folder}"

    def read(self) -> Reading:
        """Return the bytes that those files occupy.

        Returns:
            Blocks in use, not the files' nominal lengths.

        Raises:
            ProbeError: The folder cannot be listed.
        """
        try:
            with os.scandir(self._folder) as entries:
                new = [(entry.name, status) for entry in entries if (status := self._status(entry)) is not None]
        except not_the_scripts(OSError) as error:
            raise ProbeError(f"{self._folder} cannot be listed: {error.strerror}") from error
        if any(status.st_ino not in self._ours for _, status in new):
            self._claim(new)
        self._ours &= {status.st_ino for _, status in new}  # numbers are reused
        return {"dev_shm": sum(status.st_blocks * 512 for _, status in new if status.st_ino in self._ours)}

    def _status(self, entry: os.DirEntry[str]) -> os.stat_result | None:
        """The status of a file that may be the run's; None if it is older, another user's, or gone."""
        try:
            status = entry.stat(follow_symlinks=False)
        except not_the_scripts(OSError):
            return None
        return status if status.st_uid == os.getuid() and status.st_ctime >= self._since else None

    def _claim(self, new: list[tuple[str, os.stat_result]]) -> None:
        """Find which of the files are the run's own, from time to time: it has to read the run's processes."""
        began = time.monotonic()
        if began < self._look_again:
            return
        pids = list(self._pids())
        names = {name for pid in pids for name in _held_files(pid, self._folder)}
        with suppressed(OSError):
            names |= set(self._noted.read_text(encoding="utf-8").split()) if self._noted is not None else set()
        by_torch = tuple(f"torch_{pid}_" for pid in pids)
        self._ours |= {status.st_ino for name, status in new if name in names or name.startswith(by_torch)}
        self._look_again = began + (time.monotonic() - began) / CLAIM_SHARE


FILE_CLOCK = 0.01
"""Seconds by which a new file's time may lie in the past: it is that of the kernel's last tick (100 a second)."""

CLAIM_SHARE = 0.005
"""The part of the time that searching for a file's owner may take."""


def _own_processes() -> list[int]:
    """This process and its children."""
    process = psutil.Process()
    return [process.pid, *(child.pid for child in descendants_of(process))]


def _held_files(pid: int, folder: Path) -> set[str]:
    """Names of the files of a folder that a process has mapped or open; empty if it may not be read."""
    found, start = set(), f"{folder}/"
    with suppressed(OSError):
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            at = line.find(start)
            if at >= 0:
                found.add(line[at + len(start) :].removesuffix(" (deleted)"))
    with suppressed(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppressed(OSError):
                target = os.readlink(entry.path)  # noqa: PTH115 - half the cost
                if target.startswith(start):
                    found.add(target.removeprefix(start).removesuffix(" (deleted)"))
    return found


class Handles:
    """File descriptors and threads of this process, which leak without taking much memory."""

    name = "handles"
    measures = "open files and threads of this process"
    every = 5.0

    def unavailable(self) -> str | None:
        """Return why this probe cannot read here; None if it can."""
        return None if Path("/proc/self/fd").is_dir() else "this system has no /proc/self/fd"

    def read(self) -> Reading:
        """Return the two counts.

        Returns:
            The number of descriptors, less the one that lists them, and of threads.

        Raises:
            ProbeError: The folders cannot be listed.
        """
        try:
            return {
                "open_files": len(os.listdir("/proc/self/fd")) - 1,  # noqa: PTH208 - half the cost
                "threads": len(os.listdir("/proc/self/task")),  # noqa: PTH208
            }
        except not_the_scripts(OSError) as error:
            raise ProbeError(f"/proc/self cannot be listed: {error.strerror}") from error
