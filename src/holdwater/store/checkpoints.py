"""Checkpoint folders: written to a temporary folder, synced, renamed; verified by checksum before use.

A checkpoint is a folder `step-00000400` of files and a `manifest.json` that names each file with its size
and SHA-256, and carries a checksum of its own. The manifest is written last. A folder without a valid
manifest is never resumed from, and never stops a resume from an older one.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdwater.errors import CheckpointError
from holdwater.signal_errors import not_the_scripts
from holdwater.store.folders import make_folder, remove_folder

MANIFEST = "manifest.json"
FORMAT = 1
_WRITING = ".writing-"
_REPLACED = ".replaced-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint."""

    folder: Path
    step: int
    state: dict[str, Any]
    """What the writer stored with the tensors: random states, data position, settings."""


RESTING = "resting"
"""The key of the token under which a weight server holds the weights, if the checkpoint has none."""


class CheckpointFolder:
    """The checkpoints of a run."""

    def __init__(self, folder: Path, *, keep: int = 3) -> None:
        """Manage a folder of checkpoints.

        Args:
            folder: Their folder; created when the first is written.
            keep: How many of the newest to keep, in addition to the best.
        """
        self.folder = folder
        self._keep = keep

    @property
    def begun(self) -> bool:
        """Whether there is a folder of a checkpoint, complete or not."""
        return bool(self._folders())

    def write(
        self, step: int, files: Mapping[str, Callable[[Path], object]], state: Mapping[str, Any], *, best: bool
    ) -> Path:
        """Write a checkpoint; afterwards it is complete, or absent and the older ones are untouched.

        Args:
            step: The step that has just ended.
            files: A function for each file, which writes it at the path that it is given.
            state: Other data of the checkpoint, as JSON.
            best: Whether this is the best so far, and kept when it is no longer among the newest.

        Returns:
            The folder of the checkpoint.

        Raises:
            CheckpointError: It cannot be written (a full disk, a folder that is read-only or gone).
        """
        target = self.folder / f"step-{step:08}"
        aside = self.folder / f"{_WRITING}{target.name}-{os.getpid()}"
        try:
            make_folder(self.folder)
            self._recover()
            self._sweep()
            aside.mkdir()
            self._fill(aside, files, {"step": step, "best": best, "state": dict(state)})
            self._put_in_place(aside, target)
        except not_the_scripts(Exception) as error:
            remove_folder(aside)
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise CheckpointError(f"the checkpoint {target} cannot be written: {reason}") from error
        self._prune(written=target, best=best)
        return target

    def newest(self, warn: Callable[[str], None], *, after: int = -1) -> Checkpoint | None:
        """Find the newest complete checkpoint.

        Args:
            warn: Called for each newer one that is not complete, with the reason.
            after: A step; checkpoints of it and of earlier ones are not even read.

        Returns:
            The checkpoint, or None if there is no complete one.
        """
        self._recover()
        for folder in reversed(self._folders()):
            if after >= 0 and folder.name <= f"step-{after:08}":
                return None
            try:
                return read_checkpoint(folder)
            except CheckpointError as error:
                warn(f"{error}; it is skipped")
        return None

    def _fill(self, aside: Path, files: Mapping[str, Callable[[Path], object]], facts: dict[str, Any]) -> None:
        """Write the files and, last, the manifest."""
        sums = {}
        for name, write in files.items():
            write(aside / name)
            _sync(aside / name)
            sums[name] = {"bytes": (aside / name).stat().st_size, "sha256": _checksum(aside / name)}
        manifest = {"format": FORMAT, **facts, "files": sums}
        manifest["sha256"] = _digest(manifest)
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        _sync(aside / MANIFEST)
        _sync(aside)

    def _folders(self) -> list[Path]:
        """All folders that are named as checkpoints, the oldest first."""
        return sorted(path for path in self.folder.glob("step-*") if path.is_dir())

    def _sweep(self) -> None:
        """Remove what a killed writer left behind."""
        for path in self.folder.glob(f"{_WRITING}*"):
            remove_folder(path)

    def _put_in_place(self, aside: Path, target: Path) -> None:
        """Rename a finished checkpoint; one of the same step stays until the new one is in its place."""
        replaced = self.folder / f"{_REPLACED}{target.name}"
        if os.access(target, os.F_OK):
            target.rename(replaced)
        aside.rename(target)
        _sync(self.folder)
        remove_folder(replaced)

    def _recover(self) -> None:
        """Restore a checkpoint whose replacement was killed between the two renames."""
        for replaced in self.folder.glob(f"{_REPLACED}*"):
            target = self.folder / replaced.name.removeprefix(_REPLACED)
            if os.access(target, os.F_OK):
                remove_folder(replaced)
            else:
                replaced.rename(target)

    def _prune(self, *, written: Path, best: bool) -> None:
        """Keep the one just written, the newest and the best; incomplete folders do not count."""
        whole = [folder for folder in self._folders() if _looks_whole(folder)]
        bests = [path for path in whole if (best and path == written) or _claims_best(path)]
        kept = {written, *whole[-self._keep :], *bests[-1:]}
        for path in whole:
            if path not in kept:
                remove_folder(path)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Check a checkpoint against its manifest.

    Args:
        folder: The folder of one checkpoint.

    Returns:
        The checkpoint, every file of which has the recorded size and checksum.

    Raises:
        CheckpointError: It is not complete; the message says why.
    """
    manifest = _read_manifest(folder)
    for name, recorded in manifest["files"].items():
        _check_file(folder, name, recorded)
    return Checkpoint(folder, manifest["step"], manifest["state"])


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Read a manifest and check its own checksum."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except not_the_scripts(FileNotFoundError):
        raise CheckpointError(f"the checkpoint {folder} has no {MANIFEST}") from None
    except not_the_scripts(OSError, ValueError) as error:
        raise CheckpointError(f"the checkpoint {folder} has a manifest that cannot be read: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(f"the checkpoint {folder} has a manifest of an unknown format")
    if manifest.pop("sha256", None) != _digest(manifest):
        raise CheckpointError(f"the checkpoint {folder} has a manifest that was altered")
    return manifest


def _looks_whole(folder: Path) -> bool:
    """Whether the manifest is valid and every file has its size; checksums take too long to verify each time."""
    try:
        files = _read_manifest(folder)["files"]
        return all((folder / name).stat().st_size == recorded["bytes"] for name, recorded in files.items())
    except not_the_scripts(CheckpointError, OSError):
        return False


def _check_file(folder: Path, name: str, recorded: Mapping[str, Any]) -> None:
    """Compare a file's size and checksum with the recorded ones."""
    path = folder / name
    try:
        size = path.stat().st_size
        if size != recorded["bytes"]:
            raise CheckpointError(
                f"the checkpoint {folder} is damaged: {name} has {size} bytes instead of {recorded['bytes']}"
            )
        if _checksum(path) != recorded["sha256"]:
            raise CheckpointError(f"the checkpoint {folder} is damaged: {name} has another checksum")
    except not_the_scripts(OSError) as error:
        raise CheckpointError(f"the checkpoint {folder} is damaged: {name}: {error.strerror}") from None


def _claims_best(folder: Path) -> bool:
    """Whether a checkpoint was the best when it was written; its files are not checked."""
    try:
        return bool(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["best"])
    except not_the_scripts(OSError, ValueError, KeyError, TypeError):
        return False


def _checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest without its own checksum."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sync(path: Path) -> None:
    """Make a file or folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
