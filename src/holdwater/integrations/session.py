"""One observed run of somebody's script: counts its steps, looks at its memory, answers the watching process.

Everything here runs inside the training process, so it is short: a step costs about 0.4 µs, a look about
10 µs. Looks come by the time that has passed (`probes.pace`), not by the step. Judging is the watcher's work.
"""

import contextlib
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdwater.attribution.census import Census, Counter
from holdwater.attribution.gains import Gains
from holdwater.integrations.readings import Readings
from holdwater.integrations.window import Standing, Window, seen_at_once
from holdwater.probes.record import LookRecord
from holdwater.supervise.channel import Channel, Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdwater.integrations.loader_workers import LoaderWorkers

FIRST_CENSUS = 16
"""The look at which objects are counted for the first time, so that there is something to compare with."""
FAR = 256
"""A count so many steps ago is too old to be compared with."""
_CLOCKS = ("samples_seen", "epochs", "evaluations", "checkpoints", "shapes")
NEVER = math.inf
"""A look that does not come."""
GRAIN = 1 << 20
"""Less garbage than this is not looked into."""
ROOM = 100_000_000
"""Bytes of the budget that must be left for objects to be counted: a forked process writes to each one that it
counts, and so gets a page of its own for it."""
PATIENCE = 3.0
"""Seconds that the end of a script waits for the watcher's last question."""


class StopRun(BaseException):
    """Ends a script after `--steps N`; no `except Exception` catches it."""


class StopShort(BaseException):
    """Ends a script that has spent its memory budget, between two steps; no `except Exception` catches it."""


class GoOn(BaseException):
    """Ends a script whose run goes on in another process; no `except Exception` catches it."""


