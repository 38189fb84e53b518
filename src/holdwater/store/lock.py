"""Lock the folder of a run for one process: two writers would corrupt each other's checkpoints.

Some network file systems have no locks (ENOLCK, EOPNOTSUPP): there it is said, and the run goes on without.
"""

import errno
import fcntl
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Literal

from holdwater.errors import RunFolderError
from holdwater.signal_errors import not_the_scripts

log = logging.getLogger("holdwater")

LOCK = ".lock"
"""The file in the folder that is locked."""
LockState = Literal["locked", "busy", "impossible"]
BUSY = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EINTR}
"""Errors of a file that another process has locked; all others mean that its file system has no locks."""
FULL = {errno.ENOSPC, errno.EDQUOT}
"""Errors of a disk on which there is no room: they cost what would be written, and never the script its life."""
PATIENCE = 12.0
"""Seconds that a process whose supervisor has died may take to end and release its lock."""


@contextmanager
def hold(folder: Path, warn: Callable[[str], None] = log.warning) -> Iterator[None]:
    """Lock a run's folder for this process; the kernel unlocks it however the process ends.

    Args:
        folder: The folder of the run.
        warn: Called where the file system has no locks: the run goes on without.

    Raises:
        RunFolderError: Another process trains in it, and does not end.
        OSError: The folder cannot be written, for another reason than a full disk.
    """
    deadline = time.monotonic() + PATIENCE
    with ExitStack() as closing:
        try:
            lock = closing.enter_context((folder / LOCK).open("a+"))
        except not_the_scripts(OSError) as error:
            if error.errno not in FULL:
                raise
            warn(f"{folder} has no room for a lock: make sure that no other run uses this folder")
            yield
            return
        while (state := try_lock(lock)) == "busy":
            if time.monotonic() >= deadline:
                raise RunFolderError(
                    f"another process trains in {folder}; wait for it, stop it, or name another folder with --out"
                )
            time.sleep(0.05)
        if state == "impossible":
            warn(f"{folder} is on a file system without locks: make sure that no other run uses this folder")
        yield


def try_lock(file: IO[str]) -> LockState:
    """Lock a file for this process, without waiting.

    Args:
        file: Open.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except not_the_scripts(OSError) as error:
        return "busy" if error.errno in BUSY else "impossible"
    return "locked"
