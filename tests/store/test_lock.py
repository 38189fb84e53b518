"""A run's folder is held by one process at a time."""

import errno
from pathlib import Path

import pytest

from holdwater.errors import RunFolderError
from holdwater.store import lock
from holdwater.store.lock import hold


def test_another_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it has waited for one that is about to end; the message names the folder, and what to do."""
    monkeypatch.setattr(lock, "PATIENCE", 0.2)

    with (
        hold(tmp_path),
        pytest.raises(RunFolderError, match=f"another process trains in {tmp_path}"),
        hold(tmp_path),
    ):
        pytest.fail("both hold it")


def test_it_is_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the run has failed."""
    monkeypatch.setattr(lock, "PATIENCE", 0.0)

    with pytest.raises(ZeroDivisionError), hold(tmp_path):
        raise ZeroDivisionError
    with hold(tmp_path):
        assert (tmp_path / ".lock").exists()


def without_locks(*_: object) -> None:
    """`flock` of a file system without locks."""
    raise OSError(errno.ENOLCK, "No locks available")


def test_without_locks_it_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the folder is used."""
    monkeypatch.setattr("fcntl.flock", without_locks)
    said: list[str] = []

    with hold(tmp_path, said.append):
        assert said == [
            f"{tmp_path} is on a file system without locks: make sure that no other run uses this folder"
        ]
