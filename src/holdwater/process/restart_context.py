"""What a process that a supervisor has started knows of itself: where channel and in-memory checkpoints lie."""

import atexit
import contextlib
import ctypes
import gc
import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Self

from holdwater.process.channel import Channel

VARIABLE = "HOLDWATER_RESTART"
"""The environment variable that tells it; children of the process are not to see it."""

ONE_CALL = 1.0
"""Seconds within which signals are one call to stop: one that is sent to a group of processes comes twice."""
LONGEST_WAIT = 60.0
"""Seconds that threads which hold up the end of a process may take before another goes on."""
NEED_CLOSING = frozenset((
    ("gzip", "GzipFile"), ("bz2", "BZ2File"), ("lzma", "LZMAFile"), ("zipfile", "ZipFile"), ("tarfile", "TarFile"),
    ("tempfile", "_TemporaryFileWrapper"),
))  # fmt: skip
"""Files that are not whole, or not gone, before they are closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartContext:
    """One process of a supervised run."""

    number: int
    """The first is 0."""
    channel_path: str
    """The channel's file."""
    in_memory: str
    """A folder in memory, for checkpoints that the next process goes on from."""
    out: str
    """The folder of the run."""
    supervisor: int = 0
    """The number of the supervisor's process."""
    out_of_memory_restarts: int = 0
    """How often a process of this run was short of memory."""
    ended: Mapping[str, Any] | None = None
    """How the process before ended: `step`, `reason`, `in_use` (bytes), `at` (seconds on the system's clock)."""
    weight_server: str = ""
    """The socket of the process that holds frozen weights; empty where there is none."""
    explained: bool = False
    """What grows is known already: it need not be looked for."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What a user's script is to be recycled by: `limit`, `beside_device` (bytes of the host's memory, without a
    device and beside one), `device_limit` (bytes of the device's, if that was given), and as configured
    `reload_interval` (steps), `reload_threshold` (bytes) and `checkpoint_interval` (steps)."""

    def as_environment(self) -> dict[str, str]:
        """The variable, for the process that is started."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def take(cls, environment: MutableMapping[str, str] | None = None) -> Self | None:
        """Take the variable out of an environment; None where no supervisor has started this process.

        Args:
            environment: Of this process, if None.
        """
        global _taken  # noqa: PLW0603 - a process is started once
        text = (os.environ if environment is None else environment).pop(VARIABLE, None)
        _taken = None if text is None else json.loads(text)
        return cls.taken()

    @classmethod
    def taken(cls) -> Self | None:
        """What was taken out of the environment of this process."""
        return None if _taken is None else cls(**_taken)

    def open_channel(self) -> Channel:
        """The run's channel."""
        return Channel(Path(self.channel_path))


def is_first_process() -> bool:
    """Whether no process of this run was here before: what is told once is told now."""
    restart = RestartContext.taken()
    return restart is None or restart.number == 0


_taken: dict[str, Any] | None = None


def reason_file(channel_path: str | Path) -> Path:
    """Where a process that is to be replaced says why.

    Args:
        channel_path: The channel's file.
    """
    return Path(channel_path).with_name("reason")


def actions_file(channel_path: str | Path) -> Path:
    """Where a process says what it has done about memory, an action a line.

    Args:
        channel_path: The channel's file.
    """
    return Path(channel_path).with_name("actions.jsonl")


def only_here(stop: Callable[[int], None]) -> Callable[[int, object], None]:
    """A signal handler for this process alone: a forked child that inherits it ends as it would without.

    Args:
        stop: Called with the signal's number.
    """
    owner = os.getpid()

    def handle(number: int, _frame: object) -> None:
        """Handle a signal."""
        if os.getpid() == owner:
            stop(number)
            return
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, usual)
        os.kill(os.getpid(), number)

    return handle


def stop_soon(
    stop: Callable[[str], None], is_stopping: Callable[[], bool], clock: Callable[[], float] = time.monotonic
) -> Callable[[int], None]:
    """What a signal does to a run: the first one stops it after its step, a later one ends it now.

    Args:
        stop: Called with the reason.
        is_stopping: Whether the run stops already, for whatever reason.
        clock: Seconds.
    """
    called = float("-inf")

    def handle(number: int) -> None:
        """Handle a signal.

        Raises:
            KeyboardInterrupt: It is not the first, and no echo of the first.
        """
        nonlocal called
        now = clock()
        if now - called < ONE_CALL:
            return
        called = now
        if is_stopping():
            raise KeyboardInterrupt
        stop(f"it received {signal.Signals(number).name}")

    return handle


def leave_at_once(restart: RestartContext | None, step: int) -> NoReturn:
    """End this process so that another goes on; it is started while the kernel still takes this one's memory back.

    What was asked to happen at the end of this process happens, no more.

    Args:
        restart: What the supervisor has said; None only tells that nobody waits.
        step: The last step.
    """
    _let_threads_end()
    atexit._run_exitfuncs()  # noqa: SLF001 - as `multiprocessing` ends its own children
    flush_files()
    if restart is not None:
        restart.open_channel().put("recycled", step)
        if hasattr(signal, "SIGIO"):
            with contextlib.suppress(OSError):
                os.kill(restart.supervisor, signal.SIGIO)
    os._exit(0)


def end_process(exit_code: int) -> NoReturn:
    """End a forked process as Python ends a program, but without taking its memory apart piece by piece.

    Each object that is let go of is written to, and a page that is written to is not shared with the fork server
    any more: at the end of a script that cost 40 MB, and the kernel kills for less.

    Args:
        exit_code: Of the process.
    """
    threading._shutdown()  # type: ignore[attr-defined] # noqa: SLF001 - as Python itself: waits for threads
    atexit._run_exitfuncs()  # noqa: SLF001
    flush_files()
    os._exit(exit_code & 0xFF)


def _let_threads_end() -> None:
    """Wait for threads that would hold up the end of a program, such as one that writes a checkpoint."""
    futures = sys.modules.get("concurrent.futures.thread")
    if futures is not None:
        futures._python_exit()  # noqa: SLF001 - what Python itself calls at its end
    deadline = time.monotonic() + LONGEST_WAIT
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(max(deadline - time.monotonic(), 0))


def flush_files() -> None:
    """Write out what open files still hold back, and close those that need it to be whole."""
    base, text = io.FileIO.__mro__[-2], io.TextIOWrapper.__mro__[1]  # the C types below all files
    objects = gc.get_objects()
    kinds = set(map(type, objects))  # `isinstance` would wake lazy objects
    flushed = {kind for kind in kinds if base in kind.__mro__}
    files = [item for item in objects if type(item) in flushed]
    texts = [item for item in files if text in type(item).__mro__]
    for file in (*texts, *files, sys.stdout, sys.stderr):  # a text hands over to the bytes below it
        with contextlib.suppress(Exception):
            file.flush()
    for file in [item for item in objects if (type(item).__module__, type(item).__name__) in NEED_CLOSING]:
        with contextlib.suppress(Exception):
            file.close()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)
