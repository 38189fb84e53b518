"""Record which of the user's lines allocate Python memory that stays, with the interpreter's own tracer.

It sees what Python's allocators hand out (numpy's arrays too), to the byte, and needs no other package; what a
library takes from malloc itself it does not see. A few calls under it take two to four times as long.

Source: Python documentation, `tracemalloc`.
"""

import tracemalloc
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from holdwater.attribution.user_code import is_ours, is_users

FRAMES = 24
"""Callers that are recorded of each allocation."""
SMALL = 512
"""Larger objects are malloc's blocks; smaller ones lie in Python's own pools."""
MOST_PLACES = 24
Place = tuple[str, int]
"""A file and a line."""


@dataclass(slots=True)
class _Held:
    """What is allocated at one moment."""

    by_line: dict[Place, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    """Bytes and number by the user's innermost line."""
    small: int = 0
    """Bytes of small objects."""
    small_count: int = 0
    total: int = 0


class PythonRecord:
    """Records Python's allocations from `start` on, over some calls."""

    def __init__(self) -> None:
        self._owns = False
        self._first = _Held()
        self.small_size = 0.0
        """The mean size of the small objects that stayed between mark and stop; 0 if none did."""
        self.stayed = 0
        """Bytes that stayed between the mark and the stop."""

    def start(self) -> None:
        """Begin, unless the program itself traces: then its trace is read."""
        if not tracemalloc.is_tracing():
            tracemalloc.start(FRAMES)
            self._owns = True

    def mark(self) -> None:
        """What is allocated from here on, and stays, counts."""
        self._first = _look()

    def stop(self, calls: int) -> dict[str, Any]:
        """End, and return what has stayed.

        Args:
            calls: Calls since the mark.

        Returns:
            As `recorded.read` returns it, a call for a step.
        """
        last, first = _look(), self._first
        self.close()
        count = last.small_count - first.small_count
        self.stayed = last.total - first.total
        self.small_size = (last.small - first.small) / count if count > 0 and last.small > first.small else 0.0
        grown = {
            place: (held[0] - first.by_line[place][0], held[1] - first.by_line[place][1])
            for place, held in last.by_line.items()
        }
        largest = sorted((place for place in grown if grown[place][0] > 0), key=lambda place: -grown[place][0])
        return {
            "steps": calls,
            "events": 0,
            "places": [_row(place, grown[place], calls) for place in largest[:MOST_PLACES]],
            "threads": [],
        }

    def close(self) -> None:
        """End, if this record began the trace."""
        if self._owns:
            tracemalloc.stop()
            self._owns = False


def _look() -> _Held:
    """What is allocated now, by the user's line."""
    held = _Held()
    for trace in tracemalloc.take_snapshot().traces:
        held.total += trace.size
        if trace.size <= SMALL:
            held.small += trace.size
            held.small_count += 1
        place = _users_line(trace.traceback)
        if place is not None:
            held.by_line[place][0] += trace.size
            held.by_line[place][1] += 1
    return held


def _users_line(frames: tracemalloc.Traceback) -> Place | None:
    """The user's innermost line of a stack; None if there is none, or holdwater itself allocates."""
    for frame in reversed(frames):
        if is_ours(frame.filename):
            return None
        if is_users(frame.filename):
            return frame.filename, frame.lineno
    return None


def _row(place: Place, grown: tuple[int, int], calls: int) -> dict[str, Any]:
    """A line, in the form of a recording's places."""
    return {
        "file": place[0],
        "line": place[1],
        "function": "",
        "inner": None,
        "bytes": grown[0],
        "mapped": 0,
        "count": grown[1],
        "steps": min(max(grown[1], 1), calls),
        "early": 1.0,
        "of_steps": calls,
        "of_events": None,
    }
