"""A window of a few dozen steps in which a growth is looked into, inside the training process.

First a recording of allocations begins; a few dozen steps later the objects are counted, and what has grown
since the count before is named with its holder; then a few steps are followed line by line, to see at which
line that which grows is stored. Nothing here is read or judged: the watching process does that beside the run.
"""

import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdwater.attribution.capture import Capture
from holdwater.attribution.device import DeviceRecord
from holdwater.attribution.tracing import LineTrace
from holdwater.attribution.user_code import users_modules
from holdwater.integrations.recompiles import recompilations

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdwater.attribution.census import Census
    from holdwater.attribution.gains import Gains

STEPS, FEWEST = 24, 6
"""Steps of a window, and of one whose steps are long."""
SECONDS = 20.0
"""A window of long steps is over after so long."""
LONGEST = 600.0
"""One that waits for events is over after so long."""
TRACED = 3
"""Steps that are followed line by line at its end."""
MOST_EXTRA = 2.0
"""Seconds that a window may cost the training, its counts left out, before it is closed."""


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
        self._events_wanted = int(request.get("events", 0))
        self.clock: str | None = request.get("clock")
        """The clock whose events it waits for, by its name in the session; None waits for steps alone."""
        self._component = str(request.get("component", ""))
        self._gains, self._heap = gains, heap
        self._capture = Capture(folder / f"allocations-{number}")
        self._device = DeviceRecord()
        self._trace: LineTrace | None = None
        self._missing: list[str] = []
        self._began_at = self._counted_at = self._steps = self._turns = self._events = 0
        self._opened = self._period = 0.0
        self._found: dict[str, Any] | None = None
        self._recorded: tuple[bool, dict[str, Any]] | None = None
        """What recording has given, once it has ended: what follows is counting."""

    def open(self, step: int, counted_at: int, period: float, events: int) -> None:
        """Begin: record allocations from now on. What will be counted is compared with the newest count.

        Args:
            step: The step that has just ended.
            counted_at: The step of the newest count.
            period: Seconds of a step so far.
            events: Where the clock that the growth follows stands.
        """
        began = time.perf_counter()
        missing = [None if self._component.startswith("device.") else self._capture.load()]
        self._steps = max(min(STEPS, int(SECONDS / max(period, 1e-6))), FEWEST)
        self._began_at, self._counted_at, self._period, self._events = step, counted_at, period, events
        missing.append(self._capture.start())
        self._missing += [reason for reason in missing if reason is not None]
        if not self._component.startswith("host."):
            self._device.start(reserved=self._component == "device.reserved")
        self._opened = time.perf_counter()
        self.seconds += self._opened - began

    def turn(self, step: int, events: int, take: "Callable[[Any], Census | None]") -> "Census | None":
        """Go on by a step; return the count when it has been taken.

        Args:
            step: The step that has just ended.
            events: Where the clock that the growth follows stands.
            take: Counts objects for a turn, and shows what it sees to what it is given; None while it is not done.
        """
        self._turns += 1
        if self._found is None:
            if self._recorded is None:
                self._capture.mark()
                if self._turns == self._steps // 2:
                    self._device.mark(step)
            return self._count(step, take) if self._recorded is not None or self._is_over(events) else None
        if self._trace is not None and self._turns >= TRACED:
            self._stop_trace()
        return None

    @property
    def is_due(self) -> bool:
        """Whether the next turn may be the one that counts."""
        return self._found is None and self._turns + 1 >= min(FEWEST, self._steps)

    @property
    def over(self) -> bool:
        """Whether there is nothing more to see."""
        return self._found is not None and self._trace is None

    def close(self, step: int, take: "Callable[[Any], Census | None]") -> "Census | None":
        """End it at once, whatever has been seen: the script ends.

        Args:
            step: The step that ended last.
            take: As for `turn`.
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

    def _is_over(self, events: int) -> bool:
        """Whether enough steps, and events of the clock that the growth follows, have gone by."""
        elapsed = time.perf_counter() - self._opened
        extra = elapsed - self._turns * self._period
        if elapsed > LONGEST or (self._turns >= FEWEST and self.clock is None and extra > MOST_EXTRA):
            return True
        waiting = self.clock is not None and events - self._events < self._events_wanted and extra < 2 * MOST_EXTRA
        return self._turns >= self._steps and not waiting

    def _count(self, step: int, take: "Callable[[Any], Census | None]", *, trace: bool = True) -> "Census | None":
        """Count again for a turn; when that is done, name what has grown, and begin to follow lines."""
        began = time.perf_counter()
        if self._recorded is None:
            self.seconds += max(began - self._opened - self._turns * self._period, 0.0)
            self._recorded = (self._capture.stop(), self._device.stop(step))
        recorded, device = self._recorded
        census = take(self._gains.compare)
        if census is None:
            self.seconds += time.perf_counter() - began
            return None
        self._found = {
            "from_step": self._counted_at,
            "to_step": census.step,
            "counted": census.counted,
            "gains": [gain.as_json() for gain in self._gains.found],
            "users_files": [module.__file__ for module in users_modules()],
            "recompiled": recompilations(),
            "allocations": self._capture.file.name if recorded else None,
            **device,
        }
        if trace:
            self._start_trace()
        self._gains.forget()
        self.seconds += time.perf_counter() - began
        return census

    def _start_trace(self) -> None:
        """Follow the lines of a few steps; they may take twice as long."""
        trace = LineTrace(self._gains.growing, self._heap, most_seconds=max(2 * TRACED * self._period, 0.1))
        self._turns = 0
        if trace.start():
            self._trace = trace
        else:
            self._missing.append("another trace function is set (a debugger?), so lines were not followed")

    def _stop_trace(self) -> None:
        """Note at which lines containers and the heap have grown."""
        trace, self._trace = self._trace, None
        if trace is None or self._found is None:
            return
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
        self._found["heap"] = [[*place, rise] for place, rise in trace.heap.items()]
        self._found["traced_steps"] = self._turns


def seen_at_once(gains: "Gains", from_step: int, to_step: int) -> dict[str, Any]:
    """What two counts alone have shown, for the watching process: the script ended before a window was opened.

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
        "missing": ["the script ended before allocations could be recorded"],
    }
