"""How often a run is looked at: its processor time is the script's on a small machine."""

import math
import time
from types import SimpleNamespace
from typing import Any

import pytest

from holdwater.observe.observed_run import EAGER, ObservedRun


@pytest.fixture
def observed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run that has just begun, as much of it as is needed; its watcher counts its turns."""
    run: Any = object.__new__(ObservedRun)
    turns: list[None] = []
    run.watcher = SimpleNamespace(
        turn=lambda: turns.append(None), turns=turns, questions=SimpleNamespace(expecting=False)
    )
    run.channel = SimpleNamespace(state="running")
    run._news = SimpleNamespace(tell=lambda *_: None)
    run._last = SimpleNamespace(see=lambda: None)
    run._began, run._looked_at = time.perf_counter(), -math.inf
    monkeypatch.setattr(ObservedRun, "_write", lambda _: None)
    return run


class TestLook:
    """A turn reads and judges; waiting for an answer takes a glance at the channel."""

    def test_takes_a_turn_each_time(self, observed: Any) -> None:
        """The pauses between are long enough."""
        observed.look()
        observed.look()

        assert len(observed.watcher.turns) == 2

    def test_waits_for_an_answer_without_turns(self, observed: Any) -> None:
        """They would come two hundred times a second; the turn follows when the answer is there."""
        observed.look()
        observed.watcher.questions.expecting = True
        pause = observed.pause()
        observed.look()
        waited = len(observed.watcher.turns)
        observed.watcher.questions.expecting = False
        observed.look()

        assert (pause, waited, len(observed.watcher.turns)) == (EAGER, 1, 2)

    def test_takes_its_usual_turns_meanwhile(self, observed: Any) -> None:
        """Memory is read however long the answer takes."""
        observed.watcher.questions.expecting = True
        observed.look()
        observed._looked_at -= observed._spacing
        observed.look()

        assert len(observed.watcher.turns) == 2
