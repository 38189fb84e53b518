"""Lock the folder of a run for one process: two writers would corrupt each other's checkpoints."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdwater.errors import RunFolderError

LOCK = ".lock"
"""The file in the folder that is locked."""
PATIENCE = 12.0
"""Seconds that a process whose supervisor has died may take to end and release its lock."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Lock a run's folder for this process; the kernel unlocks it however the process ends.

    Args:
        folder: The folder of the run.

    Raises:
        RunFolderError: Another process trains in it, and does not end.
    """
    deadline = time.monotonic() + PATIENCE
    with (folder / LOCK).open("a+") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                raise RunFolderError(
                    f"another process trains in {folder}; wait for it, stop it, or name another folder with --out"
                ) from None
            break
        yield
