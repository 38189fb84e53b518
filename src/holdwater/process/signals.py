"""Signals that are meant for a script while another process waits for it: which are held back, and who got them.

Whoever receives a signal cannot tell whether it was sent to the process or to its process group. In a group the
script gets it directly; sent to this process alone it has to be forwarded. A *witness* tells the two apart: a
child in the same group that blocks all of these signals (`witness.py`).

What the caller ignores or blocks stays ignored or blocked in the script. Source: POSIX, `exec`: ignored signals
stay ignored, handled ones get their default action.
"""

import atexit
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

WITNESS = Path(__file__).with_name("witness.py")
"""The witness's script, run by its path: with `-m` Python would search the working folder for its own modules."""

_NAMES_LEFT = (
    "SIGKILL", "SIGSTOP",  # cannot be held
    "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS", "SIGEMT",  # faults of this process
    "SIGTSTP", "SIGTTIN", "SIGTTOU",  # the terminal stops the whole group
    "SIGPIPE", "SIGXFSZ",  # Python ignores them, and returns errors instead
    "SIGCHLD", "SIGIO", "SIGINFO",
)  # fmt: skip
FORWARDED = tuple(sorted(signal.valid_signals() - {getattr(signal, name, 0) for name in _NAMES_LEFT}))
"""Signals that are forwarded to a script: all that somebody may send to make it do something."""

NEWS = tuple(number for name in ("SIGCHLD", "SIGIO") if (number := getattr(signal, name, None)) is not None)
"""Signals that wake the wait."""

STOPS = frozenset((signal.SIGINT, signal.SIGTERM))
"""Signals that ask a run to stop."""

CAN_WAIT = hasattr(signal, "sigtimedwait")
"""Whether this system can wait for a blocked signal; macOS cannot."""


class Witness:
    """A child in this process's group that blocks signals, and answers whether it got one too."""

    def __init__(self, words: Sequence[str]) -> None:
        """Start it.

        Args:
            words: Of the command line of what gets the signals; `pkill -f` then finds both or none.
        """
        self._link, other = socket.socketpair()
        self._link.settimeout(5.0)
        with other:
            os.set_inheritable(other.fileno(), True)  # noqa: FBT003 - its name says it
            command = [sys.executable, "-I", "-S", str(WITNESS), str(other.fileno()), *words]
            held = {*FORWARDED, *NEWS}
            try:
                self.pid = os.posix_spawn(command[0], command, dict(os.environ), setsigmask=held)
            except OSError:
                self.pid = 0  # no process can be started now: each signal is forwarded

    def end(self) -> None:
        """End it, and wait until it has ended."""
        self._link.close()
        if self.pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            self.pid = 0

    def has(self, number: int) -> bool:
        """Whether it got a signal that this process has just received; asked once for each.

        Args:
            number: The signal's.
        """
        try:
            self._link.send(bytes([number]))
            return self._link.recv(1) == b"\1"
        except OSError:
            return False


_witness: Witness | None = None
_callers_mask: frozenset[int] = frozenset()
_held = False


def hold_signals(words: Sequence[str] = ()) -> None:
    """Block the signals that are forwarded, before a library starts threads, which inherit it.

    Args:
        words: Of the script's command line; none for a process that is forked, whose command line is the server's.
    """
    global _witness, _callers_mask, _held  # noqa: PLW0603 - signals belong to the process
    if _held or not CAN_WAIT:
        return
    _held = True
    _callers_mask = frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, {*FORWARDED, *NEWS}))
    _witness = Witness(words)
    atexit.register(_witness.end)


def end_witness() -> None:
    """End the witness: no signal is forwarded any more."""
    if _witness is not None:
        _witness.end()


def callers_mask() -> frozenset[int]:
    """The signals that the caller of this process blocks: a script is started with the same."""
    return _callers_mask


def can_wait_for_children() -> None:
    """Do not ignore SIGCHLD in this process: then the kernel would drop the exit codes of its children.

    Called when a child has been started, which inherits what the caller ignores.
    """
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def is_stop(number: int) -> bool:
    """Whether a signal asks to stop: SIGINT or SIGTERM, unless the caller ignores it.

    Args:
        number: The signal's.
    """
    return number in STOPS and signal.getsignal(number) != signal.SIG_IGN


def reached(pid: int, received: "signal.struct_siginfo") -> bool:
    """Whether a signal that this process has received has reached a process that it started, too.

    Args:
        pid: Of the process.
        received: The signal.
    """
    group = _witness is not None and _witness.has(received.si_signo)
    if received.si_code > 0 or received.si_pid == pid:  # by the terminal, or by the process itself
        return True
    with contextlib.suppress(OSError):
        return group and os.getpgid(pid) == os.getpgrp()
    return True  # it has ended


def pending_signals() -> frozenset[int]:
    """Take the signals that are pending."""
    found: set[int] = set()
    while CAN_WAIT and (one := signal.sigtimedwait(FORWARDED, 0)) is not None:
        if _witness is not None:
            _witness.has(one.si_signo)
        found.add(one.si_signo)
    return frozenset(found)


def wait_for_signal(seconds: float) -> "signal.struct_siginfo | None":
    """Wait for a signal that is to be forwarded; None at other news, or after some time.

    Args:
        seconds: How long.
    """
    end = time.perf_counter() + seconds
    while (left := end - time.perf_counter()) > 0:
        found = signal.sigtimedwait({*FORWARDED, *NEWS}, left)
        if found is None or found.si_signo in NEWS:
            return None
        if found.si_signo in FORWARDED:  # after a stop and a continue the kernel may return another one
            return found
    return None
