"""The user's lines whose allocations stay on a CUDA device, from the allocator's own record over a few steps.

Two snapshots are compared, so that memory that every step allocates and frees (gradients, activations) cancels.
The record holds what is allocated now, not every event, and is switched off after the second.

Source: PyTorch documentation, "Understanding CUDA Memory Usage" (`torch.cuda.memory._record_memory_history`).
"""

import sys
import time
from collections import Counter, defaultdict
from typing import Any

from holdwater.attribution.user_code import is_users

MOST_EVENTS = 20_000
"""The newest events of the allocator that are kept."""
MOST_PLACES = 24
"""Lines that are reported."""
MOST_SIZES = 8
"""Sizes of blocks that are reported if memory is reserved and not in use."""


class DeviceRecord:
    """Records allocations on the CUDA devices; does nothing if CUDA is not in use."""

    def __init__(self) -> None:
        self._cuda: Any = None
        self._first: dict[tuple[str, int], int] = {}
        self._first_step = self._first_event = 0
        self._began = 0

    def start(self) -> None:
        """Begin, if the process has started CUDA: what is in use, and why memory is reserved."""
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_initialized():
            return
        self._cuda = torch.cuda
        record = self._cuda.memory._record_memory_history  # noqa: SLF001 - the documented function, despite the underscore
        record("all", context="alloc", stacks="python", max_entries=MOST_EVENTS)

    def mark(self, step: int, events: int = 0) -> None:
        """Take the first snapshot.

        Args:
            step: The step that has just ended.
            events: The value of the clock that the growth follows.
        """
        if self._cuda is not None:
            self._first, self._first_step, self._first_event = self._by_line()[0], step, events
            self._began = time.time_ns() // 1000

    def stop(self, step: int, events: int = 0) -> dict[str, Any]:
        """Take the second snapshot, and end.

        Args:
            step: As for `mark`.
            events: As for `mark`.

        Returns:
            `device`: the user's lines with the bytes by which what they hold has grown, the largest first;
            `segments`: the lines for which more was reserved; `device_steps`, `device_events`: over how many;
            `device_free`: sizes of free blocks, with their number. Empty if nothing was recorded.
        """
        if self._cuda is None:
            return {}
        held, free, segments = self._by_line()
        self._cuda.memory._record_memory_history(None)  # noqa: SLF001
        grown = {place: size - self._first.get(place, 0) for place, size in held.items()}
        largest = sorted((place for place in grown if grown[place] > 0), key=lambda place: -grown[place])
        return {
            "device": [[*place, grown[place]] for place in largest[:MOST_PLACES]] if self._first_step else [],
            "segments": [[*place, size] for place, size in segments.most_common(MOST_PLACES)],
            "device_steps": step - self._first_step,
            "device_events": events - self._first_event if self._first_step else 0,
            "device_free": [[size, count] for size, count in free.most_common(MOST_SIZES)],
        }

    def abandon(self) -> None:
        """End without a result."""
        if self._cuda is not None:
            self._cuda.memory._record_memory_history(None)  # noqa: SLF001

    def _by_line(self) -> tuple[dict[tuple[str, int], int], Counter[int], Counter[tuple[str, int]]]:
        """Bytes in use by the user's line, the sizes of free blocks, and bytes reserved since the mark by line."""
        held: dict[tuple[str, int], int] = defaultdict(int)
        free: Counter[int] = Counter()
        segments: Counter[tuple[str, int]] = Counter()
        snapshot = self._cuda.memory._snapshot()  # noqa: SLF001
        for event in (event for events in snapshot.get("device_traces", ()) for event in events):
            place = _users_line(event.get("frames", ())) if event["action"] == "segment_alloc" else None
            if place is not None and event.get("time_us", 0) >= self._began:
                segments[place] += event["size"]
        for segment in snapshot["segments"]:
            for block in segment["blocks"]:
                if block["state"] == "inactive":
                    free[block["size"]] += 1
                place = _users_line(block.get("frames", ()))
                if place is not None and block["state"].startswith("active"):
                    held[place] += block["size"]
        return held, free, segments


def _users_line(frames: list[dict[str, Any]]) -> tuple[str, int] | None:
    """The user's innermost line; None if there is none, or the block is older than the record."""
    return next(((frame["filename"], frame["line"]) for frame in frames if is_users(frame["filename"])), None)
