"""Call a function again and again, and read exact memory counters between the calls.

Before each reading garbage is collected (unless the program has switched collection off), so that cycles which the
collector frees anyway do not count. The readings lie in an array of fixed size, and what judging them costs is
taken off, so that the test does not see itself.
"""

import gc
import time
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from holdwater.detectors.flatness import FEWEST_READINGS
from holdwater.probes.counters import COUNTERS, Counters
from holdwater.timeline.buckets import Floats

MOST_READINGS = 576
"""Readings that are kept: beyond, every second is dropped."""
LEAST_APART, TIMES = 0.02, 3.0
"""Seconds between two readings, or this many times the cost of one, if that is more."""
FEW = 2 * FEWEST_READINGS
"""Readings of a test whose number of calls is given."""

MUCH = float(1 << 26)
"""Bytes of growth from which on readings come sooner: memory must not run out before there are enough."""
READINGS_TO_FILL, FILLING = 128, 0.1
"""Readings before those that count, and the most seconds that they take."""

Step = Callable[[], Any]


class RepeatedCalls:
    """Calls, and the readings between them; a context manager."""

    def __init__(self, step: Step, *, steps: int | None = None, between: Callable[[], None] | None = None) -> None:
        """Prepare.

        Args:
            step: What is called.
            steps: The most calls; None if there is no limit.
            between: Called before each reading: releases what the test run itself has kept of the calls.
        """
        self.counters = Counters()
        self.calls = 0
        self.readings = 0
        self._step, self._most, self._between = step, steps, between
        self._table = np.zeros((MOST_READINGS, len(COUNTERS) + 1))
        self._bytes = np.array([float(counter.name != "blocks") for counter in COUNTERS])
        self._own = np.zeros(len(COUNTERS))
        self._present = np.zeros(len(COUNTERS), dtype=bool)
        self._began = time.perf_counter()
        self._apart = 1
        self._froze = False
        self._cost = 0.0

    def __enter__(self) -> Self:
        """The first call: what is loaded and filled there is no growth; then freeze what exists."""
        self._began = time.perf_counter()
        try:
            self._step()
        except BaseException:
            self.counters.close()
            raise
        self.calls = 1
        if gc.isenabled():
            gc.collect()
            if not gc.get_freeze_count():  # else collecting everything before each reading would take most time
                gc.freeze()
                self._froze = True
        self._fill()
        self._read()
        return self

    def __exit__(self, *_: object) -> None:
        """Release what was frozen."""
        self.unfreeze()
        self.counters.close()

    def unfreeze(self) -> None:
        """Give everything that existed back to the collector."""
        if self._froze:
            gc.unfreeze()
            self._froze = False

    @property
    def seconds(self) -> float:
        """Seconds since the first call began."""
        return time.perf_counter() - self._began

    @property
    def seconds_a_call(self) -> float:
        """Seconds of a call, with its part of the readings."""
        return self.seconds / self.calls

    @property
    def done(self) -> bool:
        """Whether there are no more calls to make."""
        return self._most is not None and self.calls >= self._most

    def go_on(self) -> None:
        """Call until the next reading is due, and read."""
        began, count = time.perf_counter(), self._apart
        if self._most is not None:
            count = max(min(count, self._most // FEW, self._most - self.calls), 1)
        for _ in range(count):
            self._step()
        self.calls += count
        each = (time.perf_counter() - began) / count
        self._read()
        wanted = max(LEAST_APART, TIMES * self._cost) / max(each, 1e-9)
        if self.readings < FEW and self.grown > MUCH:
            self._apart = max(self._apart // 4, 1)
            return
        self._apart = max(int(min(wanted, 2.0 * self._apart)), self._apart if self.readings > FEW else 1, 1)

    @property
    def grown(self) -> float:
        """Bytes by which memory has grown since the first reading, by the counter that shows most."""
        last, first = self._table[self.readings - 1, 1:], self._table[0, 1:]
        return float(((last - first) * self._bytes).max())

    def series(self, index: int) -> tuple[Floats, Floats] | None:
        """The calls, and one counter's readings; None if it was not there from the beginning.

        Args:
            index: Of the counter in `COUNTERS`.
        """
        first = self._first_of(index)
        if first is None:
            return None
        return self._table[first : self.readings, 0].copy(), self._table[first : self.readings, index + 1].copy()

    def without_us(self, work: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the work returns
        """Do some work of the test's own, and take what it leaves in memory off later readings.

        Args:
            work: Judges the readings.
        """
        before = self._now()
        found = work()
        self._own += self._now() - before
        return found

    def _fill(self) -> None:
        """Read a hundred times: what the interpreter keeps for reuse of our readings is full then."""
        until = time.perf_counter() + FILLING
        for _ in range(READINGS_TO_FILL):
            self._now()
            if time.perf_counter() > until:
                return

    def _first_of(self, index: int) -> int | None:
        """The first reading of a counter: a device may be used only after some calls."""
        seen = np.flatnonzero(self._table[: self.readings, index + 1])
        if not self._present[index] or self.readings - int(seen[0]) < FEWEST_READINGS:
            return None
        return int(seen[0])

    def _read(self) -> None:
        """Take a reading."""
        began = time.perf_counter()
        if self._between is not None:
            self._between()
        if self.readings == MOST_READINGS:
            self.readings = MOST_READINGS // 2
            self._table[: self.readings] = self._table[::2].copy()
            self._apart *= 2
        row = self._table[self.readings]
        row[1:] = self._now() - self._own
        row[0] = self.calls
        self.readings += 1
        took = time.perf_counter() - began
        self._cost = took if not self._cost else min(took, 1.5 * self._cost)

    def _now(self) -> Floats:
        """All counters; zero for one that is not there."""
        if gc.isenabled():
            gc.collect()
        found = self.counters.read()
        values: Floats = np.array([found.get(counter.name, 0.0) for counter in COUNTERS])
        self._present |= values != 0
        return values
