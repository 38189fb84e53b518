"""Read a recording of `capture.Capture` in another process: which of the user's lines allocate what stays.

    python -m holdwater.attribution.recorded FILE [--every STEPS] [--by-events]

An allocation stays if it is still live two marks after its step; what every step allocates and frees is left out.
If the growth comes every so many steps, or by events, an allocation has to outlive the next rise.

Source: memray documentation, `FileReader` (Bloomberg, Apache-2.0).
"""

import argparse
import contextlib
import json
import math
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from holdwater.attribution.capture import EVENT_MARK, MARK
from holdwater.attribution.user_code import is_observers, is_ours, is_users

SURVIVED = 2
"""Marks after its own step (or event) that an allocation must outlive."""
LATE = 1.1
"""An event may come later than expected by this factor."""
MOST_PLACES = 24
"""Places that are reported."""
MOST_THREADS = 4
NICE = 5
"""The niceness of the reading process, so that the training has priority."""
LARGE = 4096
"""Blocks of this size or more leave gaps that others may not fit into."""
ARENA = 1 << 20
"""Bytes that Python maps for small objects, at whatever line they run out: one says nothing of that line."""
FREES = frozenset(("FREE", "MUNMAP", "PYMALLOC_FREE"))
Line = tuple[str, int, str]
"""A file, a line, a function."""


class Live(NamedTuple):
    """An allocation that was not freed."""

    step: int
    event: int
    record: Any


@dataclass(slots=True)
class _AllocatedAt:
    """What one line, or one thread, has allocated and not freed."""

    inner: str = ""
    bytes: int = 0
    mapped: int = 0
    """The part of the bytes that the line itself mapped (`mmap`)."""
    count: int = 0
    early: int = 0
    """Bytes from the first half of the counted steps."""
    arenas: int = 0
    """Of these, what Python mapped for small objects."""
    steps: set[int] = field(default_factory=set)
    """Steps in which it left something, including what is too young to count."""

    @property
    def lone_arena(self) -> int:
        """Bytes of its only arena: another line may have used up the one before. 0 if it has several, or none."""
        return ARENA if self.arenas == 1 else 0


