"""When a session counts objects without being asked."""

import json
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


def answers_after_first_count(folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> list[int]:
    """The questions that were answered, in order, if one is asked while the first count is in progress."""
    create_channel(folder / "channel")
    monkeypatch.setattr(sessions, "named_processes", dict[str, str])
    session = Session(folder)
    while not session._counts.busy:
        session.steps += 1
        session.read()
    (folder / f"{kind}-1").write_text("{}", encoding="utf-8")
    session.channel.put("asked", 1)
    while session._counts.counted_at == 0 or session._counts.busy:
        session.steps += 1
        session.read()
    files = sorted(folder.glob("answer-*.json"), key=lambda file: int(file.stem.split("-")[1]))
    return [json.loads(file.read_text(encoding="utf-8"))["number"] for file in files]


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

    @pytest.mark.parametrize("kind", ["count", "experiment"])
    def test_answers_a_question_that_comes_meanwhile(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        """A second count right after it would show nothing more."""
        assert answers_after_first_count(tmp_path, monkeypatch, kind) == [1]

    def test_does_not_answer_for_a_window(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The window opens after it."""
        assert answers_after_first_count(tmp_path, monkeypatch, "window") == [0]

    def test_just_made_answers_a_question_that_did_not_know_of_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing can have grown since; it is asked again when the run is longer."""
        answers_after_first_count(tmp_path, monkeypatch, "count")
        session = Session(tmp_path)
        session._counts._ended = session._counts._clock()
        (tmp_path / "count-2").touch()
        session.channel.put("asked", 2)
        session.read()

        assert (session.channel.get("answered"), session._counts.busy) == (2, False)
