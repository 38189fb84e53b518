"""Find the user's lines at which containers grow and the heap rises, by tracing a few steps line by line.

A Python trace function is set for the thread of the training loop, for a few steps only, and only for the user's
own files. It calls none of the program's code, and stops if it makes a step much longer.

Source: Python documentation, `sys.settrace`.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from types import FrameType
from typing import Any

from holdwater.attribution.lengths import length_of
from holdwater.attribution.user_code import is_users, users_frame

MOST_WATCHED = 16
"""Containers whose lengths are compared at each line."""
CHECK_EVERY = 64
"""Events between two readings of the clock."""
Place = tuple[str, int]
"""A file and a line."""


class LineTrace:
    """Traces the thread that starts it."""

    def __init__(
        self,
        watched: list[Any],
        heap: Callable[[], float] | None,
        *,
        most_seconds: float,
        files: Callable[[], set[str]] | None = None,
    ) -> None:
        """Prepare to trace.

        Args:
            watched: Containers whose growth is traced.
            heap: Reads the bytes that are in use on the heap; None if unknown.
            most_seconds: Seconds after which it stops.
            files: Lists the open files, by their numbers; None if they are not traced.
        """
        self.opened: dict[str, Place] = {}
        """The line that has opened each file that is still open."""
        self._list_files, self._open = files, set[str]()
        self.grown: dict[int, dict[Place, int]] = defaultdict(lambda: defaultdict(int))
        """Elements that each container, by its index in `watched`, has gained, by line."""
        self.heap: dict[Place, float] = defaultdict(float)
        """Net bytes by which the heap has risen at each line."""
        self.spent: dict[Place, float] = defaultdict(float)
        """Seconds that each line took: another thread's allocations are attributed to the longest."""
        self.ran: dict[str, set[int]] = defaultdict(set)
        """The lines of each file that have run."""
        self.gave_up = False
        self._watched = watched[:MOST_WATCHED]
        self._lengths = [length_of(item) for item in self._watched]
        self._read_heap = heap
        self._in_use = 0.0
        self._at: Place | None = None
        self._events = 0
        self._until = self._then = 0.0
        self._most = most_seconds
        self._frames: list[FrameType] = []

    def start(self) -> bool:
        """Begin; False if another tool traces this thread already."""
        if sys.gettrace() is not None:
            return False
        try:
            self._begin()
        except BaseException:  # a signal handler's
            self.stop()
            raise
        return True

    def _begin(self) -> None:
        """Trace the user's running functions, and those that they call."""
        frame = users_frame(sys._getframe())  # noqa: SLF001 - the documented function
        self._at = None if frame is None else (frame.f_code.co_filename, frame.f_lineno)
        while frame is not None:
            if is_users(frame.f_code.co_filename) and frame.f_trace is None:
                frame.f_trace = self._line
                self._frames.append(frame)
            frame = frame.f_back
        self._then = time.perf_counter()
        self._until = self._then + self._most
        self._in_use = 0.0 if self._read_heap is None else self._read_heap()
        self._open = set() if self._list_files is None else self._list_files()
        sys.settrace(self._call)

    def stop(self) -> None:
        """End, and release everything."""
        if sys.gettrace() == self._call:
            sys.settrace(None)
        self._compare()
        for frame in self._frames:
            frame.f_trace = None
        self._frames.clear()
        self._watched = []

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:  # noqa: ANN401 - a trace function
        """A function begins: trace it if it is the user's."""
        del event, argument
        if not is_users(frame.f_code.co_filename):
            return None
        self._compare()
        self._go_to(frame)
        return self._line

    def _go_to(self, frame: FrameType) -> None:
        """A line runs."""
        self._at = (frame.f_code.co_filename, frame.f_lineno)
        self.ran[self._at[0]].add(self._at[1])

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:  # noqa: ANN401 - a trace function
        """A line begins, or a function ends: growth since the last event belongs to the previous line."""
        del argument
        self._compare()
        self._events += 1
        if self._events % CHECK_EVERY == 0 and time.perf_counter() > self._until:
            self.gave_up = True
            self.stop()
            return None
        if event == "return":
            caller = users_frame(frame.f_back)
            self._at = None if caller is None else (caller.f_code.co_filename, caller.f_lineno)
        else:
            self._go_to(frame)
        return self._line

    def _compare(self) -> None:
        """Attribute growth to the line that ran."""
        at = self._at
        for index, item in enumerate(self._watched):
            length = length_of(item)
            if length != self._lengths[index]:
                if at is not None and length > self._lengths[index]:
                    self.grown[index][at] += length - self._lengths[index]
                self._lengths[index] = length
        if self._list_files is not None:
            self._note_files(self._list_files(), at)
        if self._read_heap is not None:
            in_use = self._read_heap()
            now = time.perf_counter()
            if at is not None:
                self.heap[at] += in_use - self._in_use
                self.spent[at] += now - self._then
            self._in_use, self._then = in_use, now

    def _note_files(self, now: set[str], at: Place | None) -> None:
        """Attribute files that have been opened to the line that ran, and forget those that were closed."""
        for number in self._open - now:
            self.opened.pop(number, None)
        if at is not None:
            self.opened |= dict.fromkeys(now - self._open, at)
        self._open = now
