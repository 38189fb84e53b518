"""Registered states under a supervisor: kept when it is time, put back in the next process, to the bit."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from holdwater.errors import ConfigError, RunFolderError
from holdwater.observe.agent import session as sessions
from holdwater.process.restart_context import RestartContext
from holdwater.resume import resumable
from holdwater.resume.resumable import Resumption, steps
from holdwater.store import lock
from holdwater.store.checkpoints import CheckpointFolder
from holdwater.supervise.budget_callback import Ending
from tests.stand_in_session import EndsAt, Session

GO_ON, STOP = Ending(recycled=True, reason="memory is short"), Ending(recycled=False, reason="memory is short")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Signals are handled as in a program that was started by hand; as before afterwards."""
    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_DFL),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class LeftError(BaseException):
    """In place of the end of the process."""


def leave(*_: object) -> None:
    """End the process."""
    raise LeftError


class Process:
    """One process of a supervised run: a script that draws a number in each step and adds it to its progress."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, ladder: Any = None, **settings: Any) -> None:
        """Begin.

        Args:
            folder: Of the run, and what lies in memory.
            monkeypatch: Gives it a session of its own.
            ladder: Decides its end; None lets it go on to its last step.
            settings: As configured.
        """
        for name in ("run", "memory"):
            (folder / name).mkdir(exist_ok=True)
        restart = RestartContext(
            number=0,
            channel_path=str(folder / "channel"),
            in_memory=str(folder / "memory"),
            out=str(folder / "run"),
            settings=settings,
        )
        self.out, self.session, self.progress = restart.out, Session(), {"sum": 0.0}
        monkeypatch.setattr(lock, "PATIENCE", 0.0)
        monkeypatch.setattr(sessions, "current", lambda: self.session)
        monkeypatch.setattr(resumable, "BudgetCallback", lambda _: ladder or EndsAt(0, None))
        monkeypatch.setattr(resumable, "leave_at_once", leave)
        monkeypatch.setattr(Resumption, "_watch_variables", lambda _: None)  # those of a test are no script's
        self.resumption = Resumption(restart)
        monkeypatch.setattr(resumable, "_resumption", self.resumption)

    def train(self, total: int, *, each: Callable[[int], object] = lambda _: None) -> list[int]:
        """Train to a step; return the steps that were made, and -1 for a replacement, or -75 for a stop.

        Args:
            total: Steps of the run.
            each: Called in each step.
        """
        self.resumption.register("progress", self.progress)
        made = []
        try:
            for step in steps(total):
                self.progress["sum"] += float(torch.rand(()))
                made.append(step)
                each(step)
        except LeftError:
            with lock.hold(Path(self.out)):  # the next process can have it at once
                return [*made, -1]
        except SystemExit as stopped:
            made.append(-int(stopped.code or 0))
        self.resumption._held.close()
        return made


def kept(folder: Path) -> list[int]:
    """The steps whose checkpoints lie there."""
    return sorted(int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*"))


@pytest.fixture
def straight() -> float:
    """The sum of ten numbers that nobody interrupts."""
    torch.manual_seed(7)
    return sum(float(torch.rand(())) for _ in range(10))


class TestCheckpoints:
    """When states are kept, and where."""

    def test_at_the_beginning_when_due_and_at_the_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On disk; in memory nothing is needed."""
        made = Process(tmp_path, monkeypatch, EndsAt(0, None, every=4), keep_checkpoints=9).train(10)

        assert made == list(range(10))
        assert kept(tmp_path / "run") == [0, 4, 8, 10]
        assert kept(tmp_path / "memory") == []

    def test_so_many_as_configured(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The newest; three where nothing was said."""
        for number, (settings, expected) in enumerate((({}, [6, 8, 10]), ({"keep_checkpoints": 1}, [10]))):
            folder = tmp_path / str(number)
            folder.mkdir()
            Process(folder, monkeypatch, EndsAt(0, None, every=2), **settings).train(10)

            assert kept(folder / "run") == expected

    def test_after_what_the_script_has_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A kill would lose what waits in a buffer, and the next process writes only what comes after."""
        log = tmp_path / "log"
        seen = []

        with log.open("w", encoding="utf-8") as file:

            def note(step: int) -> None:
                seen.append(log.read_text(encoding="utf-8"))
                file.write(f"{step} ")

            Process(tmp_path, monkeypatch, EndsAt(0, None, every=2)).train(5, each=note)

        assert seen == ["", "", "0 1 ", "0 1 ", "0 1 2 3 "]

    def test_of_the_run_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another process that trains in the folder is not disturbed."""
        process = Process(tmp_path, monkeypatch)

        with lock.hold(tmp_path / "run"), pytest.raises(RunFolderError, match="another process trains"):
            process.train(10)

        assert kept(tmp_path / "run") == []


class TestAnotherProcess:
    """Goes on where this one was ended."""

    def test_goes_on_from_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: float) -> None:
        """Exactly: states and random numbers; the supervisor is told why, and where it went on."""
        torch.manual_seed(7)
        first = Process(tmp_path, monkeypatch, EndsAt(6, GO_ON))
        made = first.train(10)
        places = (kept(tmp_path / "run"), kept(tmp_path / "memory"))
        torch.manual_seed(99)
        second = Process(tmp_path, monkeypatch)

        rest = second.train(10)

        assert (made, rest) == ([0, 1, 2, 3, 4, 5, -1], [6, 7, 8, 9])
        assert places == ([0], [6])
        assert second.progress["sum"] == straight
        assert (tmp_path / "reason").read_text() == "memory is short"
        assert (first.session.channel["in_use"], first.session.budget_callback) == (102, None)
        assert [one.session.channel["goes_on_from"] for one in (first, second)] == [0, 6]
        assert first.session.counted == ["holdwater.step"] * 6
        assert first.session.channel["resumable"] == 1

    def test_needs_no_second_checkpoint_of_the_same_step(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One was due on disk."""
        Process(tmp_path, monkeypatch, EndsAt(6, GO_ON, every=3)).train(10)

        assert (kept(tmp_path / "run"), kept(tmp_path / "memory")) == ([0, 3, 6], [])

    def test_is_not_started_for_no_more_steps(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The last step is the last."""
        assert Process(tmp_path, monkeypatch, EndsAt(10, GO_ON)).train(10)[-1] == 9

    def test_goes_on_from_disk_where_memory_is_older(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And the other way round: the newest of both."""
        Process(tmp_path, monkeypatch, EndsAt(4, GO_ON)).train(10)
        Process(tmp_path, monkeypatch, EndsAt(7, STOP)).train(10)

        assert (kept(tmp_path / "memory"), kept(tmp_path / "run")) == ([4], [0, 7])
        assert Process(tmp_path, monkeypatch).train(10) == [7, 8, 9]

    def test_has_a_checkpoint_on_disk_where_memory_is_full(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The state is not lost."""
        process = Process(tmp_path, monkeypatch, EndsAt(6, GO_ON))
        (tmp_path / "memory").rmdir()
        (tmp_path / "memory").write_text("no folder")

        assert process.train(10)[-1] == -1
        assert kept(tmp_path / "run") == [0, 6]

    def test_needs_the_same_states(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that was not there before cannot be put back."""
        Process(tmp_path, monkeypatch, EndsAt(6, GO_ON)).train(10)
        second = Process(tmp_path, monkeypatch)
        second.resumption.register("order", torch.Generator())

        with pytest.raises(
            ConfigError, match="holds the states of progress, but this script registers order, progress"
        ):
            second.train(10)


class TestStop:
    """The run stops, and can be gone on with."""

    def test_where_another_process_would_not_help(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With a checkpoint on disk, exit code 75 and the way to go on."""
        made = Process(tmp_path, monkeypatch, EndsAt(6, STOP)).train(10)

        assert made == [0, 1, 2, 3, 4, 5, -75]
        assert kept(tmp_path / "run") == [0, 6]
        words = f"stopped at step 6: memory is short; continue with --resume --out {tmp_path / 'run'}"
        assert words in capsys.readouterr().err

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_after_the_step_in_which_a_signal_came(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
    ) -> None:
        """Sent to this process in its third step."""
        process = Process(tmp_path, monkeypatch)

        made = process.train(10, each=lambda step: signal.raise_signal(number) if step == 2 else None)

        assert made == [0, 1, 2, -75]
        assert kept(tmp_path / "run") == [0, 3]

    def test_leaves_the_handlers_of_the_script_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It knows best what its signals mean."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

        Process(tmp_path, monkeypatch).train(1)

        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_a_version_of_python_whose_bytecode_was_not_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script goes on in its one process, and the reason is said."""
    monkeypatch.setattr(resumable, "why_unknown", lambda: "this Python is too new")

    made = Process(tmp_path, monkeypatch, EndsAt(6, STOP)).train(10)

    assert made == list(range(10))
    assert kept(tmp_path / "run") == []
    assert "is not replaced by a fresh one: this Python is too new" in capsys.readouterr().err


class TestRegister:
    """Mistakes are said before the loop begins."""

    def test_a_name_is_for_one_object(self) -> None:
        """And there is one."""
        resumption = Resumption(None)
        resumption.register("model", {})

        for name in ("model", ""):
            with pytest.raises(ConfigError, match="the name is taken"):
                resumption.register(name, {})

    def test_comes_before_the_loop(self) -> None:
        """What was stored is put back when it begins."""
        resumption = Resumption(None)

        assert resumption.begin() == 0
        with pytest.raises(ConfigError, match="comes after the loop began"):
            resumption.register("model", {})

    def test_needs_a_state(self) -> None:
        """Before anything is trained."""
        with pytest.raises(ConfigError, match="has no state_dict"):
            Resumption(None).register("model", object())


def test_is_a_plain_loop_without_a_supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resumable, "_resumption", Resumption(None))

    assert list(steps(5)) == [0, 1, 2, 3, 4]
    assert not list(tmp_path.iterdir())
    assert CheckpointFolder(tmp_path).newest(pytest.fail) is None
