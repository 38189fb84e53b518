"""Follow one training process from the process beside it: read, remember, judge, ask, and write down.

All of the judging is done here, so the training process is never held up by it, and a verdict is left however
that process ends. Where a script counts no steps the clock is time: a step is then a tenth of a second.
"""

import json
import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdwater.actions.perform import Outcome
from holdwater.budget import Budget, stopping_level
from holdwater.detectors.evidence import NO_EVIDENCE
from holdwater.detectors.growth import FIRST_LOOK, LOOK_GROWTH
from holdwater.detectors.headroom import HeadroomConfig, Pressure, judge_headroom
from holdwater.detectors.judge import JudgeConfig, Judgement, judge
from holdwater.detectors.verdict import Finding, Verdict
from holdwater.errors import StoreError
from holdwater.probes.host import Available
from holdwater.probes.machine import read_machine
from holdwater.probes.outside import Outside
from holdwater.probes.sample import DeviceMemory, Look, Sample
from holdwater.store.run_store import RunStore
from holdwater.supervise.channel import Channel
from holdwater.timeline.timeline import Timeline
from holdwater.units import Bytes, Step

TICK = 0.1
"""Seconds of one step where a script counts none."""
LEAST_STEPS = 24
"""Fewer counted steps than this are judged by time."""
MOST_QUESTIONS = 12
"""How often objects are counted in one run, experiments included."""
ALLOWANCE = 2.0
"""Seconds of the process that counting may take in any run."""
ALLOWED_SHARE = 0.01
"""In a long run counting may take this share of it."""
FLUSH_EVERY = 2.0


