"""What a script's signal handler raises while its state is kept or restored reaches the script, at every place."""

import os
from pathlib import Path

import pytest

from holdwater.observe.agent import session as sessions
from holdwater.resume import stored_states
from holdwater.store.checkpoints import CheckpointFolder
from tests.raising_handler import lost_by
from tests.resume.test_resumable import Process
from tests.stand_in_session import EndsAt

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # a file that was opened just before


def test_a_checkpoint_is_written_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is complete, or the one before is the newest."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # it takes most of the time
    folder, step = CheckpointFolder(tmp_path, keep=2), 0

    def keep() -> None:
        """Write the next one, and read the newest."""
        nonlocal step
        step += 1
        folder.write(step, {"state": lambda path: path.write_bytes(b"state")}, {"a": 1}, best=False)
        folder.newest(print)

    places, lost = lost_by(keep)

    assert lost == []
    assert places > 100
    newest = folder.newest(print)
    assert newest is not None
    assert newest.step == step


def test_a_resumable_step_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a checkpoint every other step."""
    process = Process(tmp_path, monkeypatch, EndsAt(0, None, every=2))
    monkeypatch.setattr(stored_states, "save", lambda *_, **__: None)
    process.resumption.register("progress", process.progress)
    assert sessions.current() is not None
    process.resumption.begin()
    step = 0

    def end() -> None:
        """End the next step."""
        nonlocal step
        step += 1
        process.resumption.end_step(step, last=False)

    places, lost = lost_by(end)

    process.resumption._held.close()
    assert lost == []
    assert places > 10
