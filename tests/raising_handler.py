"""A signal handler that raises at each place of a function of ours, one after another: enumeration instead of luck.

Python runs handlers where a function begins and after a call of a function in C. A profile function is called at
the same places, and what it raises comes out of there, as what a handler raises does.
"""

import gc
import inspect
import signal
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

Place = tuple[CodeType, int, str, CodeType, int]
"""A code object with the position in it, the event, and the same of the innermost function of ours."""


class DueError(TimeoutError):
    """What the handler raises, as the idiom does it."""


class AnyDueError(DueError, RuntimeError, ValueError, KeyError, TypeError):
    """What it raises in a function of ours: whatever of these that catches, it catches this.

    Not in a library: `threading.current_thread`, for one, catches each KeyError.
    """


def is_ours(frame: FrameType) -> bool:
    """Whether a function is of ours."""
    return str(frame.f_globals.get("__name__", "")).startswith("holdwater")


def ring(number: int, frame: FrameType | None) -> None:
    """Handle a signal."""
    raise AnyDueError if frame is not None and is_ours(frame) else DueError


def lost_by(hook: Callable[[], object], *, prepare: Callable[[], object] = lambda: None) -> tuple[int, list[str]]:
    """Call a function until the handler has raised at each place of it.

    Args:
        hook: Calls a function of ours.
        prepare: Called before each call.

    Returns:
        At how many places it raised, and from which of them that did not come out of the function.
    """
    raising, lost = _Raising(), list[str]()
    before, callbacks = signal.signal(signal.SIGALRM, ring), gc.callbacks[:]
    gc.callbacks.clear()  # of the test's tools: what is raised in one is lost
    try:
        prepare()
        hook()  # what it imports is loaded now: an import catches each OSError
        while True:
            prepare()
            raising.place = None
            out = raising.call(hook)
            if raising.place is None:
                return len(raising.places), lost
            if not out:
                lost.append(raising.told())
    finally:
        signal.signal(signal.SIGALRM, before)
        gc.callbacks[:] = callbacks


class _Raising:
    """Raises at one place in each call: one at which it has not raised yet."""

    def __init__(self) -> None:
        self.places: set[Place] = set()
        self.place: Place | None = None

    def call(self, hook: Callable[[], object]) -> bool:
        """Call a function; whether what was raised came out of it."""
        sys.setprofile(self._look)
        try:
            hook()
        except DueError:
            return True
        finally:
            sys.setprofile(None)
        return False

    def _look(self, frame: FrameType, event: str, argument: Any) -> None:
        """Raise if this is a new place."""
        del argument
        if self.place is not None or event not in {"call", "c_return"}:
            return
        if signal.getsignal(signal.SIGALRM) is not ring:
            return  # the handler is called later: `deferred_signals`
        if event == "call" and frame.f_code.co_flags & inspect.CO_GENERATOR:
            return  # also called where one is closed, and there no handler runs
        ours: FrameType | None = frame
        while ours is not None and not is_ours(ours):
            ours = ours.f_back
        if ours is None:
            return
        place = (frame.f_code, frame.f_lasti, event, ours.f_code, ours.f_lasti)
        if place not in self.places:
            self.places.add(place)
            self.place = place
            ring(signal.SIGALRM, frame)

    def told(self) -> str:
        """The place in words."""
        if self.place is None:
            return ""
        code, _, event, ours, _ = self.place
        return f"{event} {code.co_qualname} in {ours.co_qualname} ({ours.co_filename})"
