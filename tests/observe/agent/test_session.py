"""When a session counts objects without being asked."""

from pathlib import Path

import pytest

from holdwater.observe.agent import session as sessions
from holdwater.observe.agent.session import FIRST_CENSUS, Session
from holdwater.process.channel import create_channel


def counts_of(folder: Path, monkeypatch: pytest.MonkeyPatch, processes: dict[str, str]) -> int:
    """The step of the newest count after some looks; 0 where none was made."""
    create_channel(folder / "channel")
    monkeypatch.setattr(sessions, "named_processes", lambda: processes)
    session = Session(folder)
    for _ in range(3 * FIRST_CENSUS):
        session.steps += 1
        session.read()
    return session._counts.counted_at


class TestFirstCount:
    """So that there is something to compare with when memory grows."""

    def test_is_made_unasked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A few steps after the start."""
        assert counts_of(tmp_path, monkeypatch, {}) >= FIRST_CENSUS

    def test_waits_for_a_question_where_pages_are_shared(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A loader's forked workers have most pages in common with this process until one of them writes."""
        assert counts_of(tmp_path, monkeypatch, {"4242": "worker"}) == 0
