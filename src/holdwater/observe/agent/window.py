"""A window: a few dozen steps in which a growth is recorded and traced, inside the training process.

First a recording of allocations begins. A few dozen steps later objects are counted, and what has grown since
the previous count is named with its holder. Then a few steps are traced line by line, to find the line that
stores what grows. If growth comes with events, or every so many steps, the window waits for two rises, as long as
that costs little. Nothing is evaluated or judged here: the watcher does that.
"""

import contextlib
import json
import math
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from holdwater.attribution.capture import Capture, profiler_in_use
from holdwater.attribution.device import DeviceRecord
from holdwater.attribution.tracing import LineTrace
from holdwater.observe.agent.processes import native_threads, open_files
from holdwater.observe.agent.seen import seen
from holdwater.signal_errors import suppressed

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdwater.attribution.census import Census
    from holdwater.attribution.gains import Gains

STEPS, FEWEST = 24, 6
"""Steps of a window: usually, and if steps are long."""
SECONDS = 20.0
"""Seconds after which a window of long steps ends."""
LONGEST = 600.0
"""Seconds after which a window that waits for events ends, or the share below of the run so far."""
WAITS = 0.25
TRACED = 3
"""Steps that are traced line by line at its end; all of a window's where open files are counted."""
HANDLES_SECONDS = 1.0
"""Seconds that these may take at most: some rounds open files, others none."""
MOST_EXTRA = 2.0
"""Seconds that a window may cost the training, its counts excluded, before it is closed."""
PATIENCE, PATIENT_SHARE = 5.0, 0.01
"""Seconds that a waiting window may cost, less what was spent before; or this share of the run so far, if that is
more."""
LEAST_EXTRA = 0.5
"""Seconds that any window may cost."""
SPAN = 2.2
"""A window spans this many times the steps between two rises."""
CEASED = 3
"""Events that do not come for this many times the steps between two have ceased; if the growth goes on, it follows
something else."""
LATE = 1.1
"""A window waits for the next rise at most this many times the steps between two."""
MOST_RECORDED = 1 << 27
"""Most bytes of a recording: a longer one would take too long to read."""
MOST_AT_ONCE = 1 << 25
"""Bytes after which a recording that waits for nothing ends: three million allocations take 3 s to read."""
WEIGH_EVERY = 16
"""Steps between two checks of a recording's size."""


class Standing(NamedTuple):
    """The state of the run when a window is opened."""

    counted_at: int
    """The step of the newest count."""
    period: float
    """Seconds of a step so far."""
    events: int
    """The value of the clock that the growth follows."""
    counted_events: int
    """Its value at the newest count."""
    seconds: float
    """Duration of the run so far."""
    spent: float = 0.0
    """Processor seconds that examining the process has taken so far."""
    work: float | None = None
    """Processor seconds of a step so far; None if not known well."""


