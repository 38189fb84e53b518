"""Start a script's process, pass signals on to it, and end as it ended.

Signals that the terminal sends reach the script by themselves, for it is in the same group; those that
somebody sends to this process alone are passed on. Source: POSIX, `siginfo_t`: `si_code` tells them apart.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

PASSED_ON = tuple(
    number
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGWINCH")
    if (number := getattr(signal, name, None)) is not None
)
"""What a script may be sent through this process."""

RUNNER = Path(__file__).resolve().parents[1] / "integrations" / "script.py"
"""What runs the script, by its path: with `-m` Python would look for its own modules in the working folder."""


class ScriptProcess:
    """A running script."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it.

        Args:
            command: Program and arguments.
            environment: Its environment.
        """
        self.exit_status: int | None = None
        """As `os.waitstatus_to_exitcode`: negative for a signal; None while it runs."""
        self._received: list[int] = []
        self._waiting = hasattr(signal, "sigtimedwait")
        if self._waiting:
            signal.pthread_sigmask(signal.SIG_BLOCK, {*PASSED_ON, signal.SIGCHLD})
        else:
            for number in PASSED_ON:
                signal.signal(number, self._receive)
        self.pid = os.posix_spawn(
            command[0], list(command), dict(environment), setsigmask=[], setsigdef=[*PASSED_ON, signal.SIGCHLD]
        )

    def wait(self, seconds: float) -> bool:
        """Wait, passing signals on; True while the script runs."""
        if self._waiting:
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

    def _wait_for_signals(self, seconds: float) -> None:
        """Take signals until one tells that the script ended, or the time is over."""
        deadline = time.perf_counter() + seconds
        while (left := deadline - time.perf_counter()) > 0:
            found = signal.sigtimedwait({*PASSED_ON, signal.SIGCHLD}, left)
            if found is None or found.si_signo == signal.SIGCHLD:
                return
            by_somebody = found.si_code <= 0  # SI_USER and its like; the kernel's own are positive
            # after a stop and a continue the kernel may hand over what is no signal of ours
            if found.si_signo in PASSED_ON and by_somebody and found.si_pid != self.pid:
                self.send(found.si_signo)

    def _poll(self) -> bool:
        """Take up the exit status if there is one."""
        if self.exit_status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid == self.pid:
                self.exit_status = os.waitstatus_to_exitcode(status)
        return self.exit_status is None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Remember a signal where they cannot be waited for."""
        del frame
        if number != signal.SIGINT:  # the terminal sends it to the script too
            self._received.append(number)


def die_as(exit_status: int, before: Callable[[], None]) -> int:
    """End as a script ended: by the same signal, or with its exit code, which is returned."""
    before()
    if exit_status >= 0:
        return exit_status
    number = -exit_status
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.suppress(OSError, ValueError):
        _no_core()
        signal.signal(number, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    time.sleep(1)
    return 128 + number


def _no_core() -> None:
    """A second core file of the same end helps nobody."""
    import resource  # noqa: PLC0415 - POSIX only

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def script_command(folder: Path, words: Sequence[str], *, last_step: int) -> list[str]:
    """The command that runs a script with a session in it."""
    flags = [f"-W{option}" for option in sys.warnoptions]
    return [sys.executable, *flags, str(RUNNER), str(folder), str(last_step), *words]
