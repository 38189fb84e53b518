"""A folder in memory for checkpoints that the next process of a run takes over.

The process that created it locks it; the next run removes folders whose process has died.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from holdwater.errors import RunFolderError
from holdwater.store.checkpoints import MANIFEST, RESTING, CheckpointFolder
from holdwater.store.lock import try_lock

log = logging.getLogger("holdwater")

PREFIX = "holdwater-"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - memory is intended; the folder below is private to this user


class InMemoryFolder:
    """The folder of one run, in memory if the system has a file system there."""

    def __init__(self, out: Path, *, root: Path | None = None) -> None:
        """Create and lock it, and remove folders of dead runs.

        Args:
            out: The folder of the run.
            root: Its parent; None takes shared memory, or if there is no room the temporary folder or the run's.

        Raises:
            RunFolderError: There is no room anywhere.
        """
        roots = _roots(out) if root is None else [root]
        self.path, self._lock = _make(out, roots)
        for folder in (folder for root in roots for folder in root.glob(f"{PREFIX}{os.getuid()}-*")):
            if folder.resolve() != self.path:
                _sweep(folder)

    @property
    def checkpoints(self) -> CheckpointFolder:
        """Its checkpoints; only the newest is kept."""
        return CheckpointFolder(self.path / "checkpoints", keep=1)

    def empty(self) -> None:
        """Remove what an earlier run in the same folder left: this one starts afresh or from elsewhere."""
        if self._lock is not None:  # else another supervisor is at work there
            shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def remove(self, *, rescue: bool = False) -> None:
        """Remove it: the run has ended.

        Args:
            rescue: Whether to copy its checkpoint to the run's folder if that has none that is as new.
        """
        if self._lock is not None:
            if rescue:
                _rescue(self.path)
            shutil.rmtree(self.path, ignore_errors=True)
            self._lock.close()


def _roots(out: Path) -> list[Path]:
    """Where such a folder may lie, the best first."""
    shared = [SHARED_MEMORY] if os.access(SHARED_MEMORY, os.W_OK) else []
    with contextlib.suppress(OSError):  # no temporary folder can be written
        return [*shared, Path(tempfile.gettempdir()), out]
    return [*shared, out]


def _make(out: Path, roots: Sequence[Path]) -> tuple[Path, IO[str] | None]:
    """Make and lock the folder of a run where there is room; its lock is None if another process has it."""
    run = str(out.resolve())
    name = f"{PREFIX}{os.getuid()}-{hashlib.sha256(run.encode()).hexdigest()[:16]}"
    failures = []
    for path in (root.resolve() / name for root in roots):
        is_new = not path.exists()
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            lock = _hold(path)
            if is_new:
                (path / "run").write_text(run, encoding="utf-8")
        except OSError as error:
            failures.append(f"there is no room for checkpoints in {path.parent} ({error.strerror})")
            if is_new:
                shutil.rmtree(path, ignore_errors=True)
            continue
        if failures:
            log.warning("%s: they are written to %s", failures[0], path)
        return path, lock
    raise RunFolderError(f"{'; '.join(failures)}; free some space")


def _hold(folder: Path, *, may_be_impossible: bool = True) -> IO[str] | None:
    """Lock a folder; None if another process has locked it.

    Args:
        folder: Has a file for it.
        may_be_impossible: Whether a file system without locks counts as locked by this process.
    """
    lock = (folder / "lock").open("a+", encoding="utf-8")
    state = try_lock(lock)
    if state == "busy" or (state == "impossible" and not may_be_impossible):
        lock.close()
        return None
    return lock


def _sweep(folder: Path) -> None:
    """Remove an unlocked folder; its newest checkpoint is copied to its run's folder, if that still exists."""
    try:
        lock = _hold(folder, may_be_impossible=False)
    except OSError:
        return
    if lock is None:
        return
    with lock:
        _rescue(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _newest_step(run: Path) -> int:
    """The step of the newest checkpoint in a run's folder, by the names of the folders; -1 if there is none."""
    found = (path.parent.name for path in (run / "checkpoints").glob(f"step-*/{MANIFEST}"))
    return max((int(name.removeprefix("step-")) for name in found), default=-1)


def _rescue(folder: Path) -> None:
    """Copy the newest checkpoint into the folder of its run."""
    try:
        run = Path((folder / "run").read_text(encoding="utf-8"))
    except OSError:
        return
    found = CheckpointFolder(folder / "checkpoints").newest(lambda _: None, after=_newest_step(run))
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
