"""One observed run of a script: counts its steps, reads its memory, answers the watcher.

Everything here runs inside the training process, so it is short: a step costs about 0.4 µs, a reading about
10 µs. Readings come by the time that has passed (`probes.pace`), not by the step. The watcher judges.
"""

import contextlib
import functools
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdwater.observe.agent.answers import GRAIN, Answers
from holdwater.observe.agent.counting import Counting, Purpose
from holdwater.observe.agent.endings import StopRun, StopShort, say
from holdwater.observe.agent.harmless import harmless
from holdwater.observe.agent.processes import named_processes
from holdwater.observe.agent.readings import Readings
from holdwater.observe.agent.seen import seen_at_once
from holdwater.observe.agent.window import Standing, Window
from holdwater.probes.record import LookRecord
from holdwater.process.channel import Channel, Source
from holdwater.signal_errors import is_the_scripts

__all__ = ["Session", "StopRun", "StopShort", "begin", "current", "say", "step"]

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdwater.attribution.census import Census
    from holdwater.attribution.gains import CensusComparison
    from holdwater.observe.agent.protocols import ReplaceableWorkers

FIRST_CENSUS = 16
"""The number of the reading at which objects are first counted, to have a count to compare with."""
WELL_TIMED = 32
"""Steps after which the duration of a step is known well."""
_CLOCKS = ("samples_seen", "epochs", "evaluations", "checkpoints", "shapes")
NEVER = math.inf
"""The time of a reading that is never due."""
ROOM = 100_000_000
"""Bytes of the budget that must be left to count objects: a forked process writes to each object that it counts,
which copies the object's page."""
PATIENCE = 3.0
"""Seconds that a script waits at its end for the watcher's last question."""