class Window:
    """One window; while it is open, `turn` is called after every step."""

    def __init__(self, folder: Path, number: int, gains: "Gains", *, heap: "Callable[[], float] | None") -> None:
        """Prepare a window.

        Args:
            folder: Holds the request `window-N` and the recording.
            number: The request's.
            gains: Compares counts.
            heap: Reads the bytes in use on the heap; None if unknown.
        """
        request: dict[str, Any] = json.loads((folder / f"window-{number}").read_text(encoding="utf-8") or "{}")
        self.number = number
        self.seconds = 0.0
        """Seconds that it has cost the training so far."""
        self.clock: str | None = request.get("clock")
        """The clock whose events it waits for, by its name in the session; None waits only for steps."""
        self._events_wanted = int(request.get("events", 0))
        self._every, self._apart = (int(request.get(key) or 0) for key in ("every_steps", "apart"))
        self._wanted = int(request.get("steps", STEPS))
        self._most = float(request.get("seconds", math.inf))
        self._component = str(request.get("component", ""))
        self._gains, self._heap = gains, heap
        self._capture = Capture(folder / f"allocations-{number}")
        self._device = DeviceRecord()
        self._trace: LineTrace | None = None
        self._missing: list[str] = []
        self._began_at = self._steps = self._turns = self._events = 0
        self._since = Standing(0, 0.0, 0, 0, 0.0)
        self._opened = self._worked = 0.0
        self._found: dict[str, Any] | None = None
        self._heap_seen: dict[str, Any] = {}
        """The lines at which the heap has grown, if they were traced before anything was counted."""
        self._recorded: tuple[bool, dict[str, Any]] | None = None
        """The result of recording, once it has ended; counting follows."""

    def open(self, step: int, standing: Standing) -> None:
        """Begin: record allocations from now on. The window's count will be compared with the newest count.

        Args:
            step: The step that has just ended.
            standing: The state of the run.
        """
        began = time.perf_counter()
        self._began_at, self._since, self._events = step, standing, standing.events
        self._steps = max(min(self._wanted, int(SECONDS / max(standing.period, 1e-6))), FEWEST)
        self._steps = max(self._steps, math.ceil(SPAN * self._every))
        profiler = profiler_in_use()
        if profiler is not None:
            self._missing.append(f"{profiler}, so allocations were not recorded and lines not traced")
        elif not self._component.startswith("device."):
            reasons = [self._capture.load(), self._capture.start()]
            self._missing += [reason for reason in reasons if reason is not None]
        if not self._component.startswith("host."):
            self._device.start()
        self._opened, self._worked = time.perf_counter(), time.process_time()
        self.seconds += self._opened - began

    def turn(self, step: int, events: int, take: "Callable[[Any], Census | None]") -> "Census | None":
        """Continue by a step; return the count when it is complete.

        Args:
            step: The step that has just ended.
            events: The value of the clock that the growth follows.
            take: Counts objects for a turn, and passes them to its argument; None while it is not done.
        """
        self._turns += 1
        came, self._events = events > self._events, events
        if self._found is None:
            if self._recorded is None:
                self._capture.mark(event=came)
                self._give_up_events()
                if self._turns == self._steps // 2 if self.clock is None else came and self._came == 1:
                    self._device.mark(step, events)
            if self._trace is not None:
                if self._has_traced(self._trace, came=came):
                    self._keep_heap(self._trace)
                return None
            if self._recorded is not None or self._is_over():
                return self._count(step, take)
            self._limit_recording()
        elif self._trace is not None and self._has_traced(self._trace, came=came):
            self._stop_trace()
        return None

    @property
    def is_due(self) -> bool:
        """Whether the next turn may be the one that counts."""
        return self._found is None and self._turns + 1 >= (
            self._steps if self._waits else min(FEWEST, self._steps)
        )

    @property
    def adds_memory(self) -> bool:
        """Whether the next turn may add memory of ours; waiting adds none."""
        return self.is_due or (self._found is not None and not self._waits)

    @property
    def is_patient(self) -> bool:
        """Whether it waits for rare growth: then a count at its beginning is worth its cost too."""
        return self.clock is not None or self._every > 0

    @property
    def over(self) -> bool:
        """Whether the window is complete."""
        return self._found is not None and self._trace is None

    def close(self, step: int, take: "Callable[[Any], Census | None]") -> "Census | None":
        """End it at once, complete or not: the script ends.

        Args:
            step: The step that ended last.
            take: As for `turn`.

        Returns:
            The count; None if no step has ended since the window was opened.
        """
        self._stop_trace()
        if self._found is None and step > self._began_at:
            return self._count(step, take, trace=False)
        self.abandon()
        return None

    def abandon(self) -> None:
        """Switch everything off, and release what was watched."""
        with contextlib.ExitStack() as stack:  # one that fails does not keep the others from being switched off
            for stop in (self._gains.forget, self._device.abandon, self._capture.stop):
                stack.enter_context(suppressed(Exception))
                stack.callback(stop)
            if self._trace is not None:
                self._trace.stop()
        self._trace = None

    def as_json(self) -> dict[str, Any]:
        """The result, for the watcher."""
        return (self._found or {}) | {"missing": self._missing, "seconds": self.seconds}

    @property
    def _counts_handles(self) -> bool:
        """Whether open files are what grows: nobody records who opens them, but they are listed at each line."""
        return self._component == "process.handles"

    @property
    def _came(self) -> int:
        """Events that have come since the window was opened."""
        return self._events - self._since.events

    @property
    def _waits(self) -> bool:
        """Whether it waits for rare growth."""
        return self.clock is not None or self._steps > STEPS

    @property
    def _extra(self) -> float:
        """Processor seconds that steps took beyond their usual; other busy programs do not count."""
        longer = time.perf_counter() - self._opened - self._turns * self._since.period
        if self._since.work is None:
            return longer
        return min(longer, time.process_time() - self._worked - self._turns * self._since.work)

    @property
    def _allowed(self) -> float:
        """Seconds that it may cost: more if it waits in a long run."""
        left = max(PATIENCE - self._since.spent, LEAST_EXTRA)
        if not self._waits:
            return min(MOST_EXTRA, left, self._most)
        passed = self._since.seconds + time.perf_counter() - self._opened
        return min(self._most, max(left, PATIENT_SHARE * passed))

    def _is_over(self) -> bool:
        """Whether enough steps, and events of the clock that the growth follows, have passed."""
        elapsed = time.perf_counter() - self._opened
        if elapsed > max(LONGEST, WAITS * self._since.seconds):
            return True
        expensive = self._extra > self._allowed or self._capture.size > MOST_AT_ONCE
        if expensive and not self._waits and self._turns >= FEWEST:
            return True
        return self._turns >= self._steps and (self.clock is None or self._came >= self._events_wanted)

    def _give_up_events(self) -> None:
        """Wait for steps instead, if the events have ceased."""
        if self._came == 0 and 0 < CEASED * self._apart <= self._turns:
            self.clock, self._every = None, self._apart

    def _limit_recording(self) -> None:
        """End a recording that has become too expensive, or too long; objects are still counted."""
        if not self._waits or self._turns % WEIGH_EVERY:
            return
        if self._extra > self._allowed:
            self._capture.give_way(
                f"the recording of allocations was ended early: after {self._turns} steps that had cost "
                f"{self._extra:.0f} s"
            )
        elif self._capture.size > MOST_RECORDED:
            self._capture.give_way(
                f"the recording of allocations was ended early: {self._turns} steps fill the disk"
            )

    def _count(self, step: int, take: "Callable[[Any], Census | None]", *, trace: bool = True) -> "Census | None":
        """Count again for a turn; when that is done, name what has grown, and begin to trace lines."""
        began = time.perf_counter()
        if self._recorded is None:
            self.seconds += max(self._extra, 0.0)
            self._recorded = (self._capture.stop(), self._device.stop(step, self._events))
            if trace and self._component in {"", "host.native"} and not self._waits:
                self._start_trace([])  # counting may take long, and the heap grows
                if self._trace is not None:
                    return None
        recorded, device = self._recorded
        census = take(self._gains.compare)
        if census is None:
            self.seconds += time.perf_counter() - began
            return None
        if self._capture.lost is not None:
            self._missing.append(self._capture.lost)
        events = self._events - self._since.counted_events if self.clock is not None else 0
        self._found = {
            **seen(self._gains, self._since.counted_at, census.step),
            "counted": census.counted,
            "allocations": self._capture.file.name if recorded else None,
            "every_steps": self._every,
            "by_events": self.clock is not None,
            "events": events,
            "native_threads": native_threads(),
            **self._heap_seen,
            **device,
            **self._unfinished(step, events),
        }
        if trace:
            self._start_trace(self._gains.growing)
        self._gains.forget()
        self.seconds += time.perf_counter() - began
        return census

    def _unfinished(self, step: int, events: int) -> dict[str, str]:
        """Why too little was seen, if so: neither the window nor the counts span two rises."""
        if self.clock is not None and max(events, self._came) < self._events_wanted:
            return {"unfinished": f"it was closed before the second of the {self.clock} that the growth follows"}
        if self._every and step - self._since.counted_at < 2 * self._every:
            return {
                "unfinished": f"it was closed before the growth, which comes every {self._every} steps, came twice"
            }
        return {}

    def _start_trace(self, growing: "list[Any]") -> None:
        """Trace the lines of a few steps, or until the next rise; short steps may take twice as long."""
        period, waits = self._since.period, self._waits
        steps = max(TRACED, math.ceil(LATE * self._every))
        most = steps * period + max(self._allowed - self.seconds, 0.1) if waits else max(2 * TRACED * period, 0.1)
        if self.clock is not None:
            most = self._allowed
        heap = self._heap if not waits or self._component == "host.native" else None
        files = open_files if self._counts_handles else None
        if files is not None:
            heap, most = None, min(max(most, HANDLES_SECONDS), self._allowed)
        trace = LineTrace(growing, heap, most_seconds=most, files=files)
        self._turns, self._trace = 0, trace  # before it starts: a signal handler may raise meanwhile
        if profiler_in_use() is None and trace.start():
            return
        self._trace = None
        if not any("not traced" in reason for reason in self._missing):
            self._missing.append("another trace function is set (a debugger?), so lines were not traced")

    def _has_traced(self, trace: LineTrace, *, came: bool) -> bool:
        """Whether enough steps were traced; for rare growth, whether it has come."""
        if trace.gave_up or self._turns < (self._steps if self._counts_handles else TRACED):
            return trace.gave_up
        if not self._waits or trace.grown.get(0):
            return True
        return came if self.clock is not None else self._turns >= math.ceil(LATE * max(self._every, TRACED))

    def _keep_heap(self, trace: LineTrace) -> None:
        """Record the lines at which the heap has grown, before anything is counted."""
        trace.stop()
        self._trace = None
        self._heap_seen = {"heap": _heap_rows(trace), "traced_steps": self._turns}

    def _stop_trace(self) -> None:
        """Record the lines at which containers and the heap have grown, and the lines that have run."""
        trace = self._trace
        if trace is None or self._found is None:
            if trace is not None:
                self._keep_heap(trace)
            return
        trace.stop()
        self._trace = None
        if trace.gave_up:
            self._missing.append("steps took much longer while lines were traced, so tracing was ended")
        lines = {
            str(index): [[*place, count] for place, count in places.items()]
            for index, places in trace.grown.items()
        }
        indices = [index for index, gain in enumerate(self._gains.found) if gain.kind == "container"]
        self._found["lines"] = {
            str(indices[int(at)]): rows for at, rows in lines.items() if int(at) < len(indices)
        }
        self._found["heap"] = _heap_rows(trace)
        self._found["opened"] = [[*place, count] for place, count in Counter(trace.opened.values()).items()]
        self._found["ran"] = {file: sorted(numbers) for file, numbers in trace.ran.items()}
        self._found["traced_steps"] = self._turns


def _heap_rows(trace: LineTrace) -> list[list[Any]]:
    """File, line, net rise in bytes and seconds of each line."""
    return [[*place, rise, trace.spent[place]] for place, rise in trace.heap.items()]
