"""Record the allocations of this process with memray over some steps, and stop if the script itself records.

The recording is made in the training process and read in another (see `recorded`). Each step puts a mark into the
record: an allocation of a size that nothing else has; so does each event that the growth follows.

memray allows one recorder in a process. If the script starts one, ours is ended first; while a profiler of the
script is on, ours is not started, since it would replace it.

Source: memray documentation, `Tracker` (Bloomberg, Apache-2.0).
"""

import _thread
import logging
import os
import random
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from holdwater.deferred_signals import DeferredSignals
from holdwater.signal_errors import not_the_scripts, suppressed

MARK, EVENT_MARK = 1_234_577, 1_234_583
"""Bytes of the allocations that mark the end of a step, and of a step with an event."""
_LOCK = "tracker_creation_lock"
"""memray's own lock, which each recorder takes when it begins."""


LEAST_FREE = 1 << 29
"""Bytes that must be free where a recording is written: several times as many as it may take, since the script may
need the space."""


def _free(folder: Path) -> int:
    """Free bytes of a file system."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def profiler_in_use() -> str | None:
    """Which profiler or trace function of the script is on; None if there is none."""
    if sys.gettrace() is not None or threading.gettrace() is not None:
        return "a trace function is set (a debugger?)"
    if sys.getprofile() is not None or threading.getprofile() is not None:
        return "a profile function is set"
    if sys.version_info >= (3, 12) and sys.monitoring.get_tool(sys.monitoring.PROFILER_ID) is not None:
        return "a profiler is on"
    profiler = sys.modules.get("torch.autograd.profiler")
    return "torch's profiler is on" if getattr(profiler, "_is_profiler_enabled", False) else None


class Capture:
    """Records the allocations of this process into a file."""

    def __init__(self, file: Path) -> None:
        """Prepare to record.

        Args:
            file: Must not exist yet.
        """
        self.file = file
        self.lost: str | None = None
        """Why a recording that had begun is lost; None if it is not."""
        self._pid = os.getpid()
        self._tracker: Any = None
        self._memray: Any = None
        self._proxy: _LockProxy | None = None
        self._given_up = False
        """Whether a signal handler has raised while the recording was being begun."""

    def load(self) -> str | None:
        """Import memray; return why that is not possible, None if it is."""
        used, state = "memray" in sys.modules, random.getstate()
        try:
            with DeferredSignals():
                import memray  # noqa: PLC0415 - an extra
        except ImportError:
            return "memray is not installed, so allocations were not recorded; write: pip install memray"
        finally:
            random.setstate(state)  # what memray imports draws numbers
        if used and not hasattr(memray._memray, _LOCK):  # noqa: SLF001 - it has no public way
            return "the script uses memray itself, so allocations were not recorded"
        self._memray = memray
        with suppressed(AttributeError):  # its messages would be taken for the script's
            memray._memray.set_log_level(logging.ERROR)  # noqa: SLF001 - it has no public way
        return None

    def start(self) -> str | None:
        """Begin if memray was loaded; return why that is not possible, None if it is."""
        if self._memray is None:
            return None
        if _free(self.file.parent) < LEAST_FREE:
            return f"there is too little space in {self.file.parent}, so allocations were not recorded"
        failures: list[str] = []
        begun = threading.Lock()
        begun.acquire()
        try:
            _thread.start_new_thread(
                self._enter, (failures, begun)
            )  # `threading` loses what a signal handler raises
            begun.acquire()
        except BaseException:
            self._given_up = True
            raise
        return failures[0] if failures else None

    def _enter(self, failures: list[str], begun: threading.Lock) -> None:
        """Begin, on a separate thread: memray knows the running functions only of other threads."""
        try:
            self._begin(failures)
            if self._given_up:
                self.stop()
        finally:
            begun.release()

    def _begin(self, failures: list[str]) -> None:
        """Begin to record; a reason why that is not possible is added to the failures."""
        try:
            tracker = self._memray.Tracker(self.file)
            tracker.__enter__()
        except not_the_scripts(RuntimeError, OSError) as error:
            failures.append(
                "the script records with memray itself, so allocations were not recorded"
                if "one Tracker" in str(error)
                else f"memray could not record: {error}"
            )
        else:
            self._tracker = tracker
            self._proxy = _LockProxy.install(self._memray._memray, self)  # noqa: SLF001 - it has no public way

    def mark(self, *, event: bool = False) -> None:
        """Mark the end of a step.

        Args:
            event: Whether the step had an event of the clock that the growth follows.
        """
        if self._tracker is None:
            return
        if _scripts_profile() is not None:
            self.give_way("the script has set a profile function, so the recording of allocations was ended")
            return
        bytearray(MARK - 1)  # allocates one byte more than its length
        if event:
            bytearray(EVENT_MARK - 1)

    @property
    def size(self) -> int:
        """Bytes of the recording so far."""
        try:
            return 512 * self.file.stat().st_blocks if self._tracker is not None else 0
        except not_the_scripts(OSError):
            return 0

    def give_way(self, reason: str) -> None:
        """End, and discard the recording.

        Args:
            reason: For the message.
        """
        if self._pid == os.getpid() and self.stop():  # a forked child has the proxy, but no recording
            self.lost = reason
            with suppressed(OSError):
                self.file.unlink()

    def stop(self) -> bool:
        """End; False if nothing was recorded. The script's own profile function stays set."""
        proxy, self._proxy = self._proxy, None
        if proxy is not None:
            proxy.remove()
        if self._tracker is None:
            return False
        others = _scripts_profile()
        try:
            self._tracker.__exit__(None, None, None)
        finally:
            self._tracker = None
        if others is not None:
            _set_again(others)
        return True


def _scripts_profile() -> Any:  # noqa: ANN401 - a function, or a profiler that is written in C
    """The profile function that the script has set, None if there is none; memray before 1.18 has its own."""
    profile = sys.getprofile()
    return None if type(profile).__module__ == "memray._memray" else profile


def _set_again(profile: Any) -> None:  # noqa: ANN401 - a function, or a profiler that is written in C
    """Set a profile function again that ended with ours."""
    enable = getattr(profile, "enable", None)
    if enable is not None:
        enable()
    else:
        sys.setprofile(profile)


class _LockProxy:
    """Replaces memray's lock while ours records: whoever takes it is another recorder, and ours ends."""

    def __init__(self, module: Any, capture: Capture) -> None:  # noqa: ANN401 - memray's module
        self._module, self._capture = module, capture
        self._lock = getattr(module, _LOCK)

    @classmethod
    def install(cls, module: Any, capture: Capture) -> "_LockProxy | None":  # noqa: ANN401 - memray's module
        """Replace the lock; None if this version of memray has no such lock."""
        if not hasattr(module, _LOCK):
            return None
        proxy = cls(module, capture)
        setattr(module, _LOCK, proxy)
        return proxy

    def remove(self) -> None:
        """Restore the lock."""
        if getattr(self._module, _LOCK) is self:
            setattr(self._module, _LOCK, self._lock)

    def __enter__(self) -> bool:
        """Another recorder begins."""
        self._capture.give_way("the script has begun to record with memray itself, so our recording was ended")
        return bool(self._lock.__enter__())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The other recorder has begun, or failed to."""
        self._lock.__exit__(kind, error, trace)
