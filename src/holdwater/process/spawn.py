"""Start a script's process, forward signals to it, and end as it ended.

Signals to the process group reach the script directly; those to this process alone are forwarded (`signals`).
"""

import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType

import psutil

from holdwater.process.channel import Channel
from holdwater.process.fork_server import ForkServer
from holdwater.process.restart_context import WRITTEN
from holdwater.process.signals import (
    CAN_WAIT,
    FORWARDED,
    callers_mask,
    can_wait_for_children,
    end_witness,
    hold_signals,
    is_stop,
    pending_signals,
    reached,
    wait_for_signal,
)
from holdwater.standard_error import flush_or_drop

RUNNER = Path(__file__).resolve().parents[1] / "frameworks" / "observed_script.py"
"""The runner of scripts, run by its path: with `-m` Python would search the working folder for its own modules."""


class RunningProcess:
    """A process that signals are forwarded to; subclasses define how it starts and how its end is seen."""

    def __init__(self) -> None:
        """Block signals from now on."""
        self.pid = 0
        self.exit_status: int | None = None
        """As `os.waitstatus_to_exitcode`: negative for a signal; None while it runs."""
        self.asked_to_stop = False
        """Whether SIGINT or SIGTERM was received."""
        self.received: set[int] = set()
        """The signals that were received for it."""
        self._received: list[int] = []
        hold_signals()
        if not CAN_WAIT:
            for number in FORWARDED:
                if signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, self._receive)

    def wait(self, seconds: float) -> bool:
        """Wait, forwarding signals; True while the script runs."""
        if CAN_WAIT:
            self._wait_for_signals(seconds)
        else:
            time.sleep(seconds)
            for number in self._received:
                self.send(number)
            self._received.clear()
        return self._poll()

    def send(self, number: int) -> None:
        """Send it a signal."""
        with contextlib.suppress(OSError):  # it may have ended
            os.kill(self.pid, number)

    def forward(self, received: Iterable[int]) -> None:
        """Send it the signals that this process received before it existed.

        Args:
            received: The signals.
        """
        for number in received:
            self._note(number)
            self.send(number)

    def _note(self, number: int) -> None:
        """Remember a signal that was received."""
        self.received.add(number)
        self.asked_to_stop |= is_stop(number)

    def _wait_for_signals(self, seconds: float) -> None:
        """Handle signals until the script ends or the time is over."""
        deadline = time.perf_counter() + seconds
        while (found := wait_for_signal(deadline - time.perf_counter())) is not None:
            self._note(found.si_signo)
            if not reached(self.pid, found):
                self.send(found.si_signo)
            self._received_late(found.si_signo)

    def _received_late(self, number: int) -> None:
        """A signal was received, and sent: see whether the process could still take it."""

    def _poll(self) -> bool:
        """Collect the exit status if there is one; True while the process runs."""
        raise NotImplementedError

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Record a signal, on systems that cannot wait for one."""
        del frame
        self._note(number)
        if number != signal.SIGINT:  # the terminal sends it to the script too
            self._received.append(number)


class ScriptProcess(RunningProcess):
    """A running script."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it.

        Args:
            command: Program and arguments.
            environment: Its environment.
        """
        super().__init__()
        self.pid = os.posix_spawn(command[0], list(command), dict(environment), setsigmask=callers_mask())
        can_wait_for_children()
        self.forward(pending_signals())  # from before its start; no handler can be installed yet

    def _poll(self) -> bool:
        """Whether it runs, by its exit status."""
        if self.exit_status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid == self.pid:
                self.exit_status = os.waitstatus_to_exitcode(status)
        return self.exit_status is None


class ForkedProcess(RunningProcess):
    """A process that a fork server has forked."""

    def __init__(  # noqa: PLR0913 - what is forked, by name
        self,
        server: ForkServer,
        channel: Channel,
        target: str,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        untaken: Iterable[int] = (),
    ) -> None:
        """Let the server fork it.

        Args:
            server: The fork server.
            channel: The folder in which it announces that another process may continue.
            target: `module:function`.
            argv: Its `sys.argv`.
            environment: Its environment.
            untaken: Signals that the process before it has left to it.
        """
        super().__init__()
        self._server, self._channel = server, channel
        self._before = frozenset(untaken)
        self._late: set[int] = set()
        if server.alive and hasattr(signal, "SIGIO"):  # wakes the wait below when the server sends a report
            fcntl.fcntl(server.link, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(server.link, fcntl.F_SETFL, fcntl.fcntl(server.link, fcntl.F_GETFL) | os.O_ASYNC)
        if server.fork(target, argv, environment, prepare=self._prepare) is None:
            self.exit_status = -int(signal.SIGKILL)

    def _prepare(self, pid: int) -> None:
        """Send it what was received while there was no process; it blocks signals until this is done.

        What was sent to the whole group since it was forked is pending there already, and not counted twice.

        Args:
            pid: Of the process.
        """
        self.pid = pid
        self.forward(self._before | pending_signals())

    @property
    def untaken(self) -> frozenset[int]:
        """The signals that this process has left to the next one, if it was replaced."""
        deadline = time.monotonic() + 1.0  # it may have been killed in between
        while self._channel.get("recycled") and time.monotonic() < deadline:
            word = self._channel.get("untaken")
            if word & WRITTEN:
                return frozenset(self._late | {number for number in FORWARDED if word >> number & 1})
            time.sleep(0.001)
        return frozenset(self._late)

    def _received_late(self, number: int) -> None:
        """A signal that came when the process had left, or was about to, is for the next one."""
        if self._channel.get("recycled"):
            self._late.add(number)

    def send(self, number: int) -> None:
        """Send it a signal, if it was forked."""
        if self.pid:
            super().send(number)

    def _poll(self) -> bool:
        """Whether it runs, by the reports of the server or of the process; it ends together with the server."""
        if self.exit_status is None and self._channel.get("recycled"):
            self.exit_status = 0
        if self.exit_status is None:
            for ended in self._server.ended():
                if ended.pid == self.pid:
                    self.exit_status = ended.status
            if self.exit_status is None and not self._server.alive:
                self._wait_until_gone()
                self.exit_status = -int(signal.SIGKILL)
        return self.exit_status is None

    def _wait_until_gone(self) -> None:
        """Wait for the end of a process whose server has ended; then another may continue."""
        deadline = time.monotonic() + 2.0
        while psutil.pid_exists(self.pid):
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
            time.sleep(0.01)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)


def die_as(exit_status: int, before: Callable[[], None] = lambda: None) -> int:
    """End as a script ended: by the same signal, or with its exit code, which is returned."""
    before()
    end_witness()
    flush_or_drop()
    if exit_status >= 0:
        return exit_status
    number = -exit_status
    with contextlib.suppress(OSError, ValueError):
        _no_core()
        signal.signal(number, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    time.sleep(1)
    return 128 + number


def _no_core() -> None:
    """Write no second core file of the same end."""
    import resource  # noqa: PLC0415 - POSIX only

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def script_command(folder: Path, words: Sequence[str], *, last_step: int) -> list[str]:
    """The command that runs a script with a session in it."""
    flags = [f"-W{option}" for option in sys.warnoptions]
    return [sys.executable, *flags, str(RUNNER), str(folder), str(last_step), *words]