class Watcher:
    """What is known of one process, and what it is judged to be."""

    def __init__(
        self,
        outside: Outside,
        budget: Budget,
        *,
        channel: Channel | None = None,
        folder: Path | None = None,
        tick: float = TICK,
    ) -> None:
        """Begin to watch.

        Args:
            outside: Reads the process from outside.
            budget: What forecasts lead to.
            channel: What the process itself writes; None for one that was not started here.
            folder: Where the process leaves its answers; given with a channel.
            tick: Seconds of one step where the process counts none.
        """
        self.budget = budget
        self.tick = tick
        self.by_step = Timeline()
        self.by_time = Timeline()
        self.verdict = Verdict("unknown", Step(0), ())
        self.evidence = NO_EVIDENCE
        self.first_known: dict[tuple[str, str], Step] = {}
        """When each kind of finding was first made, by kind and component."""
        self.experiments: list[dict[str, Any]] = []
        """What was tried, as actions of the JSON verdict."""
        self.costs: list[float] = []
        """Seconds of the process's own looks, the newest 4096."""
        self.errors: list[str] = []
        self._outside, self._channel, self._folder = outside, channel, folder
        self._available, self._pressure, self._headroom = Available(), Pressure(), _headroom()
        self._began = time.perf_counter()
        self._read = self._ticks = 0
        self._last_step = -1
        self._shared = 0.0
        self._pending: dict[str, int] = {}
        self._next_judgement = self._next_by_time = float(FIRST_LOOK)
        self._asked = self._asked_at = self._experiment_at = 0
        self._answers: set[str] = set()

    @property
    def steps(self) -> int:
        """Steps that the process has counted."""
        return 0 if self._channel is None else self._channel.get("steps")

    @property
    def timeline(self) -> Timeline:
        """The history that is judged: by step where there are enough, else by time."""
        return self.by_step if self.steps >= LEAST_STEPS else self.by_time

    @property
    def source(self) -> str:
        """The clock that is judged by."""
        return "time" if self._channel is None or self.steps < LEAST_STEPS else self._channel.source

    def turn(self) -> bool:
        """Take in what is new, and judge when it is time; False when the process cannot be read any more.

        An error of our own is noted, and watching goes on.
        """
        try:
            return self._turn()
        except Exception as error:  # noqa: BLE001 - the run goes on, and so does what watches it
            self.note_error(error)
            return True

    def note_error(self, error: Exception) -> None:
        """Keep an error of our own for the verdict."""
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{error!r} at {Path(where.filename).name}:{where.lineno}"
        if text not in self.errors and len(self.errors) < MOST_QUESTIONS:
            self.errors.append(text)

    def _turn(self) -> bool:
        """As `turn`."""
        alive = self._look_outside()
        self._drain()
        self._take_answers()
        timeline = self.timeline
        if timeline is self.by_time:
            if self._ticks >= self._next_by_time:
                self._next_by_time = self._ticks * LOOK_GROWTH
                self.judge()
        elif self._read >= FIRST_LOOK and self.steps >= self._next_judgement:
            self._next_judgement = self.steps * LOOK_GROWTH
            self.judge()
        return alive

    def judge(self, *, final: bool = False) -> Judgement:
        """Judge what is known, and ask the process where that would help."""
        judgement = judge(
            self.timeline.buckets(), self.budget, config=JudgeConfig(), evidence=self.evidence, final=final
        )
        self.verdict = self._dated(self._pressure.added_to(judgement.verdict))
        self._ask(judgement, final=final)
        return judgement

    def end(self) -> None:
        """The script has ended and waits: judge it, ask what must be asked, and judge again with the answers."""
        channel = self._channel
        if channel is None:
            return
        try:
            self._question(channel)
        except Exception as error:  # noqa: BLE001 - the script is not to wait for our mistakes
            self.note_error(error)
        channel.state = "ended"

    def _question(self, channel: Channel) -> None:
        """Judge, and as long as that raises a question, ask it and judge again."""
        self._drain()
        for _ in range(3):
            before = self._asked
            self.judge(final=True)
            if self._asked == before:
                return
            deadline = time.perf_counter() + 1.5
            while channel.get("answered") < self._asked and time.perf_counter() < deadline:
                time.sleep(0.002)
            self._drain()
            self._take_answers()

    def finish(self) -> None:
        """The process is gone: read what it left, and judge it for the last time."""
        try:
            self._drain()
            self._take_answers()
            self.judge(final=True)
        except Exception as error:  # noqa: BLE001 - a verdict is left in any case
            self.note_error(error)

    def _drain(self) -> None:
        """Put the new records of the process into the history."""
        if self._channel is None:
            return
        records, self._read = self._channel.read(self._read)
        for record in records:
            self._take(record)

    def _take(self, record: tuple[float, ...]) -> None:
        """Put one record into the history."""
        step, seconds, cost, resident, both, in_use, kept, blocks, files, threads, *rest = record
        allocated, reserved, pinned, *clocks = rest
        if step < self._last_step:
            return
        self._last_step = int(step)
        if len(self.costs) < 4096:
            self.costs.append(cost)
        else:
            self.costs[int(step) % 4096] = cost
        device = None if math.isnan(allocated) else DeviceMemory(Bytes(int(allocated)), Bytes(int(reserved)))
        pending, self._pending = self._pending, {}
        seen = _whole(heap_in_use=in_use, heap_kept=kept, python_blocks=blocks, pinned=pinned)
        seen |= _whole(open_files=files, threads=threads)
        names = ("samples_seen", "epochs", "evaluations", "checkpoints", "shapes", "compiles", "garbage")
        seen |= {name: int(value) for name, value in zip(names, clocks, strict=True)}
        for name in ("resident", "open_files", "threads"):  # the process counts these itself
            pending.pop(name, None)
        pending |= {"anonymous": int(resident - both), "file": int(max(both - self._shared, 0)), **seen}
        look = Look(**pending)  # type: ignore[arg-type] # named as Look's fields
        sample = Sample(Step(int(step)), seconds, Bytes(int(resident)), device, look)
        self.by_step.append(sample)
        self._note_pressure(sample)

    def _look_outside(self) -> bool:
        """Read the process from outside; False when it is gone."""
        now = time.perf_counter() - self._began
        fields = self._outside.read()
        if fields is None:
            return False
        self._ticks = max(round(now / self.tick), 1)
        self._shared = fields.get("shared_memory", 0)
        fields |= self._available.read()
        self._pending |= fields
        resident = fields.pop("resident")
        sample = Sample(Step(self._ticks), now, Bytes(resident), None, Look(**fields))
        self.by_time.append(sample)
        self._note_pressure(sample)
        return True

    def _note_pressure(self, sample: Sample) -> None:
        """Hold a sample against the budget, and say it by the clock that is judged by."""
        step = Step(self.steps) if self.timeline is self.by_step else sample.step
        self._pressure.note(step, judge_headroom(sample, self.budget, self._headroom))

    def _ask(self, judgement: Judgement, *, final: bool) -> None:
        """Ask the process to count its objects, and before it is accused, to collect and trim."""
        channel = self._channel
        if channel is None or self._folder is None or self._asked >= MOST_QUESTIONS:
            return
        if channel.state not in {"running", "ending"} or channel.get("answered") < self._asked:
            return
        steps = self.steps
        spent = channel.get_seconds("attribution_seconds")
        affordable = spent < max(ALLOWANCE, ALLOWED_SHARE * channel.get_seconds("last_step_at"))
        first = len(self.evidence.holdings) < 2  # a single count can be compared with nothing
        fresh = steps >= 2 * self._asked_at and (affordable or first)
        experiment = judgement.accusing and (steps >= 2 * self._experiment_at or not self.evidence.experiments)
        last = final and judgement.suspicious and not (self._counted_at(steps) and self.evidence.experiments)
        if not (experiment or last or (judgement.suspicious and fresh)):
            return
        self._asked += 1
        self._asked_at = steps
        if experiment or last:
            self._experiment_at = steps
            (self._folder / f"experiment-{self._asked}").touch()
        channel.put("asked", self._asked)

    def _counted_at(self, steps: int) -> bool:
        """Whether objects were counted at this step."""
        return bool(self.evidence.holdings) and self.evidence.holdings[-1].step == steps

    def _take_answers(self) -> None:
        """Read what the process has answered, and judge again in its light."""
        if self._folder is None or self._channel is None:
            return
        fresh = sorted(
            (path for path in self._folder.glob("answer-*.json") if path.name not in self._answers),
            key=lambda path: int(path.stem.split("-")[1]),
        )
        for path in fresh:
            self._answers.add(path.name)
            answer = json.loads(path.read_text(encoding="utf-8"))
            self.evidence = self.evidence.with_answer(
                answer,
                samples_total=self._channel.get("samples_total"),
                library_pages=self._outside.library_pages() or self._library_pages(),
            )
            if "error" in answer:
                self.errors.append(answer["error"])
            if "experiment" in answer:
                self._note_experiment(answer)
        if fresh and len(self.evidence.holdings) > 1:
            self._drain()
            self.judge()

    def _library_pages(self) -> float:
        """What was read before, for a process that is gone."""
        return self.evidence.holdings[-1].library_pages if self.evidence.holdings else 0.0

    def _note_experiment(self, answer: Mapping[str, Any]) -> None:
        """Note an experiment as the two actions that it is."""
        for action, freed in (("collect", "collected"), ("trim", "trimmed")):
            self.experiments.append({
                "step": answer["step"],
                "action": action,
                "reason": "before a leak is named: would it cure the growth?",
                "freed_bytes": int(answer["experiment"][freed]),
                "seconds": answer["seconds"] / 2,
            })

    def _dated(self, verdict: Verdict) -> Verdict:
        """Give each finding the step at which it was first made."""
        now = {(finding.verdict, finding.component) for finding in verdict.findings}
        self.first_known = {key: step for key, step in self.first_known.items() if key in now}
        findings: list[Finding] = []
        for finding in verdict.findings:
            step = self.first_known.setdefault((finding.verdict, finding.component), finding.detected_step)
            findings.append(replace(finding, detected_step=step))
        return Verdict(verdict.kind, verdict.step, tuple(findings))


