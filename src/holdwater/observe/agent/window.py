"""A window of a few dozen steps in which a growth is looked into, inside the training process.

First a recording of allocations begins; a few dozen steps later the objects are counted, and what has grown
since the count before is named with its holder; then a few steps are followed line by line, to see at which
line that which grows is stored. Growth that comes by events, or every so many steps, is waited for: until two of
its rises have come, as long as that costs little. Nothing here is read or judged: the watching process does that
beside the run.
"""

import contextlib
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from holdwater.attribution.capture import Capture, profiler_in_use
from holdwater.attribution.device import DeviceRecord
from holdwater.attribution.tracing import LineTrace
from holdwater.attribution.traits import loaded_libraries
from holdwater.attribution.user_code import users_modules
from holdwater.observe.agent.processes import named_processes, native_threads
from holdwater.observe.agent.recompiles import recompilations

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdwater.attribution.census import Census
    from holdwater.attribution.gains import Gains

STEPS, FEWEST = 24, 6
"""Steps of a window, and of one whose steps are long."""
SECONDS = 20.0
"""A window of long steps is over after so long."""
LONGEST = 600.0
"""One that waits for events is over after so long, or after the share below of the run so far."""
WAITS = 0.25
TRACED = 3
"""Steps that are followed line by line at its end."""
MOST_EXTRA = 2.0
"""Seconds that a window may cost the training, its counts left out, before it is closed."""
PATIENCE, PATIENT_SHARE = 5.0, 0.01
"""Seconds that one which waits may cost, less what was spent before; and the part of the run so far, if that is
more."""
LEAST_EXTRA = 0.5
"""Seconds that any may cost."""
SPAN = 2.2
"""A window spans so many times the steps from one rise to the next."""
LATE = 1.1
"""The next rise is waited for so many times the steps between two."""
MOST_RECORDED = 1 << 27
"""Bytes of a recording: a longer one would take too long to be read."""
MOST_AT_ONCE = 1 << 25
"""Bytes after which one that waits for nothing is over: three million allocations take 3 s to be read."""
WEIGH_EVERY = 16
"""Steps between two looks at the size of a recording."""


class Standing(NamedTuple):
    """Where the run stands when a window is opened."""

    counted_at: int
    """The step of the newest count."""
    period: float
    """Seconds of a step so far."""
    events: int
    """Where the clock that the growth follows stands."""
    counted_events: int
    """Where it stood at the newest count."""
    seconds: float
    """Of the run so far."""
    spent: float = 0.0
    """Seconds of a processor that looking into the process has taken so far."""
    work: float | None = None
    """Seconds that the process worked in a step so far; None where that is not known well."""


