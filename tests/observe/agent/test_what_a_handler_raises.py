"""What a script's signal handler raises while a hook runs reaches the script, at every place of every hook."""

import gc
import json
import os
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from holdwater.actions.levers import Levers
from holdwater.actions.perform import perform
from holdwater.attribution import capture, census, inventory, measured, roots
from holdwater.attribution.capture import Capture
from holdwater.budget import InUse
from holdwater.frameworks.loader_workers import LoaderWorkers
from holdwater.frameworks.torch_clock import Loaders
from holdwater.observe.agent import window
from holdwater.observe.agent.harmless import harmless
from holdwater.observe.agent.processes import native_threads
from holdwater.observe.agent.session import Session
from holdwater.observe.agent.shared_memory import watch_shared_memory
from holdwater.observe.agent.worker import WorkerAgent
from holdwater.policy.decision import Decision
from holdwater.probes.cgroup import Cgroup
from holdwater.probes.children import private_resident
from holdwater.probes.machine import read_machine
from holdwater.probes.mappings import file_ranges, read_regions
from holdwater.probes.statm import read_resident
from holdwater.process.channel import create_channel
from holdwater.process.restart_context import RestartContext
from holdwater.supervise.budget_callback import BudgetCallback
from holdwater.units import Step
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

    for module in (census, measured):
        monkeypatch.setattr(module, "all_objects", few)
    monkeypatch.setattr(inventory, "gc", types.SimpleNamespace(get_objects=few))
    nobody = types.SimpleNamespace(naming=None)
    paths = types.SimpleNamespace(find=lambda _: nobody)  # to find who holds a tensor takes long
    monkeypatch.setattr(inventory, "Paths", lambda _: paths)
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
        assert places > 110
        assert session.channel.get("given" if kind == "inventory" else "answered") > 0


class TestWorker:
    """A batch of a loader's worker, or a message of another child."""

    def test_counts(self, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each question is a new one."""
        kept: list[Any] = [[]]
        monkeypatch.setattr(roots, "_names", lambda _: [(("kept", ""), kept, None)])
        agents = [WorkerAgent(session)]

        def ask() -> None:
            """Ask, and begin anew with an agent that has given up."""
            if agents[0]._counts is None:
                agents[0] = WorkerAgent(session)
                session.channel.put("workers_asked", session.channel.get("workers_asked") + 1)
            agents[0]._next = 0

        def tick() -> None:
            """A batch was made."""
            agents[0].tick()

        places, lost = lost_by(tick, prepare=ask)

        assert lost == []
        assert places > 40


class TestLoaders:
    """What loaders give out, and their workers."""

    def test_are_counted(self, session: Session) -> None:
        """Datasets, rows and shapes."""
        loaders = Loaders(session)
        kept = types.SimpleNamespace(dataset=torch.utils.data.TensorDataset(torch.ones(10)))

        def all_hooks() -> None:
            """As torch calls them."""
            loader = types.SimpleNamespace(dataset=[torch.ones(2)] * 10)
            iterator = types.SimpleNamespace(_dataset=kept.dataset)
            for hook, words in (
                (loaders._take_up, (Loader(loader.dataset),)),
                (loaders._take_up, (kept,)),
                (loaders._note_length, (kept.dataset, 10)),
                (loaders._note, (iterator, [0, 1, 12])),
                (loaders._note_shape, ([torch.ones(len(loaders._shapes)), 1],)),
            ):
                harmless(hook)(*words)
            loaders.datasets()

        places, lost = lost_by(all_hooks, prepare=loaders._datasets.clear)

        assert lost == []
        assert places > 30

    def test_and_their_workers_are_read(self, tmp_path: Path) -> None:
        """One that lives, and one that has ended."""
        workers, iterator = LoaderWorkers(tmp_path), Loader([])
        iterator._workers = [types.SimpleNamespace(pid=pid) for pid in (os.getpid(), 1 << 22)]
        workers._iterators.add(iterator)

        places, lost = lost_by(lambda: (workers.growth(), workers.replace(), workers.turn()))

        assert lost == []
        assert places > 20


class Loader:
    """A loader that can be referenced weakly."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self._workers: list[Any] = []


class TestOthers:
    """Other code of ours that a script calls, or that runs beside it."""

    def test_names_of_shared_memory(self, tmp_path: Path) -> None:
        """They are noted when it is created."""

        class SharedMemory:
            """Stands for the standard library's."""

            def __init__(self, *_: Any, **__: Any) -> None:
                self._name = "/psm_1"

        module: Any = types.SimpleNamespace(SharedMemory=SharedMemory)
        watch_shared_memory(tmp_path, module)

        places, lost = lost_by(lambda: module.SharedMemory(create=True))

        assert lost == []
        assert places > 4

    @pytest.mark.parametrize("action", ["collect", "clear_caches", "trim", "synchronise", "stop"])
    def test_actions(self, action: Any) -> None:
        """Of the guard, and of a budget callback."""
        decision = Decision(action=action, reason="memory is short", step=Step(1))
        levers = Levers(checkpoint=lambda: None)

        _, lost = lost_by(lambda: perform(decision, levers, measure=read_resident, elapsed=time.monotonic))

        assert lost == []

    def test_a_budget_callback(self, tmp_path: Path) -> None:
        """Memory is short, and changes at each step."""
        (tmp_path / "channel").touch()
        path, settings = str(tmp_path / "channel"), {"limit": 10**6}
        restart = RestartContext(number=0, channel_path=path, in_memory="", out="", settings=settings)
        callback = BudgetCallback(restart, resumable=False)

        def change() -> None:
            """Make it judge again."""
            callback._judged, callback._held = 0.0, InUse()

        places, lost = lost_by(lambda: callback.end(3), prepare=change)

        assert lost == []
        assert places > 40

    def test_what_is_read_of_the_machine(self) -> None:
        """Before a guarded loop, and when objects are counted."""

        def read() -> None:
            """All of it."""
            read_machine()
            Cgroup.of_this_process()
            file_ranges()
            read_regions(os.getpid())
            private_resident(os.getpid())
            native_threads()

        places, lost = lost_by(read)

        assert lost == []
        assert places > 60