class Record:
    """Writes what a watcher knows into the run's store, as it goes."""

    def __init__(self, store: RunStore, watcher: Watcher) -> None:
        self._store, self._watcher = store, watcher
        self._next = time.perf_counter() + FLUSH_EVERY
        self._noted: Verdict | None = None
        self._timeline: Timeline | None = None
        self._experiments = 0

    def write(self, summary: Callable[[], Mapping[str, Any]], *, now: bool = False) -> None:
        """Write when it is time."""
        verdict, timeline = self._watcher.verdict, self._watcher.timeline
        if timeline is not self._timeline:
            if self._timeline is not None:
                self._store.begin_again()
            self._timeline = timeline
        if self._noted is not verdict:
            self._store.verdict(verdict)
            self._noted = verdict
        for action in self._watcher.experiments[self._experiments :]:
            self._store.outcome(Outcome(**action, error=None))
        self._experiments = len(self._watcher.experiments)
        if not now and time.perf_counter() < self._next:
            return
        self._store.summary(summary())
        began = time.perf_counter()
        try:
            self._store.flush(timeline)
        except StoreError as error:
            self._watcher.note_error(error)
        self._next = time.perf_counter() + max(FLUSH_EVERY, 1000 * (time.perf_counter() - began))


def _headroom() -> HeadroomConfig:
    """Where memory is short: this process only watches, so nobody waits before."""
    short = stopping_level(read_machine())
    return HeadroomConfig(waiting_below=short, stopping_below=short)


def _whole(**values: float) -> dict[str, int]:
    """The values that were read, as whole numbers."""
    return {name: int(value) for name, value in values.items() if not math.isnan(value)}
