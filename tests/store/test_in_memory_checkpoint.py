"""Checkpoints in memory: held by one run, rescued and swept when that is dead."""

import errno
from pathlib import Path

import pytest

from holdwater.store.checkpoints import CheckpointFolder
from holdwater.store.in_memory_checkpoint import InMemoryFolder


def write(folder: CheckpointFolder, step: int) -> None:
    """A small checkpoint."""

    def fill(path: Path) -> None:
        path.write_text("whole")

    folder.write(step, {"a.txt": fill}, {}, best=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the folders are made."""
    (tmp_path / "memory").mkdir()
    return tmp_path / "memory"


def run_folder(tmp_path: Path, name: str) -> Path:
    """A run that has a folder of checkpoints."""
    (tmp_path / name / "checkpoints").mkdir(parents=True)
    return tmp_path / name


def test_is_removed_when_the_run_has_ended(tmp_path: Path, root: Path) -> None:
    """Nothing stays."""
    in_memory = InMemoryFolder(run_folder(tmp_path, "run"), root=root)
    write(in_memory.checkpoints, 3)

    in_memory.remove()

    assert not list(root.iterdir())


def test_what_a_dead_run_has_left_is_rescued_and_swept(tmp_path: Path, root: Path) -> None:
    """By the next start of any run: its newest checkpoint goes to its own folder."""
    dead = InMemoryFolder(run_folder(tmp_path, "dead"), root=root)
    write(dead.checkpoints, 7)
    assert dead._lock is not None
    dead._lock.close()

    InMemoryFolder(run_folder(tmp_path, "next"), root=root).remove()

    assert not dead.path.exists()
    found = CheckpointFolder(tmp_path / "dead" / "checkpoints").newest(print)
    assert found is not None
    assert found.step == 7


def test_a_living_run_is_left_alone(tmp_path: Path, root: Path) -> None:
    """By another run, and by a second one in the same folder."""
    out = run_folder(tmp_path, "run")
    living = InMemoryFolder(out, root=root)
    write(living.checkpoints, 5)

    InMemoryFolder(run_folder(tmp_path, "other"), root=root).remove()
    second = InMemoryFolder(out, root=root)
    second.empty()
    second.remove()

    found = living.checkpoints.newest(print)
    assert found is not None
    assert found.step == 5
    living.remove()


def test_without_locks_no_other_folder_is_swept(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows whether its run lives."""

    def without_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", without_locks)
    living = InMemoryFolder(run_folder(tmp_path, "run"), root=root)
    write(living.checkpoints, 5)

    InMemoryFolder(run_folder(tmp_path, "other"), root=root).remove()

    assert living.checkpoints.newest(print) is not None
    living.remove()


def test_a_folder_that_is_there_already_is_not_removed(tmp_path: Path, root: Path) -> None:
    """Its checkpoints are what a run continues from."""
    out = run_folder(tmp_path, "run")
    first = InMemoryFolder(out, root=root)
    write(first.checkpoints, 5)
    assert first._lock is not None
    first._lock.close()

    second = InMemoryFolder(out, root=root)

    found = second.checkpoints.newest(print)
    second.remove()
    assert found is not None
    assert found.step == 5
