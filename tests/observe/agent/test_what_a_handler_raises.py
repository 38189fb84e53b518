"""What a script's signal handler raises while a hook runs reaches the script, at every place of every hook."""

import gc
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from holdwater.attribution import capture, census, gains, inventory
from holdwater.attribution.capture import Capture
from holdwater.attribution.tracing import LineTrace
from holdwater.frameworks.loader_workers import LoaderWorkers
from holdwater.frameworks.torch_clock import Loaders
from holdwater.observe.agent import window
from holdwater.observe.agent.harmless import harmless
from holdwater.observe.agent.session import Session
from holdwater.observe.agent.shared_memory import watch_shared_memory
from holdwater.observe.agent.worker import WorkerAgent
from holdwater.process.channel import Channel, create_channel
from tests.raising_handler import lost_by

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # a file that was opened just before


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """One in whose process there are few objects."""
    create_channel(tmp_path / "channel")
    kept: list[Any] = [[], {}, {"a": [1]}, set(), bytearray(2000), "text" * 1000, torch.ones(3), Path()]

    def few() -> list[Any]:
        """Stands for all objects: a list grows."""
        kept[0].append(bytes(2000))
        return [*kept, kept, kept[0]]

    for module in (census, gains):
        monkeypatch.setattr(module, "all_objects", few)
    monkeypatch.setattr(inventory, "gc", types.SimpleNamespace(get_objects=few))
    monkeypatch.setattr(inventory, "MOST_TENSORS", 0)  # to find who holds them takes long
    return Session(tmp_path, counts=False)


def make_due(session: Session) -> None:
    """Make all readings due."""
    session._due_at = 0.0
    for pace, _ in session._readings._dear:
        pace.due = 0.0


class Recorder:
    """Stands for memray's, which no profile function survives."""

    on = 0

    def __init__(self, file: Path) -> None:
        """Record nothing into a file."""

    def __enter__(self) -> None:
        """Begin."""
        Recorder.on += 1

    def __exit__(self, *_: object) -> None:
        """End; a second time changes nothing."""
        Recorder.on = 0


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Recorder]]:
    """What a window records with; and it does not see the profile function of the test."""

    def load(self: Capture) -> None:
        """In place of memray."""
        self._memray = types.SimpleNamespace(Tracker=Recorder, _memray=types.SimpleNamespace())

    seen = types.SimpleNamespace(getprofile=lambda: None, modules=sys.modules)
    monkeypatch.setattr(capture, "sys", seen)
    monkeypatch.setattr(window, "profiler_in_use", lambda: None)
    monkeypatch.setattr(Capture, "load", load)
    Recorder.on = 0
    yield Recorder
    sys.settrace(None)


class TestSession:
    """A step of an observed script."""

    def test_reads(self, session: Session) -> None:
        """No question is open."""
        places, lost = lost_by(session.step, prepare=lambda: make_due(session))

        assert lost == []
        assert places > 40

    @pytest.mark.parametrize("kind", ["count", "experiment", "window", "inventory"])
    def test_answers(self, kind: str, session: Session, recorder: type[Recorder]) -> None:
        """Afterwards nothing is recorded, traced, or at rest any more."""
        asked = 0

        def ask() -> None:
            """Ask the next question, unless the one before is being answered."""
            nonlocal asked
            make_due(session)
            if session._window is not None or session._counts.busy:
                return
            assert (recorder.on, sys.gettrace(), gc.isenabled()) == (0, None, True)
            asked += 1
            request = json.dumps({"steps": 6} if kind == "window" else {})
            (session.folder / f"{kind}-{asked}").write_text(request, encoding="utf-8")
            session.channel.put("wanted" if kind == "inventory" else "asked", asked)

        places, lost = lost_by(session.step, prepare=ask)

        assert lost == []
        assert places > 130
        assert session.channel.get("given" if kind == "inventory" else "answered") > 0
