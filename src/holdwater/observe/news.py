"""Say what is found while a run goes on: a line on standard error, and a command of the user's.

It imports no numpy: the script is started first.
"""

import contextlib
import json
import math
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from holdwater.clock import format_duration
from holdwater.detectors.verdict import Finding, Verdict
from holdwater.errors import ConfigError

if TYPE_CHECKING:
    from holdwater.observe.watcher import Watcher

GRAVE = frozenset(("leak", "fragmentation", "pressure"))
"""Verdicts that are news."""
SPACING = 60.0
"""Seconds between two lines, at least."""
PATIENCE = 5.0
"""Seconds that a command may take; then it is ended."""
PIPE = 60_000
"""Bytes that certainly fit into a pipe."""

NOTIFY = "run COMMAND at each leak, fragmentation or pressure that is found, with it as JSON on its input"
"""The help text of --notify."""


def read_command(text: str | None) -> list[str]:
    """Read the words of --notify; empty where it was not given.

    Args:
        text: As in a shell.

    Raises:
        ConfigError: It cannot be read, or there is no such program.
    """
    if text is None:
        return []
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"--notify is {text!r}, but it cannot be read as words of a shell: {error}") from None
    if not words or shutil.which(words[0]) is None:
        raise ConfigError(f"--notify is {text!r}, but there is no such program; name one on the PATH")
    return words


class News:
    """What a run's findings have already told the user."""

    def __init__(
        self,
        *,
        quiet: bool,
        command: Sequence[str] = (),
        least: float = 0.0,
        who: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nothing told.

        Args:
            quiet: Print nothing.
            command: Words of the command that gets each finding; empty for none.
            least: The smallest leak that is told, in bytes per step.
            who: The rank, for messages; it ends with a space.
            clock: Seconds.
        """
        self._clock = clock
        self._quiet, self._command, self._least, self._who = quiet, list(command), least, who
        self._told: set[tuple[str, str]] = set()
        self._printed: set[tuple[str, str]] = set()
        self._next_line = -math.inf
        self._running: dict[int, float] = {}
        """Commands that run, by process: until when they may."""

    def tell(self, watcher: "Watcher", *, final: bool = False) -> None:
        """Tell what is new; an error of the command costs nothing.

        Args:
            watcher: Has the findings.
            final: The process has ended: the verdict of the run is printed soon, and no line here.
        """
        self._reap()
        found = [one for one in watcher.verdict.findings if self._counts(one, watcher, final=final)]
        for finding in found:
            if _is_new(finding, self._told):
                self._told.add(_key(finding))
                self._notify(finding, watcher)
        unsaid = [] if self._quiet or final else [one for one in found if _is_new(one, self._printed)]
        if unsaid and self._clock() >= self._next_line:
            self._next_line = self._clock() + SPACING
            self._printed.add(_key(unsaid[0]))
            self._print(f"{_when(unsaid[0], watcher)}: {_in_words(unsaid[0])}")

    def close(self) -> None:
        """Wait for commands that run, for a few seconds at most, and end those that do not."""
        while self._running:
            self._reap()
            time.sleep(0.01)

    def _counts(self, finding: Finding, watcher: "Watcher", *, final: bool) -> bool:
        """Whether a finding is told at all, and now."""
        sure = watcher.knows_budgets if finding.verdict == "pressure" else watcher.settled
        if finding.verdict not in GRAVE or not (sure or final):
            return False
        sized = finding.verdict == "leak" and finding.rate is not None and finding.component != "process.handles"
        return not (sized and finding.rate is not None and finding.rate.bytes_per_step < self._least)

    def _print(self, text: str) -> None:
        """Print a line; a standard error that is closed or full is none of the run's business."""
        if not self._quiet and sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):
                print(f"holdwater: {self._who}{text}", file=sys.stderr, flush=True)  # noqa: T201 - a message

    def _notify(self, finding: Finding, watcher: "Watcher") -> None:
        """Start the command with a finding."""
        if not self._command:
            return
        try:
            text = json.dumps(_as_json(finding, watcher)).encode() + b"\n"
            self._running[_start(self._command, text)] = self._clock() + PATIENCE
        except Exception as error:  # noqa: BLE001 - the run and its watcher continue
            self._print(f"the command of --notify could not be run: {error}")

    def _reap(self) -> None:
        """Collect commands that have ended, and end those that take too long."""
        for pid, until in list(self._running.items()):
            status = 0
            with contextlib.suppress(ChildProcessError):  # nobody keeps it where SIGCHLD is ignored
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended == 0 and self._clock() < until:
                    continue
                if ended == 0:
                    os.killpg(pid, signal.SIGKILL)
                    _, status = os.waitpid(pid, 0)
            del self._running[pid]
            if status:
                self._print(f"the command of --notify ended with {os.waitstatus_to_exitcode(status)}")


def _key(finding: Finding) -> tuple[str, str]:
    """What a finding is known by."""
    return finding.verdict, finding.component


def _is_new(finding: Finding, known: set[tuple[str, str]]) -> bool:
    """Whether nothing was told of a component, or it has become a leak since; pressure is another matter."""
    if finding.verdict in {"leak", "pressure"}:
        return _key(finding) not in known
    return not {(kind, finding.component) for kind in ("leak", "fragmentation")} & known


def _when(finding: Finding, watcher: "Watcher") -> str:
    """The step of a finding, or the time where that is the clock."""
    if watcher.source == "time":
        return f"after {format_duration(finding.detected_step * watcher.tick)}"
    return f"step {finding.detected_step:,}"


def _in_words(finding: Finding) -> str:
    """A finding in one line."""
    message = " ".join(finding.message.split())
    return message if finding.verdict == "pressure" else f"{finding.verdict} of {finding.component}: {message}"


def _as_json(finding: Finding, watcher: "Watcher") -> dict[str, Any]:
    """A finding as in the verdict, with what it belongs to; without its explanation where that is too long."""
    from holdwater.guard.summary import SCHEMA, summarise_findings  # noqa: PLC0415 - numpy: the script has started

    alone = Verdict.of((finding,), finding.detected_step)
    head = {"schema": SCHEMA, "pid": watcher.pid, "step_source": watcher.source}
    row = head | summarise_findings(alone, watcher.explanations)[0]
    return row if len(json.dumps(row)) < PIPE else head | summarise_findings(alone)[0]


def _start(command: Sequence[str], text: bytes) -> int:
    """Start a command in a process group of its own, with a text on its standard input; return its process.

    Source: POSIX, `posix_spawn`: the signals that this process holds are not held there.
    """
    reading, writing = os.pipe()
    try:
        os.write(writing, text)  # it fits into the pipe
        actions = [
            (os.POSIX_SPAWN_DUP2, reading, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ]
        return os.posix_spawnp(
            command[0], list(command), os.environ,
            file_actions=actions, setpgroup=0, setsigmask=[], setsigdef=[signal.SIGPIPE],
        )  # fmt: skip
    finally:
        os.close(reading)
        os.close(writing)
