"""Which of the user's lines allocate what stays, recorded by memray over a few steps and read beside the training.

The recording is made in the training process; reading it is done by another process (`python -m
holdwater.attribution.capture FILE`), since that takes seconds. Each step leaves a mark in the record: an
allocation of a size that nothing else has. What was allocated in one step and is still there two marks later
stays; what every step allocates anew and gives back is left out.

Source: memray documentation, `Tracker` and `FileReader` (Bloomberg, Apache-2.0).
"""

import contextlib
import json
import logging
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from holdwater.attribution.user_code import is_users

MARK = 1_234_577
"""Bytes of the allocation that marks the end of a step."""
SURVIVED = 2
"""Marks after its own step that an allocation has to outlive."""
MOST_PLACES = 24
"""Places that are reported."""
FREES = frozenset(("FREE", "MUNMAP", "PYMALLOC_FREE"))


class Capture:
    """Records the allocations of this process into a file."""

    def __init__(self, file: Path) -> None:
        """Prepare to record.

        Args:
            file: Does not exist yet.
        """
        self.file = file
        self._tracker: Any = None
        self._memray: Any = None

    def load(self) -> str | None:
        """Import what records; return why that is not possible, None if it is."""
        try:
            import memray  # noqa: PLC0415 - an extra
        except ImportError:
            return 'memray is not installed, so allocations were not recorded: pip install "holdwater[explain]"'
        self._memray = memray
        with contextlib.suppress(AttributeError):  # its remarks would be taken for the script's
            memray._memray.set_log_level(logging.ERROR)  # noqa: SLF001 - it has no public way
        return None

    def start(self) -> str | None:
        """Begin, if it was loaded; return why that is not possible, None if it is."""
        if self._memray is None:
            return None
        failures: list[str] = []
        thread = threading.Thread(target=self._enter, args=(failures,))
        thread.start()
        thread.join()
        return failures[0] if failures else None

    def _enter(self, failures: list[str]) -> None:
        """Begin, on a thread of its own: only of other threads does memray know the functions that run already."""
        try:
            tracker = self._memray.Tracker(self.file)
            tracker.__enter__()
        except (RuntimeError, OSError) as error:
            failures.append(f"memray could not record: {error}")
        else:
            self._tracker = tracker

    def mark(self) -> None:
        """Mark the end of a step."""
        if self._tracker is not None:
            bytearray(MARK - 1)  # which takes a byte more than it holds

    def stop(self) -> bool:
        """End; False where nothing was recorded."""
        tracker, self._tracker = self._tracker, None
        if tracker is None:
            return False
        tracker.__exit__(None, None, None)
        return True


def read(file: Path) -> dict[str, Any]:
    """Read a recording.

    Args:
        file: That `Capture` wrote.

    Returns:
        `steps`: marks seen; `places`: the user's lines whose allocations stayed, the largest first, each with
        `file`, `line`, `function`, `bytes` and `count` over all steps, `steps` in which it happened, and `inner`,
        the function that was called there last.
    """
    import memray  # noqa: PLC0415 - an extra

    live: dict[int, tuple[int, Any]] = {}
    marks = 0
    frees = {int(kind) for kind in memray.AllocatorType if kind.name in FREES}
    reader = memray.FileReader(file)
    for record in reader.get_allocation_records():
        if record.allocator in frees:
            live.pop(record.address, None)
        elif record.size == MARK:
            marks += 1
        else:
            live[record.address] = (marks, record)
    stayed = [(step, record) for step, record in live.values() if step + SURVIVED <= marks]
    found = {"steps": marks, "places": _places(stayed, max(marks - SURVIVED + 1, 1))}
    reader.close()
    return found


def _places(stayed: list[tuple[int, Any]], steps: int) -> list[dict[str, Any]]:
    """Add up what stayed by the user's innermost line."""
    sizes: dict[tuple[str, int, str], int] = defaultdict(int)
    counts: dict[tuple[str, int, str], int] = defaultdict(int)
    seen: dict[tuple[str, int, str], set[int]] = defaultdict(set)
    inner: dict[tuple[str, int, str], str] = {}
    known: dict[int, tuple[tuple[str, int, str], str] | None] = {}
    for step, record in stayed:
        key = record.stack_id
        if key not in known:
            known[key] = _users_line(record.stack_trace())
        found = known[key]
        if found is not None:
            place, name = found
            sizes[place] += record.size
            counts[place] += 1
            seen[place].add(step)
            inner.setdefault(place, name)
    largest = sorted(sizes, key=lambda place: -sizes[place])[:MOST_PLACES]
    return [
        {
            "file": place[0],
            "line": place[1],
            "function": place[2],
            "bytes": sizes[place],
            "count": counts[place],
            "steps": len(seen[place]),
            "of_steps": steps,
            "inner": inner[place],
        }
        for place in largest
    ]


def _users_line(stack: list[tuple[str, str, int]]) -> tuple[tuple[str, int, str], str] | None:
    """The user's innermost line of a stack, and the innermost function of all; None where there is none."""
    for function, file, line in stack:
        if is_users(file):
            return (file, line, function), stack[0][0]
    return None


def main() -> None:
    """Print what a recording holds as JSON.

    Where memory is short the kernel shall take this process, not the one that trains.
    """
    with contextlib.suppress(OSError):  # Linux only
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    began = time.perf_counter()
    try:
        found = read(Path(sys.argv[1]))
    except (OSError, RuntimeError, ImportError) as error:
        found = {"error": str(error)}
    print(json.dumps(found | {"seconds": time.perf_counter() - began}))  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
