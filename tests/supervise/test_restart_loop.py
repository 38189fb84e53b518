"""The restart loop: in which order a process is followed, what ends the loop, what is said about it."""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from holdwater.policy.restarts import Answer
from holdwater.process.spawn import ForkedProcess
from holdwater.supervise.restart_loop import RunHooks, keep_going

if TYPE_CHECKING:
    from holdwater.supervise.supervisor import Supervisor

REPLACED = Answer(again=True, cause="recycled", reason="replaced after step 5")
CRASHED = Answer(again=True, cause="crashed", reason="it ended with exit code 1")
DONE = Answer(again=False, cause="done", reason="it ended with exit code 0")


class Process:
    """Runs for one look."""

    def __init__(self) -> None:
        self._looks = 1

    def wait(self, seconds: float) -> bool:
        """Whether it still runs."""
        del seconds
        self._looks -= 1
        return self._looks >= 0


class Run(RunHooks):
    """A supervisor with its answers, and hooks; remembers what was called."""

    what = "script"

    def __init__(self, *answers: Answer) -> None:
        self.calls: list[str] = []
        self._answers = list(answers)
        self.error: Exception | None = None

    def start(self) -> Process:
        """Start a process."""
        self.calls.append("start")
        return Process()

    def turn(self) -> None:
        """Watch over it."""

    def answer(self) -> Answer:
        """What follows."""
        return self._answers.pop(0)

    def close(self) -> None:
        """End the server."""
        self.calls.append("close")

    def begin(self, process: ForkedProcess) -> None:
        """Follow a process."""
        del process
        self.calls.append("begin")

    def look(self) -> None:
        """Look at it."""
        self.calls.append("look")
        if self.error is not None:
            raise self.error

    def note_end(self, *, recycled: bool) -> None:
        """Take note."""
        self.calls.append("replaced" if recycled else "died")

    def finish(self) -> None:
        """Judge it."""
        self.calls.append("finish")


@pytest.fixture(autouse=True)
def told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages go to the root logger only, whatever a command in this process has set up before."""
    logger = logging.getLogger("holdwater")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)


def keep(run: Run) -> int:
    """Run the loop."""
    return keep_going(cast("Supervisor", cast("Any", run)), run)


class TestKeepGoing:
    """One process after another."""

    def test_starts_the_next_process_before_the_last_one_is_judged(self) -> None:
        """The run does not wait for a judgement; a process is followed once the one before is finished."""
        run = Run(REPLACED, DONE)

        assert keep(run) == 0
        assert " ".join(run.calls) == "start begin look replaced start finish begin look finish close"

    def test_says_why_a_process_that_died_is_started_again(self, caplog: pytest.LogCaptureFixture) -> None:
        """A process that was replaced as planned is worth no warning."""
        run = Run(REPLACED, CRASHED, DONE)
        with caplog.at_level(logging.INFO, "holdwater"):
            keep(run)

        assert caplog.messages == ["the script is started again: it ended with exit code 1"]
        assert [call for call in run.calls if call in {"died", "replaced"}] == ["replaced", "died"]

    def test_ends_as_the_last_process_and_says_why(self, caplog: pytest.LogCaptureFixture) -> None:
        """Where it is not started again."""
        with caplog.at_level(logging.INFO, "holdwater"):
            code = keep(Run(replace(CRASHED, again=False, exit_code=-9)))

        assert code == -9
        assert caplog.messages == ["the script is not started again: it ended with exit code 1"]

    def test_a_run_may_say_that_nothing_follows(self, caplog: pytest.LogCaptureFixture) -> None:
        """A script that has not registered its state would begin again."""

        class NotResumable(Run):
            """Knows better than the supervisor."""

            def amend(self, answer: Answer) -> Answer:
                """Nothing follows."""
                return replace(answer, again=False, cause="not resumable", exit_code=7)

        run = NotResumable(CRASHED)

        assert keep(run) == 7
        assert run.calls == ["start", "begin", "look", "finish", "close"]
        assert caplog.messages == []

    def test_the_server_ends_with_an_error(self) -> None:
        """Whatever happens here."""
        run = Run(DONE)
        run.error = RuntimeError("a mistake")

        with pytest.raises(RuntimeError, match="a mistake"):
            keep(run)

        assert run.calls[-1] == "close"