class Window:
    """One window; `turn` is called after every step while it is open."""

    def __init__(self, folder: Path, number: int, gains: "Gains", *, heap: "Callable[[], float] | None") -> None:
        """Prepare a window.

        Args:
            folder: Holds the request, `window-N`, and takes the recording.
            number: Of the request.
            gains: Compares counts.
            heap: Reads the bytes in use on the heap; None where that is not known.
        """
        request: dict[str, Any] = json.loads((folder / f"window-{number}").read_text(encoding="utf-8") or "{}")
        self.number = number
        self.seconds = 0.0
        """What it has cost the training so far."""
        self.clock: str | None = request.get("clock")
        """The clock whose events it waits for, by its name in the session; None waits for steps alone."""
        self._events_wanted = int(request.get("events", 0))
        self._every = int(request.get("every_steps") or 0)
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
        """At which lines the heap has grown, where these were followed before anything was counted."""
        self._recorded: tuple[bool, dict[str, Any]] | None = None
        """What recording has given, once it has ended: what follows is counting."""

    def open(self, step: int, standing: Standing) -> None:
        """Begin: record allocations from now on. What will be counted is compared with the newest count.

        Args:
            step: The step that has just ended.
            standing: Where the run stands.
        """
        began = time.perf_counter()
        self._began_at, self._since, self._events = step, standing, standing.events
        self._steps = max(min(self._wanted, int(SECONDS / max(standing.period, 1e-6))), FEWEST)
        self._steps = max(self._steps, math.ceil(SPAN * self._every))
        profiler = profiler_in_use()
        if profiler is not None:
            self._missing.append(f"{profiler}, so allocations were not recorded and lines not followed")
        elif not self._component.startswith("device."):
            reasons = [self._capture.load(), self._capture.start()]
            self._missing += [reason for reason in reasons if reason is not None]
        if not self._component.startswith("host."):
            self._device.start()
        self._opened, self._worked = time.perf_counter(), time.process_time()
        self.seconds += self._opened - began

    def turn(self, step: int, events: int, take: "Callable[[Any], Census | None]") -> "Census | None":
        """Go on by a step; return the count when it has been taken.

        Args:
            step: The step that has just ended.
            events: Where the clock that the growth follows stands.
            take: Counts objects for a turn, and shows what it sees to what it is given; None while it is not done.
        """
        self._turns += 1
        came, self._events = events > self._events, events
        if self._found is None:
            if self._recorded is None:
                self._capture.mark(event=came)
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
        """Whether the next turn may add memory of ours; steps that are only waited for add none."""
        return self.is_due or (self._found is not None and not self._waits)

    @property
    def is_patient(self) -> bool:
        """Whether it waits for what comes seldom: then it is worth to count at its beginning too."""
        return self.clock is not None or self._every > 0

    @property
    def over(self) -> bool:
        """Whether there is nothing more to see."""
        return self._found is not None and self._trace is None

    def close(self, step: int, take: "Callable[[Any], Census | None]") -> "Census | None":
        """End it at once, whatever has been seen: the script ends.

        Args:
            step: The step that ended last.
            take: As for `turn`.

        Returns:
            The count; None where no step has ended since the window was opened.
        """
        self._stop_trace()
        if self._found is None and step > self._began_at:
            return self._count(step, take, trace=False)
        self.abandon()
        return None

    def abandon(self) -> None:
        """Switch everything off, and let go of what was watched."""
        trace, self._trace = self._trace, None
        if trace is not None:
            trace.stop()
        for stop in (self._capture.stop, self._device.abandon, self._gains.forget):
            with contextlib.suppress(Exception):  # the others are to be switched off all the same
                stop()

    def as_json(self) -> dict[str, Any]:
        """What was seen, for the watching process."""
        return (self._found or {}) | {"missing": self._missing, "seconds": self.seconds}

    @property
    def _came(self) -> int:
        """Events that have come since the window was opened."""
        return self._events - self._since.events

    @property
    def _waits(self) -> bool:
        """Whether it waits for something that comes seldom."""
        return self.clock is not None or self._steps > STEPS

    @property
    def _extra(self) -> float:
        """Seconds that steps took beyond what they took before; beside busy programs they do not work longer."""
        longer = time.perf_counter() - self._opened - self._turns * self._since.period
        if self._since.work is None:
            return longer
        return min(longer, time.process_time() - self._worked - self._turns * self._since.work)

    @property
    def _allowed(self) -> float:
        """Seconds that it may cost: one that waits in a long run may cost more."""
        left = max(PATIENCE - self._since.spent, LEAST_EXTRA)
        if not self._waits:
            return min(MOST_EXTRA, left, self._most)
        return min(
            self._most, max(left, PATIENT_SHARE * (self._since.seconds + time.perf_counter() - self._opened))
        )

    def _is_over(self) -> bool:
        """Whether enough steps, and events of the clock that the growth follows, have gone by."""
        elapsed = time.perf_counter() - self._opened
        if elapsed > max(LONGEST, WAITS * self._since.seconds):
            return True
        expensive = self._extra > self._allowed or self._capture.size > MOST_AT_ONCE
        if expensive and not self._waits and self._turns >= FEWEST:
            return True
        return self._turns >= self._steps and (self.clock is None or self._came >= self._events_wanted)

    def _limit_recording(self) -> None:
        """End a recording that has become too expensive, or too long; what grows is counted all the same."""
        if not self._waits or self._turns % WEIGH_EVERY:
            return
        if self._extra > self._allowed:
            self._capture.give_way(
                f"allocations were not recorded for so long: after {self._turns} steps that had cost "
                f"{self._extra:.0f} s"
            )
        elif self._capture.size > MOST_RECORDED:
            self._capture.give_way(f"allocations were not recorded for so long: {self._turns} steps fill the disk")

    def _count(self, step: int, take: "Callable[[Any], Census | None]", *, trace: bool = True) -> "Census | None":
        """Count again for a turn; when that is done, name what has grown, and begin to follow lines."""
        began = time.perf_counter()
        if self._recorded is None:
            self.seconds += max(self._extra, 0.0)
            self._recorded = (self._capture.stop(), self._device.stop(step, self._events))
            if trace and self._component in {"", "host.native"} and not self._waits:
                self._start_trace([])  # counting may take long, and it is the heap that grows
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
        """Why too little was seen, where that is so: neither the window nor the counts span two rises."""
        if self.clock is not None and max(events, self._came) < self._events_wanted:
            return {"unfinished": f"it was closed before the second of the {self.clock} that the growth follows"}
        if self._every and step - self._since.counted_at < 2 * self._every:
            return {
                "unfinished": f"it was closed before the growth, which comes every {self._every} steps, came twice"
            }
        return {}

    def _start_trace(self, growing: "list[Any]") -> None:
        """Follow the lines of a few steps, or until the next rise; short steps may take twice as long."""
        period, waits = self._since.period, self._waits
        steps = max(TRACED, math.ceil(LATE * self._every))
        most = steps * period + max(self._allowed - self.seconds, 0.1) if waits else max(2 * TRACED * period, 0.1)
        if self.clock is not None:
            most = self._allowed
        heap = self._heap if not waits or self._component == "host.native" else None
        trace = LineTrace(growing, heap, most_seconds=most)
        self._turns = 0
        if profiler_in_use() is None and trace.start():
            self._trace = trace
        elif not any("not followed" in reason for reason in self._missing):
            self._missing.append("another trace function is set (a debugger?), so lines were not followed")

    def _has_traced(self, trace: LineTrace, *, came: bool) -> bool:
        """Whether enough steps were followed: of growth that comes seldom, until it has come."""
        if trace.gave_up or self._turns < TRACED:
            return trace.gave_up
        if not self._waits or trace.grown.get(0):
            return True
        return came if self.clock is not None else self._turns >= math.ceil(LATE * max(self._every, TRACED))

    def _keep_heap(self, trace: LineTrace) -> None:
        """Note at which lines the heap has grown, before anything is counted."""
        self._trace = None
        trace.stop()
        self._heap_seen = {"heap": _heap_rows(trace), "traced_steps": self._turns}

    def _stop_trace(self) -> None:
        """Note at which lines containers and the heap have grown, and which lines have run."""
        trace = self._trace
        if trace is None or self._found is None:
            if trace is not None:
                self._keep_heap(trace)
            return
        self._trace = None
        trace.stop()
        if trace.gave_up:
            self._missing.append("steps took much longer while lines were followed, so that was given up")
        lines = {
            str(index): [[*place, count] for place, count in places.items()]
            for index, places in trace.grown.items()
        }
        indices = [index for index, gain in enumerate(self._gains.found) if gain.kind == "container"]
        self._found["lines"] = {
            str(indices[int(at)]): rows for at, rows in lines.items() if int(at) < len(indices)
        }
        self._found["heap"] = _heap_rows(trace)
        self._found["ran"] = {file: sorted(numbers) for file, numbers in trace.ran.items()}
        self._found["traced_steps"] = self._turns


def _heap_rows(trace: LineTrace) -> list[list[Any]]:
    """File, line, net rise in bytes and seconds of each line."""
    return [[*place, rise, trace.spent[place]] for place, rise in trace.heap.items()]


def seen(gains: "Gains", from_step: int, to_step: int) -> dict[str, Any]:
    """What two counts have shown, for the watching process.

    Args:
        gains: Has compared them.
        from_step: The step of the first.
        to_step: The step of the second.
    """
    return {
        "from_step": from_step,
        "to_step": to_step,
        "gains": [gain.as_json() for gain in gains.found],
        "users_files": [module.__file__ for module in users_modules()],
        "recompiled": recompilations(),
        "libraries": loaded_libraries(),
        "processes": named_processes(),
    }


def seen_at_once(gains: "Gains", from_step: int, to_step: int) -> dict[str, Any]:
    """What two counts alone have shown, for the watching process: the script ended before a window was opened.

    Args:
        gains: Has compared them.
        from_step: The step of the first.
        to_step: The step of the second.
    """
    reason = "the script ended before allocations could be recorded"
    return seen(gains, from_step, to_step) | {"missing": [reason]}