@dataclass(slots=True)
class AllocationRecording:
    """The totals of a recording's records."""

    every: int = 0
    """Steps from one rise of the growth to the next; 0 if it grows at each step."""
    by_events: bool = False
    """Whether the growth follows events that were marked."""
    mapping: int = -1
    """The kind of memray's records of `mmap`."""
    marks: int = 0
    events: int = 0
    loop: int | None = None
    """The thread of the training loop, which sets the marks."""
    live: dict[int, Live] = field(default_factory=dict)
    new_sizes: dict[int, int] = field(default_factory=dict)
    """The step in which a large size was first requested, by size."""

    def take(self, records: Iterable[Any], frees: frozenset[int]) -> None:
        """Track allocations and frees.

        Args:
            records: memray's, in order.
            frees: Kinds of records that free memory.
        """
        for record in records:
            if record.allocator in frees:
                self.live.pop(record.address, None)
            elif record.size == MARK:
                self.marks += 1
                self.loop = record.tid
            elif record.size == EVENT_MARK:
                self.events += 1
            else:
                self.live[record.address] = Live(self.marks, self.events, record)
                if record.size >= LARGE:
                    self.new_sizes.setdefault(record.size, self.marks)

    def as_json(self) -> dict[str, Any]:
        """See `read`."""
        lines: dict[Line, _AllocatedAt] = {}
        threads: dict[int, _AllocatedAt] = {}
        for row, line, inner in self._by_line():
            if line is not None:
                self._book(lines.setdefault(line, _AllocatedAt(inner)), row)
            elif row.record.tid != self.loop and not row.record.stack_trace():
                self._book(threads.setdefault(row.record.tid, _AllocatedAt(_name(row.record))), row)
        return {
            "steps": self.marks,
            "events": self.events,
            "new_sizes": sum(step > self.marks // 2 for step in self.new_sizes.values()),
            "places": [
                {"file": file, "line": number, "function": function, "inner": place.inner} | self._row(place)
                for (file, number, function), place in _largest(lines, MOST_PLACES)
            ],
            "threads": [
                {"tid": tid, "name": place.inner} | self._row(place)
                for tid, place in _largest(threads, MOST_THREADS)
            ],
        }

    @property
    def _outlives(self) -> int:
        """Marks, or events, that an allocation must outlive."""
        return math.ceil(LATE * self.every) if self.every and not self.by_events else SURVIVED

    def _stays(self, row: Live) -> bool:
        """Whether an allocation is old enough to count as staying."""
        if self.by_events:
            return row.event + self._outlives <= self.events
        return row.step + self._outlives <= self.marks

    def _by_line(self) -> Iterator[tuple[Live, Line | None, str]]:
        """The live allocations but those of the newest steps, with the user's line and the innermost function."""
        known: dict[int, tuple[Line | None, str]] = {}
        for row in self.live.values():
            if row.step + SURVIVED <= self.marks or self.by_events:
                key = row.record.stack_id
                if key not in known:
                    known[key] = _users_line(row.record.stack_trace())
                yield row, *known[key]

    def _book(self, place: _AllocatedAt, row: Live) -> None:
        """Add an allocation to its place."""
        place.steps.add(row.event if self.by_events else row.step // max(self.every, 1))
        if self._stays(row):
            place.bytes += row.record.size
            mapped = row.record.size if row.record.allocator == self.mapping else 0
            place.mapped += mapped
            place.arenas += mapped == ARENA
            place.count += 1
            place.early += row.record.size if row.step * 2 < self.marks - self._outlives + 1 else 0

    def _row(self, place: _AllocatedAt) -> dict[str, Any]:
        """A place's numbers."""
        of_steps = max(self.marks - (0 if self.by_events else self._outlives) + 1, 1)
        return {
            "bytes": place.bytes - place.lone_arena,
            "mapped": place.mapped - place.lone_arena,
            "count": place.count,
            "steps": len(place.steps),
            "early": round(place.early / max(place.bytes, 1), 3),
            "of_steps": max(round(of_steps / self.every), 1) * self.every if self.every else of_steps,
            "of_events": max(self.events - SURVIVED + 1, 1) if self.by_events else None,
        }


def read(file: Path, *, every: int = 0, by_events: bool = False) -> dict[str, Any]:
    """Read a recording.

    Args:
        file: Written by `Capture`.
        every: Steps from one rise of the growth to the next; 0 if it grows at each step.
        by_events: Whether the growth follows the marked events.

    Returns:
        `steps`, `events`: marks seen; `places`: the user's lines whose allocations stayed, the largest first, each
        with `file`, `line`, `function`, `bytes`, of these `mapped`, and `count` over all `of_steps` (or
        `of_events`), `steps` in which it happened, `early`, the share of the first half, and `inner`, the function
        that was called there last;
        `threads`: native threads whose allocations stayed, with `tid` and `name`; `new_sizes`: large sizes that
        the first half of the recording does not have.
    """
    import memray  # noqa: PLC0415 - an extra

    recording = AllocationRecording(every, by_events, int(memray.AllocatorType.MMAP))
    frees = frozenset(int(kind) for kind in memray.AllocatorType if kind.name in FREES)
    reader = memray.FileReader(file)
    recording.take(reader.get_allocation_records(), frees)
    found = recording.as_json()
    reader.close()
    return found


def _largest(places: dict[Any, _AllocatedAt], most: int) -> list[tuple[Any, _AllocatedAt]]:
    """The places that have left most."""
    left = [(key, place) for key, place in places.items() if place.bytes > place.lone_arena]
    return sorted(left, key=lambda pair: pair[1].lone_arena - pair[1].bytes)[:most]


def _users_line(stack: list[tuple[str, str, int]]) -> tuple[Line | None, str]:
    """The user's innermost line of a stack, and the innermost function of all, as `holdwater.NAME` if it is ours.

    There is none in what holdwater allocates itself, in a hook that a line of the user's has called.
    """
    if stack and is_observers(stack[0][1]):
        return None, ""
    for function, file, line in stack:
        if is_users(file):
            inner = stack[0][0]
            return (file, line, function), f"holdwater.{inner}" if is_ours(stack[0][1]) else inner
    return None, ""


def _name(record: Any) -> str:  # noqa: ANN401 - a record of memray
    """The name of a record's thread; empty if it has none."""
    return str(getattr(record, "thread_name", ""))


def main() -> None:
    """Print what a recording holds as JSON.

    If memory is short the kernel should kill this process, not the one that trains.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--every", type=int, default=0)
    parser.add_argument("--by-events", action="store_true")
    options = parser.parse_args()
    if hasattr(os, "nice"):
        os.nice(NICE)
    with contextlib.suppress(OSError):  # Linux only
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    began = time.perf_counter()
    try:
        found = read(options.file, every=options.every, by_events=options.by_events)
    except (OSError, RuntimeError, ImportError) as error:
        found = {"error": str(error)}
    print(json.dumps(found | {"seconds": time.perf_counter() - began}))  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
