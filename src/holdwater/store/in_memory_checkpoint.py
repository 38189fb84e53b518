"""A folder in memory for checkpoints that live only until the next process has taken them over.

It is held by the process that made it; one whose holder has died is swept away by the next run.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

from holdwater.store.checkpoints import RESTING, CheckpointFolder

PREFIX = "holdwater-"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - memory is what is wanted; the folder below is this user's alone


class InMemoryFolder:
    """The folder of one run, in memory where the system has a file system there."""

    def __init__(self, out: Path, *, root: Path | None = None) -> None:
        """Make it and hold it, and sweep away what dead runs have left.

        Args:
            out: The folder of the run.
            root: Where to make it; None takes the shared memory, or the temporary folder where there is none.
        """
        root = root or (SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir()))
        name = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:16]
        self.path = root / f"{PREFIX}{os.getuid()}-{name}"
        self.path.mkdir(mode=0o700, exist_ok=True)
        self._lock: IO[str] | None = _hold(self.path)
        (self.path / "run").write_text(str(out.resolve()), encoding="utf-8")
        for folder in root.glob(f"{PREFIX}{os.getuid()}-*"):
            if folder != self.path:
                _sweep(folder)

    @property
    def checkpoints(self) -> CheckpointFolder:
        """Its checkpoints; only the newest is kept."""
        return CheckpointFolder(self.path / "checkpoints", keep=1)

    def empty(self) -> None:
        """Remove what an earlier run in the same folder has left: this one begins anew, or elsewhere."""
        if self._lock is not None:  # else another supervisor is at work there
            shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def remove(self) -> None:
        """Remove it: the run has ended, and its last checkpoint lies in its own folder."""
        if self._lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            self._lock.close()


def _hold(folder: Path) -> IO[str] | None:
    """Hold a folder; None where somebody else does."""
    lock = (folder / "lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock


def _sweep(folder: Path) -> None:
    """Remove a folder that nobody holds; its newest checkpoint goes to its run, if that is still there."""
    try:
        lock = _hold(folder)
    except OSError:
        return
    if lock is None:
        return
    with lock:
        _rescue(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _rescue(folder: Path) -> None:
    """Copy the newest checkpoint into the folder of its run."""
    try:
        run = Path((folder / "run").read_text(encoding="utf-8"))
    except OSError:
        return
    found = CheckpointFolder(folder / "checkpoints").newest(lambda _: None)
    if found is None or RESTING in found.state or not (run / "checkpoints").is_dir():
        return
    target = run / "checkpoints" / found.folder.name
    if not target.exists():
        aside = target.with_name(f".rescued-{target.name}")
        try:
            shutil.copytree(found.folder, aside, dirs_exist_ok=True)
            aside.rename(target)
        except OSError:
            shutil.rmtree(aside, ignore_errors=True)
