"""Find the folder of a run: a new one, or that of a run to resume."""

import os
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from holdwater.errors import RunFolderError
from holdwater.store.checkpoints import MANIFEST
from holdwater.store.lock import LOCK
from holdwater.store.schema import database_path

RUNS = Path("runs")
PASSED_OVER = "passed-over.jsonl"
"""In the folder of a run: the examples that it left out, since their pictures cannot be read."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of a run, and the checkpoint that it resumes from."""

    out: Path
    checkpoint: Path | None = None
    """The checkpoint to resume from; None takes the newest complete one, if `resume`."""
    resume: bool = False
    unnamed: bool = False
    """Whether the folder's name was chosen automatically."""

    @property
    def settings(self) -> Path | None:
        """The configuration file of the run to resume; None for a new run."""
        source = self.out if self.checkpoint is None else self.checkpoint.parent.parent
        path = source / "config.yaml"
        return path if self.resume and path.exists() else None

    @property
    def is_branch(self) -> bool:
        """Whether the run begins from a checkpoint of another run."""
        return self.checkpoint is not None and self.checkpoint.parent.parent.resolve() != self.out.resolve()

    def forget(self) -> None:
        """Remove an automatically named folder, if a refused run left no more than its plan in it."""
        if self.unnamed and {path.name for path in self.out.glob("*")} <= {LOCK, "plan.json", PASSED_OVER}:
            shutil.rmtree(self.out, ignore_errors=True)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.out / "checkpoints"


def find_run_folder(out: Path | None, resume: str | None) -> RunFolder:
    """Choose the folder of a run.

    Args:
        out: The value of `--out`; None chooses a name.
        resume: None for a new run; empty for `--resume` alone; else the folder of a run or a checkpoint.

    Returns:
        The folder, which may not exist yet.

    Raises:
        RunFolderError: A new run would overwrite an old one, or there is nothing to resume, or the folder
            cannot be written.
    """
    if resume is None:
        chosen = RUNS / f"{datetime.now().astimezone():%Y-%m-%d-%H%M%S}-train"
        folder = RunFolder(out or chosen, unnamed=out is None)
        if holds_run(folder.out):
            raise RunFolderError(
                f"--out {folder.out} holds a run already; add --resume to continue it, or name another folder"
            )
    elif resume:
        folder = _named(Path(resume).expanduser(), out)
    else:
        folder = RunFolder(out or _newest_run(), resume=True)
    _make(folder.out)
    return folder


def holds_run(folder: Path) -> bool:
    """Whether a folder holds a run."""
    return database_path(folder).exists() or (folder / "checkpoints").exists()


def _named(path: Path, out: Path | None) -> RunFolder:
    """The run or checkpoint that `--resume PATH` names."""
    if (path / MANIFEST).exists():
        _refuse_a_branch(path, out)
        folder = RunFolder(out or path.parent.parent, checkpoint=path, resume=True)
        if folder.is_branch and holds_run(folder.out):
            raise RunFolderError(
                f"--out {out} holds a run already; `--resume --out {out}` continues it, and a branch of {path} "
                "needs a new folder"
            )
        return folder
    if not holds_run(path):
        raise RunFolderError(
            f"--resume {path} is neither the folder of a run nor a checkpoint; name one, or leave the path out"
        )
    if out is not None and out.resolve() != path.resolve():
        raise RunFolderError(
            f"--resume {path} and --out {out} are different runs; name a checkpoint of {path} to branch off from"
        )
    return RunFolder(path, resume=True)


def _refuse_a_branch(checkpoint: Path, out: Path | None) -> None:
    """Two branches of a run in one folder would overwrite one another."""
    newer = [path.name for path in checkpoint.parent.glob("step-*") if path.name > checkpoint.name]
    if newer and (out is None or out.resolve() == checkpoint.parent.parent.resolve()):
        raise RunFolderError(
            f"--resume {checkpoint} is older than {max(newer)} in the same folder, and a run has one history; "
            "add --out FOLDER to branch off into a new run"
        )


def _newest_run() -> Path:
    """The most recently used run in `runs/`."""
    runs = [folder for folder in RUNS.glob("*") if holds_run(folder)] if RUNS.is_dir() else []
    if not runs:
        raise RunFolderError(f"--resume finds no run in {RUNS.resolve()}; name one with --out or --resume PATH")
    return max(runs, key=lambda folder: folder.stat().st_mtime)


def _make(folder: Path) -> None:
    """Make the folder, and try whether it can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".holdwater-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise RunFolderError(
            f"the run folder {folder} cannot be written ({error.strerror}); name another with --out"
        ) from error
