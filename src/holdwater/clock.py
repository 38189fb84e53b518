"""The clock that is passed to whatever needs the time: the system's, and a protocol that tests implement."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of time; in tests `holdwater.testing.ManualClock`, which is advanced by hand."""

    def elapsed(self) -> float:
        """Seconds from an arbitrary start; never goes backwards, whatever the wall clock does."""
        ...

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC; for stamps that people read, never for durations."""
        ...


class SystemClock:
    """The machine's own clock."""

    elapsed = staticmethod(time.perf_counter)
    wall = staticmethod(time.time)


def format_duration(seconds: float) -> str:
    """Write a duration with its units, so that it looks neither like a time of day nor like a count of steps.

    Such as `42 s`, `3 min 05 s`, `2 h 03 min`, or `3 d 2 h`.
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    return f"{hours} h {minute:02} min" if hours else f"{minutes} min {second:02} s"