class Session:
    """Counts and looks, from the first step to the last."""

    keeper: "Callable[[int], str | None] | None" = None
    """Looks after the budget of a supervised script; says why the script is to be stopped, if it is."""

    workers: "LoaderWorkers | None" = None
    """Of a supervised script's loaders."""
    room: "Callable[[], int] | None" = None
    """Bytes of the host's budget that are left to a supervised script."""
    _counted: "tuple[float, dict[str, int]]" = (math.inf, {})
    """When objects were counted last, and where the clocks stood then."""

    def __init__(self, folder: Path, *, last_step: int | None = None, counts: bool = True) -> None:
        """Take up the channel in a folder that the watcher made.

        Args:
            folder: Holds the channel `pulse`, and takes the answers.
            last_step: The step after which the script is ended; None lets it run.
            counts: Whether to count objects without being asked, so that there is something to compare with.
        """
        self.folder = folder
        self.channel = Channel(folder / "pulse")
        self.pid = os.getpid()
        self.steps = 0
        self.source: Source = "time"
        self.samples_seen = self.epochs = self.evaluations = self.checkpoints = self.shapes = 0
        self.compiles: Callable[[], int] | None = None
        self.datasets: Callable[[], list[object]] = list
        self._last_step = last_step
        self._readings = Readings(self.channel.put)
        self._counter, self._gains = Counter(), Gains()
        self._window: Window | None = None
        self._began = time.perf_counter()
        self._due_at = 0.0
        """When the next look is due; it is taken at the end of a step."""
        self._looks = 0
        self._first_census = FIRST_CENSUS if counts else -1
        self._looked_at = (0, self._began)
        self._cost = 1e-5
        self._garbage = self._keeping = 0.0
        self._answered = self._answers = self._counted_at = 0
        self.forked = False
        self.channel.state = "running"
        os.register_at_fork(after_in_child=self._leave)

    def step(self, source: Source = "holdwater.step") -> None:
        """Count a step of the training loop."""
        if self.forked:
            return
        self.steps += 1
        self.channel.put("steps", self.steps)
        if self.source != source:
            self.source = self.channel.source = source
        if time.perf_counter() >= self._due_at:
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - the observer never kills what it observes
                self._give_up(error)
        if self.keeper is not None:
            self._keep_budget(self.keeper)
        if self._last_step is not None and self.steps >= self._last_step:
            self.channel.put("stopped", 1)
            raise StopRun

    def step_of_a_life(self, in_use: "Callable[[], int]") -> None:
        """Count a step of a process that may be replaced: when it ended, and what the first one found in use.

        Args:
            in_use: Reads the bytes that count against the budget.
        """
        now = time.monotonic()
        self.channel.put_seconds("left_at", now)
        if not self.channel.get_seconds("went_on_at"):
            self.channel.put("in_use", in_use())
            self.channel.put_seconds("went_on_at", now)
        self.step("holdwater.step")

    def go_on_from(self, step: int) -> None:
        """The script goes on from a step that an earlier process has ended."""
        self.steps = step
        self.source = self.channel.source = "holdwater.step"
        self._looked_at = (step, time.perf_counter())
        self.channel.put("steps", step)
        self.channel.put("goes_on_from", step)

    def look(self) -> None:
        """Read the memory now, write it into the channel, and settle when to look again."""
        began = time.perf_counter()
        if self.channel.get("wanted") > self.channel.get("given"):
            self._give_inventory()
        if self._looks == 0:
            self.channel.put_seconds("first_step_at", began - self._began)
        self._write(began, self._cost)
        self._looks += 1
        answering = 0.0
        if (
            self._window is not None
            or self._looks == self._first_census
            or self.channel.get("asked") > self._answered
        ):
            answering = self._answer()
        now = time.perf_counter()
        self._looked_at = (self.steps, began)
        self._cost = cost = now - began - answering
        self._due_at = self._readings.due_at if self._window is None else 0.0
        self.channel.put_seconds("last_step_at", now - self._began)
        self.channel.put_seconds("hook_seconds", self.channel.get_seconds("hook_seconds") + cost + self._keeping)
        self._keeping = 0.0

    def _keep_budget(self, keep: "Callable[[int], str | None]") -> None:
        """Release memory where it is short, and end the script where that does not help."""
        began, reason = time.perf_counter(), None
        try:
            reason = keep(self.steps)
        except Exception as error:  # noqa: BLE001 - the observer never kills what it observes
            self.keeper = None
            say(f"the budget of this run is not looked after any more: {error!r}")
        self._keeping += time.perf_counter() - began
        if reason is not None:
            self.keeper = None
            say(f"stopped at step {self.steps}: {reason}")
            raise StopShort

    def finish(self) -> None:
        """The script has ended: let the watcher ask its last question, and answer it."""
        if self.forked or self._due_at == NEVER or os.getpid() != self.pid:
            return
        self._write(time.perf_counter(), self._cost)
        self.channel.state = "ending"
        deadline = time.perf_counter() + PATIENCE
        while time.perf_counter() < deadline and self.channel.state == "ending":
            if self.channel.get("asked") > self._answered:
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
        """Count objects, and do what else was asked for; return the seconds spent."""
        began = time.perf_counter()
        asked = self.channel.get("asked")
        try:
            if self._is_tight():
                self._decline(asked)
            elif self._window is not None:
                self._turn_window(self._window)
            elif asked > self._answered and (self.folder / f"window-{asked}").exists():
                self._open_window(asked)
            else:
                self._count(asked)
        except Exception as error:  # noqa: BLE001 - the observer never kills what it observes
            self._abandon()
            self._write_answer(asked, {"error": repr(error)}, 0.0)
        return time.perf_counter() - began

    def _is_tight(self) -> bool:
        """Whether looking into this process could cost it its budget."""
        return self.room is not None and self.room() < ROOM

    def _decline(self, asked: int) -> None:
        """Answer a question with why there is no answer."""
        self._abandon()
        if asked > self._answered:
            self._write_answer(asked, {"error": "too little of the budget is left to look into the growth"}, 0.0)

    def _abandon(self) -> None:
        """End a window that has failed: nothing of it may stay on."""
        window, self._window = self._window, None
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
                self._count(asked, last=True)
                return
            before = self._readings.in_use()
            census = window.close(self.steps, self._take)
            self._window = None
            if census is None and not window.over:  # no step has ended in it: it has seen nothing
                self._count(window.number, last=True)
                return
            answer = {} if census is None else {"before": before, "census": census.as_json()}
            self._write_answer(window.number, answer | {"explanation": window.as_json()}, 0.0)
        except Exception as error:  # noqa: BLE001 - as while it ran
            self._abandon()
            self._write_answer(asked, {"error": repr(error)}, 0.0)

    def _count(self, asked: int, *, last: bool = False) -> None:
        """Count objects, and if asked, see what a collection and a trim free."""
        began = time.perf_counter()
        answer: dict[str, Any] = {"before": self._readings.in_use()}
        from_step, gains = self._counted_at, self._gains
        with self._readings.without_own():
            census = self._take(gains.compare if last else gains.remember)
            answer["census"] = census.as_json() | {"at_end": last}
            gains.forget()
            if last and gains.found:
                answer["explanation"] = seen_at_once(gains, from_step, self.steps)
        if asked > self._answered and (self.folder / f"experiment-{asked}").exists():
            answer["experiment"] = found = self._readings.experiment()
            freed = census.tensors - census.tensors_now() if found["collected"] > GRAIN else 0
            found["collected_tensors"] = freed
            self._garbage += found["collected"]
        self._write_answer(asked, answer, time.perf_counter() - began)

    def _take(self, note: "Callable[[Any], None]") -> Census:
        """Count objects."""
        self._counted_at = self.steps
        self._counted = time.perf_counter(), {name: int(getattr(self, name)) for name in _CLOCKS}
        return self._counter.take(self.steps, self.datasets(), note=note)

    def _open_window(self, asked: int) -> None:
        """Look into a growth for a few dozen steps."""
        window = Window(self.folder, asked, self._gains, heap=self._readings.heap())
        if self.steps - self._counted_at > FAR or window.is_patient:
            self._count(0)
        now, (counted_then, clocks) = time.perf_counter(), self._counted
        steps, then = self._looked_at
        if self._counted_at < steps and counted_then < then:
            steps, then = self._counted_at, counted_then  # the longer the time, the better it is known
        period = (now - then) / max(self.steps - steps, 1)
        self._window = window
        events, before = self._events(window), clocks.get(window.clock or "", 0)
        with self._readings.without_own():
            window.open(self.steps, Standing(self._counted_at, period, events, before, now - self._began))

    def _turn_window(self, window: Window) -> None:
        """Go on by a step."""
        spent = window.seconds
        before = self._readings.in_use() if window.is_due else {}
        with self._readings.without_own() if window.adds_memory else contextlib.nullcontext():
            census = window.turn(self.steps, self._events(window), self._take)
        answer = {} if census is None else {"before": before, "census": census.as_json()}
        if window.over:
            self._window = None
            self._write_answer(window.number, answer | {"explanation": window.as_json()}, window.seconds - spent)
        elif census is not None:
            self._write_answer(0, answer, window.seconds - spent)

    def _give_inventory(self) -> None:
        """Somebody asks what this process holds: say it, and go on."""
        from holdwater.attribution.inventory import inventory  # noqa: PLC0415 - only where it is asked for

        wanted, began = self.channel.get("wanted"), time.perf_counter()
        with self._readings.without_own():
            found = inventory()
            text = {"step": self.steps, "text": str(found), "inventory": found.as_json()}
            part = self.folder / f"inventory-{wanted}.part"
            part.write_text(json.dumps(text), "utf-8")
            part.rename(part.with_suffix(".json"))
        spent = self.channel.get_seconds("attribution_seconds") + time.perf_counter() - began
        self.channel.put_seconds("attribution_seconds", spent)
        self.channel.put("given", wanted)

    def _events(self, window: Window) -> int:
        """Where the clock stands that a window waits for."""
        return 0 if window.clock is None else int(getattr(self, window.clock, 0))

    def _write_answer(self, number: int, answer: dict[str, Any], seconds: float) -> None:
        """Leave an answer for the watching process; with the number of its question if that is done."""
        self.channel.put_seconds("attribution_seconds", self.channel.get_seconds("attribution_seconds") + seconds)
        self._answers += 1
        text = self.folder / f"answer-{self._answers}.part"
        text.write_text(json.dumps({"step": self.steps, "number": number, "seconds": seconds} | answer), "utf-8")
        text.rename(text.with_suffix(".json"))
        if number:
            self._answered = number
            self.channel.put("answered", number)

    def _give_up(self, error: Exception) -> None:
        """Look no more, and say so once; steps are still counted."""
        self._due_at = NEVER
        if self.folder.exists():  # else the watching process is gone, and has said why
            say(f"this run is not observed any more: {error!r}")

    def _leave(self) -> None:
        """A forked child is not the run: it counts nothing."""
        self.forked = True


_current: Session | None = None


def current() -> Session | None:
    """The session of this process; None where the script was not started by `holdwater run`."""
    return _current


def begin(folder: Path, *, last_step: int | None = None, counts: bool = True) -> Session:
    """Begin the session of this process."""
    global _current  # noqa: PLW0603 - a process has one
    _current = Session(folder, last_step=last_step, counts=counts)
    return _current


def step() -> None:
    """Tell `holdwater run` that a step of the training loop has ended.

    Not needed where a torch or MLX optimizer steps; from the first call on, only these calls count. Without
    `holdwater run` it does nothing.
    """
    if _current is not None:
        _current.step("holdwater.step")


def say(message: str) -> None:
    """Write a remark to standard error."""
    print(f"holdwater: {message}", file=sys.stderr)  # noqa: T201
