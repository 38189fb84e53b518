"""The Transformers Trainer's checkpoints: the newest whole one is gone on from."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from holdwater.process.restart_context import RestartContext
from holdwater.supervise.budget_callback import Ending
from tests.stand_in_session import EndsAt, Session


class LeftError(BaseException):
    """In place of the end of a process."""


NAME = "holdwater.frameworks.transformers.recycle"


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with a stand-in for Transformers where that is not installed."""
    if importlib.util.find_spec("transformers") is None:
        stand_in = ModuleType("transformers")
        stand_in.TrainerCallback = object  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "transformers", stand_in)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    return importlib.import_module(NAME)


def write(folder: Path, step: int, state: str) -> None:
    """A checkpoint as the Trainer writes one."""
    place = folder / f"checkpoint-{step}"
    place.mkdir()
    (place / "rng_state.pth").touch()
    (place / "trainer_state.json").write_text(state)


def test_finds_the_newest_whole_checkpoint(trainer: Any, tmp_path: Path) -> None:
    """By number and not by name; one whose writing was cut short is passed over."""
    write(tmp_path, 90, "{}")
    write(tmp_path, 100, "{}")
    write(tmp_path, 110, '{"cut')
    (tmp_path / "checkpoint-120").mkdir()

    assert trainer.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-100")
    assert trainer.last_checkpoint(tmp_path / "nothing") is None


@pytest.fixture
def session(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session of this process."""
    session = Session()
    monkeypatch.setattr(trainer.sessions, "current", lambda: session)
    return session


@pytest.fixture
def supervised(trainer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A callback in a process that a supervisor has started, and that is recycled, or else stopped, at step 7."""
    restart = RestartContext(number=1, channel_path=str(tmp_path / "channel"), in_memory="", out="")
    monkeypatch.setattr(trainer.RestartContext, "taken", lambda: restart)

    def make(*, recycled: bool) -> Any:
        ending = Ending(recycled, "memory is short")
        monkeypatch.setattr(trainer, "BudgetCallback", lambda _: EndsAt(7, ending))
        return trainer.RecycleCallback()

    return make


def train(callback: Any, steps: int, *, most: int = 10) -> list[int]:
    """Call a callback as the Trainer does; return the steps after which it asked for a checkpoint, and got it."""
    saved = []
    state = SimpleNamespace(global_step=0, max_steps=most)
    callback.on_train_begin(None, state, None)
    for step in range(1, steps + 1):
        state.global_step = step
        control = SimpleNamespace(should_save=False)
        callback.on_step_end(None, state, control)
        if control.should_save:
            saved.append(step)
            callback.on_save(None, state, control)
    return saved


def test_does_nothing_without_a_supervisor(trainer: Any, session: Session) -> None:
    """A plain run under `holdwater run` stays plain: nothing is said, counted or saved, and a save ends nothing."""
    callback = trainer.RecycleCallback()

    assert train(callback, 10) == []
    callback.on_save(None, SimpleNamespace(global_step=10), None)
    assert (session.channel, session.counted, session.steps) == ({}, [], 0)
    assert session.budget_callback == "the script's own"


class TestUnderASupervisor:
    """A checkpoint is asked for, and the process ends after it."""

    def test_says_from_which_step_it_goes_on(self, session: Session, supervised: Callable[..., Any]) -> None:
        """And looks after memory itself."""
        callback = supervised(recycled=True)

        callback.on_train_begin(None, SimpleNamespace(global_step=40, max_steps=50), None)

        assert session.channel == {"resumable": 1, "steps": 40, "goes_on_from": 40}
        assert (session.steps, session.source, session.budget_callback) == (40, "holdwater.step", None)
        assert callback._recycling.looks_after is session

    def test_another_process_goes_on_after_the_checkpoint(
        self,
        trainer: Any,
        session: Session,
        supervised: Callable[..., Any],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The supervisor is told why; the process is left at once, whatever the script would catch."""
        callback = supervised(recycled=True)
        left = []

        def leave(_restart: object, step: int, channel: object) -> None:
            """End the process."""
            left.append((step, channel))
            raise LeftError

        monkeypatch.setattr(trainer, "leave_at_once", leave)

        with pytest.raises(LeftError):
            train(callback, 10)

        assert left == [(7, session.channel)]
        assert (session.steps, len(session.counted), session.channel["in_use"]) == (7, 7, 102)
        assert (tmp_path / "reason").read_text() == "memory is short"

    def test_stops_where_another_process_would_not_help(
        self,
        session: Session,
        supervised: Callable[..., Any],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """With the exit code of a run that can be gone on with."""
        callback = supervised(recycled=False)

        with pytest.raises(SystemExit) as stopped:
            train(callback, 10)

        assert stopped.value.code == 75
        assert session.steps == 7
        assert "stopped at step 7: memory is short" in capsys.readouterr().err
        assert not (tmp_path / "reason").exists()

    def test_ends_nothing_at_the_last_step(self, session: Session, supervised: Callable[..., Any]) -> None:
        """There is nothing to go on with; a checkpoint of the Trainer's own ends nothing either."""
        callback = supervised(recycled=True)

        assert train(callback, 7, most=7) == []
        callback.on_save(None, SimpleNamespace(global_step=7), None)
        assert len(session.counted) == 7


RECYCLED = """
import sys, types
from types import SimpleNamespace
sys.modules.setdefault("transformers", types.SimpleNamespace(TrainerCallback=object))
import pathlib
import torch
from holdwater.frameworks.transformers.recycle import RecycleCallback

done = pathlib.Path("step")
state = SimpleNamespace(global_step=int(done.read_text()) if done.exists() else 0, max_steps=20)
callback, control = RecycleCallback(), SimpleNamespace(should_save=False)
try:
    callback.on_train_begin(None, state, control)
    while state.global_step < state.max_steps:
        state.global_step += 1
        callback.on_step_end(None, state, control)
        if control.should_save:
            done.write_text(str(state.global_step))
            callback.on_save(None, state, control)
except BaseException as error:
    print("caught", type(error).__name__, flush=True)
finally:
    print("finally", state.global_step, flush=True)
"""
"""A trainer that calls the callback as Transformers' does, in a script that catches whatever is raised."""


def test_a_process_that_is_replaced_runs_nothing_that_belongs_to_the_scripts_end(observe: Any) -> None:
    """Its `except` and `finally` are run once, by the last process."""
    done, verdict = observe(RECYCLED, "--supervise", "--reload-interval", "6", "--out", "run")

    assert (done.returncode, done.stdout, verdict["processes"]) == (0, "finally 20\n", 4), done.stderr
