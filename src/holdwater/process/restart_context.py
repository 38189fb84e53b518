"""The restart context: what a supervisor passes to a process that it starts."""

import atexit
import contextlib
import ctypes
import gc
import io
import json
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Self

from holdwater.process.channel import Channel
from holdwater.process.finalizing import free_users_modules
from holdwater.process.signals import FORWARDED
from holdwater.signal_errors import suppressed

VARIABLE = "HOLDWATER_RESTART"
"""The environment variable that carries it; children of the process must not see it."""

SEED_VARIABLE = "HOLDWATER_SEED"
"""The environment variable that sets the seed of a run, so that two runs can be compared; also the key `seed`."""
NOT_REPLACED = "this process is not replaced by a fresh one: "
"""What a process says that must not be replaced, with the reason."""
ONE_CALL = 1.0
"""Signals within these seconds count as one: a signal to a process group arrives twice."""
WRITTEN = 1
"""The lowest bit of `untaken` in the channel: the signals, each a bit, are all there."""
LONGEST_WAIT = 60.0
"""Seconds that threads may delay the end of a process before another one continues."""
NEED_CLOSING = frozenset((
    ("gzip", "GzipFile"), ("bz2", "BZ2File"), ("lzma", "LZMAFile"), ("zipfile", "ZipFile"), ("tarfile", "TarFile"),
    ("tempfile", "_TemporaryFileWrapper"),
))  # fmt: skip
"""Kinds of files that are complete, or removed, only when they are closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartContext:
    """One process of a supervised run."""

    number: int
    """The first is 0."""
    channel_path: str
    """The channel's file."""
    in_memory: str
    """A folder in memory, for checkpoints from which the next process continues."""
    out: str
    """The folder of the run."""
    supervisor: int = 0
    """The number of the supervisor's process."""
    out_of_memory_restarts: int = 0
    """How often a process of this run was short of memory."""
    ended: Mapping[str, Any] | None = None
    """How the previous process ended: `step`, `reason`, `in_use` (bytes), `at` (seconds on the system's clock)."""
    weight_server: str = ""
    """The weight server's socket; empty if there is none."""
    explained: bool = False
    """Whether the growth is explained already."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The limits of a user's script: `limit`, `beside_device` (bytes of the host's memory, without and with a
    device), `device_limit` (bytes of the device's, if that was given), `seed` (of the random states that the
    script does not seed, the same in each process of a run), and as configured
    `reload_interval` (steps), `reload_threshold` (bytes) and `checkpoint_interval` (steps)."""

    def as_environment(self) -> dict[str, str]:
        """The variable, for the process to be started."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def take(cls, environment: MutableMapping[str, str] | None = None) -> Self | None:
        """Take the variable out of an environment; None if no supervisor started this process.

        Args:
            environment: None takes this process's.
        """
        global _taken  # noqa: PLW0603 - a process is started once
        text = (os.environ if environment is None else environment).pop(VARIABLE, None)
        _taken = None if text is None else json.loads(text)
        return cls.taken()

    @classmethod
    def taken(cls) -> Self | None:
        """The context of this process."""
        return None if _taken is None else cls(**_taken)

    def open_channel(self) -> Channel:
        """The run's channel."""
        return Channel(Path(self.channel_path))


def drawn_seed() -> int:
    """A seed for a run that was given none: one that the key `seed` accepts."""
    return secrets.randbits(63)


def is_first_process() -> bool:
    """Whether this is the first process of the run: messages that appear once appear now."""
    restart = RestartContext.taken()
    return restart is None or restart.number == 0


_taken: dict[str, Any] | None = None


def reason_file(channel_path: str | Path) -> Path:
    """The file in which a process that is to be replaced writes the reason.

    Args:
        channel_path: The channel's file.
    """
    return Path(channel_path).with_name("reason")


def refusal_file(channel_path: str | Path) -> Path:
    """The file in which a process writes why no other one could go on exactly.

    Args:
        channel_path: The channel's file.
    """
    return Path(channel_path).with_name("refusal")


def actions_file(channel_path: str | Path) -> Path:
    """The file in which a process records its remedies, one action a line.

    Args:
        channel_path: The channel's file.
    """
    return Path(channel_path).with_name("actions.jsonl")


