"""Follow one training process from the process beside it: read, remember, judge, ask, and write down.

All of the judging is done here, so the training process is never held up by it, and a verdict is left however
that process ends. Where a script counts no steps the clock is time: a step is then a tenth of a second.
"""

import math
import time
import traceback
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from holdwater.attribution.site import Explanation
from holdwater.budget import Budget, Terms, stopping_level
from holdwater.detectors.evidence import NO_EVIDENCE, Evidence
from holdwater.detectors.growth import FIRST_LOOK, LOOK_GROWTH, by_time
from holdwater.detectors.headroom import HeadroomConfig, Pressure, judge_headroom
from holdwater.detectors.judge import JudgeConfig, Judgement, judge
from holdwater.detectors.verdict import Finding, Verdict
from holdwater.observe.questions import Questions
from holdwater.observe.regions import RegionHistory
from holdwater.probes.host import Available
from holdwater.probes.machine import read_machine
from holdwater.probes.outside import Outside
from holdwater.probes.record import LookRecord
from holdwater.probes.sample import DeviceMemory, Look, Sample
from holdwater.process.channel import Channel
from holdwater.timeline.buckets import later_than
from holdwater.timeline.timeline import Timeline
from holdwater.units import Bytes, Step

TICK = 0.1
"""Seconds of one step where a script counts none."""
LEAST_STEPS = 24
"""Fewer counted steps than this are judged by time."""
PATIENCE, PATIENT_SHARE = 10.0, 0.01
"""Seconds, or the part of the run if that is more, that the explanation of a leak is waited for at its end."""
MOST_ERRORS = 12
"""Errors of our own that are kept."""