class Session:
    """Counts steps and reads memory, from the first step to the last."""

    budget_callback: "Callable[[int], str | None] | None" = None
    """Keeps the budget of a supervised script, and raises nothing; returns the reason to stop, if there is one."""

    _reads_heap = True
    """Whether what a count adds to the heap is excluded: known when it begins."""
    forked = False
    """Whether this is a child's copy, or the observer is switched off."""
    workers: "ReplaceableWorkers | None" = None
    """The loader workers of a supervised script."""
    room: "Callable[[], int] | None" = None
    """Headroom of a supervised script's host budget, in bytes."""
    _counted: "tuple[float, float, dict[str, int]]" = (math.inf, 0.0, {})
    """At the last count: the step, the process's work so far, and the clocks."""

    def __init__(self, folder: Path, *, last_step: int | None = None, counts: bool = True) -> None:
        """Open the channel in a folder that the watcher created.

        Args:
            folder: Holds the channel `channel_path` and the answers.
            last_step: The step after which the script is ended; None lets it run.
            counts: Whether to count objects unasked, to have a count to compare with.
        """
        self.folder = folder
        self.channel = Channel(folder / "channel")
        self.pid, self.steps, self.worker_visits = os.getpid(), 0, 0
        self.source: Source = "time"
        self.samples_seen = self.epochs = self.evaluations = self.checkpoints = self.shapes = 0
        self.compiles: Callable[[], int] | None = None
        self.datasets: Callable[[], list[object]] = list
        self._last_step = last_step
        self._readings = Readings(self.channel.put)
        self._counts = Counting(lambda: self.datasets())  # noqa: PLW0108 - set later
        self._counting: tuple[int, dict[str, float]] | None = None
        self._window: Window | None = None
        self._began = time.perf_counter()
        self._due_at = 0.0
        """When the next reading is due; it is taken at the end of a step."""
        self._reads, self._read_at = 0, (0, self._began)
        self._first_census = FIRST_CENSUS if counts else -1
        self._cost, self._garbage, self._keeping = 1e-5, 0.0, 0.0
        self._counted_for = 0
        self._answers = Answers(folder, self.channel)
        self._read, self._inventory = harmless(self.read, self._give_up), harmless(self._answers.give_inventory)
        self.channel.state = "running"
        os.register_at_fork(after_in_child=functools.partial(self.__dict__.update, forked=True))

    def step(self, source: Source = "holdwater.step") -> None:
        """Count a step of the training loop."""
        if self.forked:
            return
        self.steps += 1
        self.channel.put("steps", self.steps)
        if self.source != source:
            self.source = self.channel.source = source
        if time.perf_counter() >= self._due_at:
            self._read()
        if self.budget_callback is not None:
            self._keep_budget(self.budget_callback)
        if self._last_step is not None and self.steps >= self._last_step:
            self.channel.put("stopped", 1)
            raise StopRun

    def read(self) -> None:
        """Read the memory now, write it to the channel, and schedule the next reading."""
        began = time.perf_counter()
        if self.channel.get("wanted") > self.channel.get("given"):
            self._inventory(self.steps, self._readings)
        if self._reads == 0:
            self.channel.put_seconds("first_step_at", began - self._began)
        self._write(began, self._cost)
        self._reads += 1
        answering = 0.0
        unasked = self._reads == self._first_census and not named_processes()  # shared pages would be copied
        asked = self.channel.get("asked") > self._answers.answered
        if unasked or asked or self._window is not None or self._counts.busy:
            answering = self._answer()
        now = time.perf_counter()
        self._read_at = (self.steps, began)
        self._cost = cost = now - began - answering
        self._due_at = 0.0 if self._window is not None or self._counts.busy else self._readings.due_at
        self.channel.put_seconds("last_step_at", now - self._began)
        self.channel.put_seconds("hook_seconds", self.channel.get_seconds("hook_seconds") + cost + self._keeping)
        self._keeping = 0.0

    def _keep_budget(self, keep: "Callable[[int], str | None]") -> None:
        """Release memory if it is short, and end the script if that does not help."""
        began = time.perf_counter()
        reason = keep(self.steps)
        self._keeping += time.perf_counter() - began
        if reason is not None:
            self.budget_callback = None
            say(f"stopped at step {self.steps}: {reason}")
            raise StopShort

    def keep_no_budget(self, error: Exception) -> None:
        """Stop keeping the budget, and report it."""
        self.budget_callback = None
        say(f"the budget of this run is not kept any more: {error!r}")

    def finish(self) -> None:
        """The script has ended: let the watcher ask its last question, and answer it."""
        if self.forked or self._due_at == NEVER or os.getpid() != self.pid:
            return
        self._write(time.perf_counter(), self._cost)
        self.channel.state = "ending"
        deadline = time.perf_counter() + PATIENCE
        while time.perf_counter() < deadline and self.channel.state == "ending":
            if self.channel.get("asked") > self._answers.answered:
                self._answer_last()
            time.sleep(0.002)
        self.channel.state = "ended"

    def _write(self, now: float, cost: float) -> None:
        """Write one record."""
        self.channel.write(
            LookRecord(
                step=self.steps,
                seconds=now - self._began,
                cost=cost,
                samples_seen=self.samples_seen,
                worker_visits=self.worker_visits,
                epochs=self.epochs,
                evaluations=self.evaluations,
                checkpoints=self.checkpoints,
                shapes=self.shapes,
                compiles=0 if self.compiles is None else self.compiles(),
                garbage=self._garbage,
                **self._readings.read(now),
            )
        )

    def _answer(self) -> float:
        """Count objects, and answer the open question; return the seconds spent."""
        began, worked, asked = time.perf_counter(), time.thread_time(), self.channel.get("asked")
        try:
            if self._is_tight():
                self._decline(asked)
            elif self._window is not None:
                self._turn_window(self._window)
            elif self._counts.busy:
                self._go_on_counting()
            elif asked > self._answers.answered and os.access(self.folder / f"window-{asked}", os.F_OK):
                self._open_window(asked)
            elif self._counts.has_enough and self._answers.is_experiment(asked):
                self._answers.leave(self.steps, asked, self._experiment(asked), time.perf_counter() - began)
            else:
                self._count(asked)
        except Exception as error:
            self._abandon()
            self._answers.leave(self.steps, asked, {"error": repr(error)}, 0.0)
            if is_the_scripts(error):
                raise
        self._answers.note_work(time.thread_time() - worked)
        return time.perf_counter() - began

    def _is_tight(self) -> bool:
        """Whether counting in this process could exceed its budget."""
        return self.room is not None and self.room() < ROOM

    def _decline(self, asked: int) -> None:
        """Answer a question with the reason why there is no result."""
        self._abandon()
        if asked > self._answers.answered:
            self._answers.leave(
                self.steps, asked, {"error": "too little of the budget is left to examine the growth"}, 0.0
            )

    def _abandon(self) -> None:
        """End a window that has failed, and switch everything of it off."""
        window, self._window, self._counting = self._window, None, None
        try:
            with self._readings.without_own(heap=self._reads_heap):
                self._counts.abandon()
        finally:
            if window is not None:
                window.abandon()

    def _answer_last(self) -> None:
        """The script has ended: end a window if one is open, else count, and say what has grown."""
        window, asked = self._window, self.channel.get("asked")
        try:
            if self._is_tight():
                self._decline(asked)
                return
            if window is None:
                self._count_last(asked)
                return
            before = self._readings.in_use_and_pools()
            census = window.close(self.steps, self._take_at_end)
            self._window = None
            if census is None and not window.over:  # no step ended in it: it saw nothing
                self._count_last(window.number)
                return
            answer = self._counts.as_answer(census, before, at_end=True)
            self._answers.leave(self.steps, window.number, answer | {"explanation": window.as_json()}, 0.0)
        except Exception as error:  # noqa: BLE001 - as while it ran; nothing of the script could catch it now
            self._abandon()
            self._answers.leave(self.steps, asked, {"error": repr(error)}, 0.0)

    def _count(self, asked: int) -> None:
        """Begin to count objects; the question is answered when that is done."""
        self._counting, self._reads_heap = (asked, {}), self._readings.heap_is_cheap
        purpose: Purpose = "explain" if asked > self._answers.answered else "compare"
        self._counts.begin(self._counts.gains.remember, purpose=purpose, period=self._period())
        self._go_on_counting()

    def _go_on_counting(self) -> None:
        """Count for a turn; at the end also test what a collection and a trim free, if that was asked for."""
        began = time.perf_counter()
        asked, before = self._turn_count()
        with self._readings.without_own(heap=self._reads_heap):
            census = self._counts.go_on(self.steps)
        if census is None:
            self._answers.book(time.perf_counter() - began)
            return
        self._counting = None
        answer = self._counts.as_answer(census, before | self._readings.later())
        self._answers.leave(
            self.steps, asked, answer | self._experiment(asked, census), time.perf_counter() - began
        )

    def _count_last(self, asked: int) -> None:
        """The script has ended: count at once, and say what has grown."""
        began, before = time.perf_counter(), self._readings.in_use_and_pools()
        self._counts.abandon()
        from_step, gains = self._counts.counted_at, self._counts.gains
        with self._readings.without_own():
            census = self._take_at_end(gains.compare)
            gains.forget()
        answer = self._counts.as_answer(census, before, at_end=True)
        if gains.found:
            answer["explanation"] = seen_at_once(gains, from_step, self.steps)
        tested = self._experiment(asked, census) | {"at_end": True}
        self._answers.leave(self.steps, asked, answer | tested, time.perf_counter() - began)

    def _experiment(self, asked: int, census: "Census | None" = None) -> dict[str, Any]:
        """What a collection and a trim free, if that was asked for; without a census if enough was counted."""
        found = self._answers.experiment(asked, census, self._readings)
        freed = found.get("experiment", {}).get("collected", 0.0)
        self._garbage += freed
        self._counts.outdated |= freed > GRAIN
        return found

    def _take(self, note: "CensusComparison", purpose: Purpose = "explain") -> "Census | None":
        """Count for a turn, for a window; None while it is not done."""
        if not self._counts.busy:
            self._counts.begin(note, purpose=purpose, period=self._period())
        self._turn_count()
        return self._counts.go_on(self.steps, to_the_end=purpose == "end")

    def _turn_count(self) -> tuple[int, dict[str, float]]:
        """The question that the count answers, and what was in use when its first turn began."""
        asked, before = self._counting or (0, {})
        if self._counts.begins:
            before = self._readings.in_use_and_pools()
            clocks = {name: int(getattr(self, name)) for name in _CLOCKS}
            self._counted = time.perf_counter(), time.process_time(), clocks
        self._counting = (asked, before)
        return self._counting

    def _take_at_end(self, note: "CensusComparison") -> "Census":
        """Count at once: no step follows."""
        self._counts.abandon()
        census = self._take(note, "end")
        if census is None:
            raise RuntimeError("a count that was made at once is not complete")
        return census

    def _period(self) -> float:
        """Seconds of a recent step."""
        steps, then = self._read_at
        return (time.perf_counter() - then) / max(self.steps - steps, 1)

    def _open_window(self, asked: int) -> None:
        """Open a window of a few dozen steps to explain a growth."""
        counts = self._counts
        window = Window(self.folder, asked, counts.gains, heap=self._readings.heap())
        if (counts.is_old(self.steps) or window.is_patient) and self._counted_for != asked:
            self._counted_for = asked
            self._count(0)
            if counts.busy:
                return
        now, (counted_then, worked, clocks) = time.perf_counter(), self._counted
        period, work, since = self._period(), None, self.steps - counts.counted_at
        if since >= WELL_TIMED and counted_then < now:  # a longer time is more exact
            period, work = (now - counted_then) / since, (time.process_time() - worked) / since
        self._window, self._reads_heap = window, self._readings.heap_is_cheap
        events, before = self._events(window), clocks.get(window.clock or "", 0)
        spent = self.channel.get_seconds("attribution_work")
        standing = Standing(counts.counted_at, period, events, before, now - self._began, spent, work)
        with self._readings.without_own(heap=self._reads_heap):
            window.open(self.steps, standing)

    def _turn_window(self, window: Window) -> None:
        """Continue the window by a step."""
        spent = window.seconds
        own = self._readings.without_own(heap=self._reads_heap)
        with own if window.adds_memory else contextlib.nullcontext():
            census = window.turn(self.steps, self._events(window), self._take)
        before = {} if self._counting is None else self._counting[1]
        later = {} if census is None else self._readings.later()
        answer = self._counts.as_answer(census, before | later)
        if window.over:
            self._window = self._counting = None
            self._answers.leave(
                self.steps, window.number, answer | {"explanation": window.as_json()}, window.seconds - spent
            )
        elif census is not None:
            self._counting = None
            self._answers.leave(self.steps, 0, answer, window.seconds - spent)
        else:
            self._answers.book(window.seconds - spent)

    def _events(self, window: Window) -> int:
        """The current value of the clock that a window waits for."""
        return 0 if window.clock is None else int(getattr(self, window.clock, 0))

    def _give_up(self, error: Exception) -> None:
        """Stop reading, and report it once; steps are still counted."""
        self._due_at = NEVER
        if os.access(self.folder, os.F_OK):  # else the watcher has ended, and has reported why
            say(f"this run is not observed any more: {error!r}")


_current: Session | None = None


def current() -> Session | None:
    """The session of this process; None if the script was not started by `holdwater run`."""
    return _current


def begin(folder: Path, *, last_step: int | None = None, counts: bool = True) -> Session:
    """Begin the session of this process."""
    global _current  # noqa: PLW0603 - a process has one
    _current = Session(folder, last_step=last_step, counts=counts)
    return _current


def step() -> None:
    """Count a step of the training loop for `holdwater run`.

    Not needed where a torch or MLX optimizer steps; from the first call on, only these calls count. Without
    `holdwater run` it does nothing.
    """
    if _current is not None:
        _current.step("holdwater.step")
