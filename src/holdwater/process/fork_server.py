"""Fork processes from a server that has already made the imports: the supervisor's side of `forking`."""

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdwater.process.signals import FORWARDED, callers_mask, can_wait_for_children

FORKING = Path(__file__).with_name("forking.py")
"""The server's script, run by its path: with `-m` Python would search the working folder for its own modules."""
HELD_BACK = (*FORWARDED, signal.SIGIO)
"""Signals that the server blocks from its first instruction on: they are for the processes that it forks."""
SLOW = 600.0
"""Seconds that the imports may take."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a forked process ended."""

    pid: int
    status: int
    """As `os.waitstatus_to_exitcode`: negative for a signal."""
    peak: int
    """The kernel's high-water mark of its resident memory, in bytes."""


class ForkServer:
    """A process that has imported some modules, and forks processes that run a function."""

    def __init__(
        self,
        modules: Sequence[str],
        environment: Mapping[str, str],
        *,
        folder: str | None = None,
        errors: int = 2,
    ) -> None:
        """Start it; it imports while this process continues.

        Args:
            modules: Modules that the forked processes will need.
            environment: The server's.
            folder: Of modules that hide others from the forked processes; None if there are none.
            errors: The file that is the standard error of the server and of what it forks.
        """
        self.unfit: str | None = None
        """Why the server cannot fork; None while it can."""
        self._unread = b""
        self._forked: list[int] = []
        self._ended: list[Ended] = []
        self._ready = False
        self.link, other = socket.socketpair()
        reading, self._lifeline = (
            os.pipe()
        )  # nothing is written: its end shows the children that this process has ended
        with other:
            os.set_inheritable(reading, True)  # noqa: FBT003 - its name says it
            os.set_inheritable(other.fileno(), True)  # noqa: FBT003
            flags = [f"-W{option}" for option in sys.warnoptions]
            arguments = [str(FORKING), str(other.fileno()), str(reading), ",".join(modules), folder or ""]
            command = [sys.executable, *flags, *arguments]
            files = [] if errors == 2 else [(os.POSIX_SPAWN_DUP2, errors, 2)]
            self.pid = os.posix_spawn(
                command[0], command, dict(environment), setsigmask=HELD_BACK, file_actions=files
            )
        can_wait_for_children()
        os.close(reading)

    @property
    def alive(self) -> bool:
        """Whether the server accepts requests."""
        return self.link.fileno() >= 0

    def fork(
        self,
        target: str,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        prepare: Callable[[int], None] = lambda _: None,
    ) -> int | None:
        """Fork a process that runs a function.

        Args:
            target: `module:function`, called without arguments.
            argv: Its `sys.argv`.
            environment: Its environment.
            prepare: Called with its PID, while it still waits and blocks all signals.

        Returns:
            The PID of the process; None if the server has ended, or cannot fork.
        """
        if not self._wait_for(lambda: self._ready, SLOW) or self.unfit:
            return None
        request: dict[str, Any] = {"target": target, "argv": list(argv), "environment": dict(environment)}
        request["blocked"] = sorted(callers_mask())
        try:
            self.link.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            self.close()
            return None
        if not self._wait_for(lambda: bool(self._forked), 10.0):
            return None
        pid = self._forked.pop(0)
        prepare(pid)
        with contextlib.suppress(OSError):  # it may have been killed
            os.kill(pid, signal.SIGIO)
        return pid

    def ended(self) -> list[Ended]:
        """The processes that have ended since the last call."""
        self._read(0.0)
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        """Disconnect from the server: it ends, and the processes that it forked end in good order."""
        if not self.alive:
            return
        self.link.close()
        os.close(self._lifeline)

    def wait(self, seconds: float) -> None:
        """Close, and wait until the server has ended; kill it after this many seconds."""
        self.close()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(self.pid, os.WNOHANG)[0] == 0:
                    time.sleep(0.01)
                    continue
            return
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def _wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Read reports until a condition holds."""
        deadline = time.monotonic() + seconds
        while self.alive and not condition() and time.monotonic() < deadline:
            self._read(0.5)
        return bool(condition())

    def _read(self, seconds: float) -> None:
        """Read the server's reports."""
        if not self.alive or not select.select([self.link], [], [], seconds)[0]:
            return
        try:
            data = self.link.recv(1 << 20)
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, report: dict[str, Any]) -> None:
        """Handle one report."""
        if "exit" in report:
            self._ended.append(Ended(report["pid"], report["exit"], int(report["peak"])))
        elif "pid" in report:
            self._forked.append(report["pid"])
        else:
            self._ready, self.unfit = True, report["unfit"]