class Watcher:
    """What is known of one process, and what it is judged to be."""

    def __init__(
        self,
        outside: Outside,
        terms: Terms,
        *,
        channel: Channel | None = None,
        folder: Path | None = None,
        tick: float = TICK,
    ) -> None:
        """Begin to watch.

        Args:
            outside: Reads the process from outside.
            terms: What the budgets follow from; the device's is settled when the process begins to use one.
            channel: What the process itself writes; None for one that was not started here.
            folder: Where the process leaves its answers; given with a channel.
            tick: Seconds of one step where the process counts none.
        """
        self.budgets = self._held_against = terms.budgets()
        """What forecasts lead to, by pool."""
        self.tick = tick
        self.by_step = Timeline()
        self.by_time = Timeline()
        self.verdict = Verdict("unknown", Step(0), ())
        self.first_known: dict[tuple[str, str], Step] = {}
        """When each kind of finding was first made, by kind and component."""
        self.questions = None if channel is None or folder is None else Questions(channel, folder, outside)
        """What the process is asked; None for one that was not started here."""
        self.costs: list[float] = []
        """Seconds of the process's own looks, the newest 4096."""
        self.errors: list[str] = []
        self._outside, self._channel, self._terms = outside, channel, terms
        self._regions, self._regions_of = RegionHistory(outside.pid), self.by_time
        self._available, self._pressure, self._headroom = Available(), Pressure(), _headroom()
        self._began = time.perf_counter()
        self._read = self._ticks = 0
        self._last_step = -1
        self._shared = self._shared_before = 0.0
        self._device_used: float | None = None
        self._taken = 0
        self._pending: dict[str, int] = {}
        self._next_judgement = self._next_by_time = float(FIRST_LOOK)

    @property
    def evidence(self) -> Evidence:
        """What is known beside the curves."""
        asked = NO_EVIDENCE if self.questions is None else self.questions.evidence
        return asked.with_regions(self._regions.touched("file"), self._regions.touched("private"))

    @property
    def experiments(self) -> list[dict[str, Any]]:
        """What was tried, as actions of the JSON verdict."""
        return [] if self.questions is None else self.questions.experiments

    @property
    def explanations(self) -> dict[Finding, Explanation]:
        """What is known of the findings' growth, for those that were looked into."""
        explainer = None if self.questions is None else self.questions.explainer
        pairs = [] if explainer is None else [(one, explainer.explain(one)) for one in self.verdict.findings]
        return {finding: made for finding, made in pairs if made is not None}

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
        if text not in self.errors and len(self.errors) < MOST_ERRORS:
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
        if self._regions_of is not self.timeline:  # a step is another thing there
            self._regions, self._regions_of = RegionHistory(self._outside.pid), self.timeline
            self._regions.look(self._now)
        judgement = self._judge(final=final)
        if judgement.regions and (final or self._regions.is_affordable):
            ended = self._channel is not None and self._channel.state in {"ending", "ended"}
            self._regions.look(self._now, at_end=final or ended)
            judgement = self._judge(final=final)
        self.verdict = self._dated(self._pressure.added_to(judgement.verdict))
        if self.questions is not None:
            self.questions.ask(judgement, self.steps, final=final)
        return judgement

    def _judge(self, *, final: bool) -> Judgement:
        """Judge what is known."""
        buckets, config = self.timeline.buckets(), JudgeConfig()
        if self.timeline is self.by_time:
            config = JudgeConfig(by_time(self.tick), seconds_per_step=self.tick)
            first_step_at = 0.0 if self._channel is None else self._channel.get_seconds("first_step_at")
            buckets = later_than(buckets, first_step_at)  # what came before is loading
        return judge(buckets, self.budgets, config=config, evidence=self.evidence, final=final)

    @property
    def _now(self) -> int:
        """The newest step by the clock that is judged by."""
        return self.steps if self.timeline is self.by_step else self._ticks

    def end(self) -> None:
        """The script has ended and waits: judge it, ask what must be asked, and judge again with the answers."""
        channel, questions = self._channel, self.questions
        if channel is None or questions is None:
            return
        try:
            self._question(questions)
        except Exception as error:  # noqa: BLE001 - the script is not to wait for our mistakes
            self.note_error(error)
        channel.state = "ended"

    def _question(self, questions: Questions) -> None:
        """Judge, and as long as that raises a question, ask it and judge again."""
        self._drain()
        for _ in range(4):
            if not questions.waiting:
                asked = questions.asked
                self.judge(final=True)
                if questions.asked == asked:
                    return
            deadline = time.perf_counter() + 1.5
            while questions.waiting and time.perf_counter() < deadline:
                time.sleep(0.002)
            self._drain()
            self._take_answers()

    def finish(self) -> None:
        """The process is gone: read what it left, and judge it for the last time."""
        try:
            self._drain()
            self._take_answers()
            self.judge(final=True)
            if self.questions is not None:
                self.questions.explainer.poll(wait=self._patience)
        except Exception as error:  # noqa: BLE001 - a verdict is left in any case
            self.note_error(error)

    @property
    def _patience(self) -> float:
        """Seconds that an explanation is waited for when the script has ended: only a leak is worth any."""
        if self.verdict.kind not in {"leak", "fragmentation"}:
            return 0.0
        return max(PATIENCE, PATIENT_SHARE * (time.perf_counter() - self._began))

    def _drain(self) -> None:
        """Put the new records of the process into the history."""
        if self._channel is None:
            return
        records, self._read = self._channel.read(self._read)
        for record in records:
            self._take(record)

    def _take(self, record: LookRecord) -> None:
        """Put one record into the history."""
        if record.step < self._last_step:
            return
        self._last_step = int(record.step)
        if len(self.costs) < 4096:
            self.costs.append(record.cost)
        else:
            self.costs[self._taken % 4096] = record.cost
        self._taken += 1
        pending, self._pending = self._pending, {}
        for name in ("resident", "open_files", "threads"):  # the process counts these itself
            pending.pop(name, None)
        pending |= record.readings(_OF_A_LOOK)
        pending["anonymous"] = int(record.resident - record.file_and_shared)
        if self._shared == self._shared_before:  # else what was read from outside is the better one
            pending["file"] = int(max(record.file_and_shared - self._shared, 0))
        device = None
        if not math.isnan(record.device_allocated):
            device = DeviceMemory(Bytes(int(record.device_allocated)), Bytes(int(record.device_reserved)))
            pending |= self._device_other(record)
            if self._is_unsettled():
                self._settle_device(record.device_used, record.device_reserved)
        sample = Sample(
            Step(int(record.step)),
            record.seconds,
            Bytes(int(record.resident)),
            device,
            Look(**pending),  # type: ignore[arg-type] # named as Look's fields
        )
        self.by_step.append(sample)
        self._note_pressure(sample)

    def _device_other(self, record: LookRecord) -> dict[str, int]:
        """What the process took on the device beyond what its framework reserved; empty where that is not known.

        The driver's own count is of all processes, so only NVML's, which is of this one, is taken.
        """
        if self._device_used is None:
            return {}
        return {"device_other": int(max(self._device_used - record.device_reserved, 0))}

    def _look_outside(self) -> bool:
        """Read the process from outside; False when it is gone."""
        now = time.perf_counter() - self._began
        seen = self._outside.read()
        if seen is None:
            return False
        self._ticks = max(round(now / self.tick), 1)
        self._shared_before, self._shared = self._shared, seen.get("shared_memory", 0)
        self._device_used = seen.get("device_used") or None
        room = self._outside.device
        if room is not None and self._is_unsettled():
            self._keep(self._terms.with_device(room.size, room.free + room.held), room.size)
        seen |= self._available.read()
        if self._channel is not None and self._channel.state in {"ending", "ended"}:
            for name in ("children", "children_own", "child_count"):
                seen.pop(name, None)  # they end with the script: that is no change of theirs
        self._leave_out_counts(seen)
        self._pending |= seen
        resident = seen.pop("resident")
        sample = Sample(Step(self._ticks), now, Bytes(resident), None, Look(**seen))
        self.by_time.append(sample)
        self._note_pressure(sample)
        return True

    def _leave_out_counts(self, seen: dict[str, Any]) -> None:
        """Leave out what our counts add to a worker, as long as that worker lives."""
        channel = self._channel
        if channel is None or "children_own" not in seen:
            return
        if channel.get("worker_pid") in self._outside.children.pids:
            seen["children_own"] -= channel.get("worker_own")
            if channel.get("worker_counts"):
                seen.pop("children_own")  # it is larger for what the count needs

    def _is_unsettled(self) -> bool:
        """Whether a device that the process uses has no budget yet."""
        return self.budgets.device is None and not self.budgets.unified

    def _settle_device(self, used: float, held: float) -> None:
        """The process uses a device: give its memory a budget of its own, where its size is known.

        Args:
            used: Bytes in use on the device, by all processes; NaN where that is not known.
            held: Bytes of it that this process holds.
        """
        size, unified = (0, 0) if self._channel is None else map(self._channel.get, ("device_size", "unified"))
        if unified:
            self._keep(self._terms.with_one_pool(), 0)
        elif size:
            self._keep(self._terms.with_device(size, None if math.isnan(used) else int(size - used + held)), size)

    def _keep(self, terms: Terms, size: int) -> None:
        """Hold what the process uses against other budgets from now on.

        Args:
            terms: What they follow from.
            size: Of the device, in bytes; 0 where it has no memory of its own.
        """
        self.budgets = self._held_against = terms.budgets()
        self._pressure = Pressure()  # what was found so far was held against other budgets
        if (device := self.budgets.device) is not None and device.origin == "found":  # nobody asked for less
            self._held_against = replace(self.budgets, device=Budget(Bytes(size), "found", "the device's size"))

    def _note_pressure(self, sample: Sample) -> None:
        """Hold a sample against the budgets, and say it by the clock that is judged by."""
        step = Step(self.steps) if self.timeline is self.by_step else sample.step
        device = self.budgets.device
        if sample.device is not None and device is not None and device.origin == "found":
            live = sample.device.allocated  # what PyTorch reserves fills a device in any healthy run
            sample = replace(sample, device=DeviceMemory(live, live))
        self._pressure.note(step, judge_headroom(sample, self._held_against, self._headroom))

    def _take_answers(self) -> None:
        """Take in what the process has answered, and judge again in its light."""
        if self.questions is None:
            return
        self.questions.explainer.poll()
        if self.questions.take_answers():
            self._drain()
            self.judge()

    def _dated(self, verdict: Verdict) -> Verdict:
        """Give each finding the step at which it was first made."""
        now = {(finding.verdict, finding.component) for finding in verdict.findings}
        self.first_known = {key: step for key, step in self.first_known.items() if key in now}
        findings: list[Finding] = []
        for finding in verdict.findings:
            step = self.first_known.setdefault((finding.verdict, finding.component), finding.detected_step)
            findings.append(replace(finding, detected_step=step))
        return Verdict(verdict.kind, verdict.step, tuple(findings))


def _headroom() -> HeadroomConfig:
    """Where memory is short: this process only watches, so nobody waits before."""
    short = stopping_level(read_machine())
    return HeadroomConfig(waiting_below=short, stopping_below=short)


_OF_A_LOOK = frozenset(field.name for field in fields(Look))