def only_here(stop: Callable[[int], None]) -> Callable[[int, object], None]:
    """A signal handler for this process only: a forked child that inherits it behaves as without.

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
    """A signal handler: the first signal stops the run after its step, a later one ends it now.

    Args:
        stop: Called with the reason.
        is_stopping: Returns whether the run is stopping already, for any reason.
        clock: Seconds.
    """
    called = float("-inf")

    def handle(number: int) -> None:
        """Handle a signal.

        Raises:
            KeyboardInterrupt: It is not the first, nor a copy of the first.
        """
        nonlocal called
        now = clock()
        if now - called < ONE_CALL:
            return
        called = now
        global _stop_received  # noqa: PLW0603 - signals belong to the process
        _stop_received = number
        if is_stopping():
            raise KeyboardInterrupt
        stop(f"it received {signal.Signals(number).name}")

    return handle


_stop_received: int | None = None


def stop_received() -> int | None:
    """The signal by which this process was asked to stop, if a handler of `stop_soon` took it."""
    return _stop_received


_late: set[int] = set()
"""Signals that another thread received after this one had blocked them."""


def _take_no_signals() -> None:
    """Leave the signals that come from now on to the next process: the script's handlers are not called any more.

    What a handler raised would let the script go on in a process that has said that it ends.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    for number in FORWARDED:
        if callable(signal.getsignal(number)):
            signal.signal(number, lambda number, _: _late.add(number))


def leave_at_once(restart: RestartContext | None, step: int, channel: Channel | None = None) -> NoReturn:
    """End this process so that another continues, which starts while the kernel still frees this one's memory.

    Exit handlers run, and what the script's own modules hold is freed. Signals that come from now on are for the
    next process, and so is a stop that no step has seen.

    Args:
        restart: The restart context; None if no supervisor started this process.
        step: The last step.
        channel: Of the session that has ended; None if there is none.
    """
    _take_no_signals()
    if channel is not None:
        channel.state = "ended"
    _let_threads_end()
    atexit._run_exitfuncs()  # noqa: SLF001 - as `multiprocessing` ends its own children
    free_users_modules()
    flush_files()
    if restart is not None:
        channel = restart.open_channel()
        channel.put("recycled", step)
        untaken = signal.sigpending() | _late | {number for number in (stop_received(),) if number is not None}
        channel.put("untaken", WRITTEN | sum(1 << number for number in untaken if number < 64))
        if hasattr(signal, "SIGIO"):
            with contextlib.suppress(OSError):
                os.kill(restart.supervisor, signal.SIGIO)
    os._exit(0)


def end_process(exit_code: int) -> NoReturn:
    """End a forked process as Python ends a program, but free only what the script's own modules hold.

    Freeing an object writes to it, and a page that is written to is no longer shared with the fork server: to free
    all that was imported cost 40 MB, which can be enough for an out-of-memory kill.

    Args:
        exit_code: The process's.
    """
    threading._shutdown()  # type: ignore[attr-defined] # noqa: SLF001 - as Python itself: waits for threads
    atexit._run_exitfuncs()  # noqa: SLF001
    free_users_modules()
    flush_files()
    os._exit(exit_code & 0xFF)


def _let_threads_end() -> None:
    """Wait for threads that delay the end of a program, such as one that writes a checkpoint."""
    futures = sys.modules.get("concurrent.futures.thread")
    if futures is not None:
        futures._python_exit()  # noqa: SLF001 - what Python itself calls at its end
    deadline = time.monotonic() + LONGEST_WAIT
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(max(deadline - time.monotonic(), 0))


def flush_files() -> None:
    """Flush open files, and close those that are complete only then."""
    objects = gc.get_objects()
    flush_open_files(objects)
    for file in [item for item in objects if (type(item).__module__, type(item).__name__) in NEED_CLOSING]:
        with contextlib.suppress(Exception):
            file.close()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)


def flush_open_files(objects: list[Any] | None = None) -> None:
    """Write what waits in the buffers of open files.

    Args:
        objects: All that Python's garbage collector knows; None asks it.
    """
    objects = gc.get_objects() if objects is None else objects
    base, text = io.FileIO.__mro__[-2], io.TextIOWrapper.__mro__[1]  # the C types below all files
    kinds = set(map(type, objects))  # `isinstance` would load lazy objects
    flushed = {kind for kind in kinds if base in kind.__mro__}
    files = [item for item in objects if type(item) in flushed]
    texts = [item for item in files if text in type(item).__mro__]
    flush_each((*texts, *files, sys.stdout, sys.stderr))  # a text file flushes into its binary file


def flush_each(files: Iterable[Any]) -> None:
    """Flush files; one that cannot be written says so to whoever writes to it next.

    Args:
        files: Open or closed, or None.
    """
    for file in files:
        with suppressed(Exception):
            file.flush()
