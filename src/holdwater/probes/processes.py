"""What belongs to a run outside its own pages: child processes, shared-memory files, open files."""

import os
import time
from pathlib import Path

import psutil

from holdwater.errors import ProbeError
from holdwater.probes.host import read_kib_table
from holdwater.probes.probe import Reading


class Children:
    """Memory of all descendants; pages that several share are counted once among them (PSS)."""

    name = "children"
    measures = "memory of child processes (loader and compile workers)"
    every = 5.0

    def __init__(self) -> None:
        self._process = psutil.Process()

    def unavailable(self) -> str | None:
        """Say why this probe cannot read here; None if it can."""
        return None

    def read(self) -> Reading:
        """Return the number of descendants and their memory.

        Returns:
            PSS where the kernel gives it, else resident memory.

        Raises:
            ProbeError: The process table cannot be read.
        """
        try:
            children = self._process.children(recursive=True)
        except psutil.Error as error:
            raise ProbeError(f"the child processes cannot be listed: {error}") from error
        return {"child_count": len(children), "children": sum(map(proportional_size, children))}


def proportional_size(process: psutil.Process) -> int:
    """PSS of a process, or its resident memory; 0 if it has ended meanwhile."""
    try:
        return read_kib_table(Path(f"/proc/{process.pid}/smaps_rollup"))["Pss"]
    except (ProbeError, KeyError):
        try:
            return int(process.memory_info().rss)
        except psutil.Error:
            return 0


class SharedMemoryFiles:
    """Files in /dev/shm that appeared since the run began: tensors passed between processes live there."""

    name = "shared memory files"
    measures = "files in /dev/shm of this user since the run began"
    every = 5.0

    def __init__(self, folder: Path = Path("/dev/shm")) -> None:  # noqa: S108 - it is what is measured
        self._folder = folder
        self._since = time.time()

    def unavailable(self) -> str | None:
        """Say why this probe cannot read here; None if it can."""
        return None if self._folder.is_dir() else f"this system has no {self._folder}"

    def read(self) -> Reading:
        """Return the bytes that those files occupy.

        Returns:
            Blocks in use, not the files' nominal lengths.

        Raises:
            ProbeError: The folder cannot be listed.
        """
        used = 0
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    used += self._occupied(entry)
        except OSError as error:
            raise ProbeError(f"{self._folder} cannot be listed: {error.strerror}") from error
        return {"dev_shm": used}

    def _occupied(self, entry: os.DirEntry[str]) -> int:
        """Bytes of one file, 0 if it is older than the run, another user's, or gone."""
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            return 0
        ours = status.st_uid == os.getuid() and status.st_ctime >= self._since
        return status.st_blocks * 512 if ours else 0


class Handles:
    """File descriptors and threads of this process: things that leak without weighing much."""

    name = "handles"
    measures = "open files and threads of this process"
    every = 5.0

    def unavailable(self) -> str | None:
        """Say why this probe cannot read here; None if it can."""
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
                "open_files": len(os.listdir("/proc/self/fd")) - 1,  # noqa: PTH208 - half the price
                "threads": len(os.listdir("/proc/self/task")),  # noqa: PTH208
            }
        except OSError as error:
            raise ProbeError(f"/proc/self cannot be listed: {error.strerror}") from error
