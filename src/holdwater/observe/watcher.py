"""Watch one training process from another: read its memory, keep its history, judge it, and ask questions.

All judging is done here, so it never delays the training process, and there is a verdict however that process
ends. If a script counts no steps the clock is time: a step is then a tenth of a second.
"""

import math
import os
import time
import traceback
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from holdwater.attribution.site import Explanation
from holdwater.budget import Budget, Terms, stopping_level
from holdwater.detectors.closing import judge_closed
from holdwater.detectors.evidence import NO_EVIDENCE, Evidence
from holdwater.detectors.growth import FIRST_LOOK, LOOK_GROWTH, by_time
from holdwater.detectors.headroom import HeadroomConfig, Pressure, judge_headroom
from holdwater.detectors.judge import JudgeConfig, judge
from holdwater.detectors.judgement import Judgement
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
"""Seconds of one step if a script counts none."""
LEAST_STEPS = 24
"""A run with fewer counted steps is judged by time."""
PATIENCE, PATIENT_SHARE = 10.0, 0.01
"""Seconds to wait at the end of a run for the explanation of a leak, or this part of the run if that is more."""
DEVICE_FILES = ("/dev/nvidiactl", "/dev/kfd")
"""Files of a machine that has a device, by CUDA's and ROCm's drivers."""
MOST_ERRORS = 12
"""Most internal errors that are kept."""


class Watcher:
    """The history and the verdict of one process."""

    settled = True
    """Whether no experiment is still to show if a growth is a leak."""
    _judged = Verdict("unknown", Step(0), ())
    """The newest judgement, without pressure."""

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
            terms: The inputs of the budgets; the device's budget is set when the process begins to use a device.
            channel: Written by the process itself; None for one that was not started here.
            folder: Where the process leaves its answers; given with a channel.
            tick: Seconds of one step if the process counts none.
        """
        self.budgets = self._held_against = terms.budgets()
        """The limits that forecasts run into, by pool."""
        self.tick = tick
        self.by_step = Timeline()
        self.by_time = Timeline()
        self.verdict = Verdict("unknown", Step(0), ())
        self.first_known: dict[tuple[str, str], Step] = {}
        """The step of the first finding, by kind and component."""
        self.questions = None if channel is None or folder is None else Questions(channel, folder, outside)
        """The questions to the process; None for one that was not started here."""
        self.costs: list[float] = []
        """Seconds of each reading inside the process, the newest 4096."""
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
        """The evidence beyond the curves."""
        asked = NO_EVIDENCE if self.questions is None else self.questions.evidence
        return asked.with_regions(self._regions.touched("file"), self._regions.touched("private"))

    @property
    def experiments(self) -> list[dict[str, Any]]:
        """The experiments, as actions of the JSON verdict."""
        return [] if self.questions is None else self.questions.experiments

    @property
    def explanations(self) -> dict[Finding, Explanation]:
        """The explanations of findings, for those that have one."""
        explainer = None if self.questions is None else self.questions.explainer
        pairs = [] if explainer is None else [(one, explainer.explain(one)) for one in self.verdict.findings]
        return {finding: made for finding, made in pairs if made is not None}

    @property
    def knows_budgets(self) -> bool:
        """Whether the budgets stay: one that was given is the device's once the process begins to use one."""
        return not self._is_unsettled() or self.steps > 0 or not any(map(os.path.exists, DEVICE_FILES))

    @property
    def pid(self) -> int:
        """The process."""
        return self._outside.pid

    @property
    def steps(self) -> int:
        """Steps that the process has counted."""
        return 0 if self._channel is None else self._channel.get("steps")

    @property
    def timeline(self) -> Timeline:
        """The history that is judged: by step if there are enough, else by time."""
        return self.by_step if self.steps >= LEAST_STEPS else self.by_time

    @property
    def source(self) -> str:
        """The clock of the judgement."""
        return "time" if self._channel is None or self.steps < LEAST_STEPS else self._channel.source

    def turn(self) -> bool:
        """Read new records, and judge if it is due; False when the process cannot be read any more.

        An internal error is recorded, and watching continues.
        """
        try:
            return self._turn()
        except Exception as error:  # noqa: BLE001 - the run and its watcher continue
            self.note_error(error)
            return True

    def note_error(self, error: Exception) -> None:
        """Keep an internal error for the verdict."""
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
        """Judge, and ask the process if that would help."""
        if self._regions_of is not self.timeline:  # steps and ticks are different units
            self._regions, self._regions_of = RegionHistory(self._outside.pid), self.timeline
            self._regions.read(self._now)
        judgement, channel = self._judge(final=final), self._channel
        if judgement.regions and (final or self._regions.is_affordable):
            at_end = final or (channel is not None and channel.state in {"ending", "ended"})
            self._regions.read(self._now, at_end=at_end)
            judgement = self._judge(final=final)
        self._judged = judgement.verdict
        self.verdict = self._dated(self._pressure.added_to(judgement.verdict))
        if self.questions is not None:
            self.questions.ask(judgement, self.steps, final=final)
            self.settled = self.timeline is not self.by_step or not self.questions.is_testing(judgement)
        return judgement

    def _judge(self, *, final: bool) -> Judgement:
        """Judge the history."""
        buckets, config, how = self.timeline.buckets(), JudgeConfig(), judge_closed if final else judge
        if self.timeline is self.by_time:
            config = JudgeConfig(by_time(self.tick), seconds_per_step=self.tick)
            loaded = 0.0 if self._channel is None else self._channel.get_seconds("first_step_at")
            buckets = later_than(buckets, loaded)  # before that the script loads
        return how(buckets, self.budgets, config=config, evidence=self.evidence)

    @property
    def _now(self) -> int:
        """The newest step by the clock of the judgement."""
        return self.steps if self.timeline is self.by_step else self._ticks

    def end(self) -> None:
        """The script has ended and waits: judge it, ask the last questions, and judge again with the answers."""
        channel, questions = self._channel, self.questions
        if channel is None or questions is None:
            return
        try:
            self._question(questions)
        except Exception as error:  # noqa: BLE001 - the script must not wait for our mistakes
            self.note_error(error)
        channel.state = "ended"

    def _question(self, questions: Questions) -> None:
        """Judge; while that raises a question, ask it and judge again."""
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
        """The process has ended: read its last records, and judge for the last time."""
        try:
            self._drain()
            self._take_answers()
            self.judge(final=True)
            if self.questions is not None:
                self.questions.explainer.poll(wait=self._patience)
                self.questions.explainer.close()
        except Exception as error:  # noqa: BLE001 - there is a verdict in any case
            self.note_error(error)

    @property
    def _patience(self) -> float:
        """Seconds to wait for an explanation after the script has ended: 0 unless there is a leak."""
        if self.verdict.kind not in {"leak", "fragmentation"}:
            return 0.0
        return max(PATIENCE, PATIENT_SHARE * (time.perf_counter() - self._began))

    def _drain(self) -> None:
        """Add the new records of the process to the history."""
        if self._channel is None:
            return
        records, self._read = self._channel.read(self._read)
        for record in records:
            self._take(record)

    def _take(self, record: LookRecord) -> None:
        """Add one record to the history."""
        if record.step < self._last_step:
            return
        self._last_step = int(record.step)
        at = self._taken % 4096
        self.costs[at : at + 1] = [record.cost]
        self._taken += 1
        pending, self._pending = self._pending, {}
        for name in ("resident", "open_files", "threads"):  # the agent counts these
            pending.pop(name, None)
        pending |= record.readings(_OF_A_LOOK)
        pending["anonymous"] = int(record.resident - record.file_and_shared)
        if self._shared == self._shared_before:  # else the reading from outside is better
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
        """Device memory of the process beyond what its framework reserved; empty if unknown.

        Only NVML's count is used: it is per process, and the driver's covers all processes.
        """
        if self._device_used is None:
            return {}
        return {"device_other": int(max(self._device_used - record.device_reserved, 0))}

    def _look_outside(self) -> bool:
        """Read the process from outside; False if it has ended."""
        now = time.perf_counter() - self._began
        seen = self._outside.read()
        if seen is None:
            return False
        self._ticks = max(round(now / self.tick), 1)
        self._shared_before, self._shared = self._shared, seen.get("shared_memory", 0)
        self._device_used = seen.get("device_used") or None
        device = self._outside.device
        if device is not None and self._is_unsettled():
            self._keep(self._terms.with_device(device.size, device.free + device.held), device.size)
        seen |= self._available.read()
        if self._channel is not None and self._channel.state in {"ending", "ended"}:
            for name in ("children", "children_own", "child_count"):
                seen.pop(name, None)  # children end with the script: not a fall of their memory
        self._leave_out_counts(seen)
        self._pending |= seen
        resident = seen.pop("resident")
        sample = Sample(Step(self._ticks), now, Bytes(resident), None, Look(**seen))
        self.by_time.append(sample)
        self._note_pressure(sample)
        return True

    def _leave_out_counts(self, seen: dict[str, Any]) -> None:
        """Subtract what our counts add to a worker, as long as that worker lives."""
        channel = self._channel
        if channel is None or "children_own" not in seen:
            return
        if channel.get("worker_pid") in self._outside.children.pids:
            seen["children_own"] -= channel.get("worker_own")
            if channel.get("worker_counts"):
                seen.pop("children_own")  # it includes what the count needs

    def _is_unsettled(self) -> bool:
        """Whether a device that the process uses has no budget yet."""
        return self.budgets.device is None and not self.budgets.unified

    def _settle_device(self, used: float, held: float) -> None:
        """The process uses a device: set a budget for its memory, if its size is known.

        Args:
            used: Bytes in use on the device, by all processes; NaN if unknown.
            held: Bytes of these that this process holds.
        """
        size, unified = (0, 0) if self._channel is None else map(self._channel.get, ("device_size", "unified"))
        if unified:
            self._keep(self._terms.with_one_pool(), 0)
        elif size:
            self._keep(self._terms.with_device(size, None if math.isnan(used) else int(size - used + held)), size)

    def _keep(self, terms: Terms, size: int) -> None:
        """Use other budgets from now on.

        Args:
            terms: Their inputs.
            size: The device's memory in bytes; 0 if it shares the machine's.
        """
        self.budgets = self._held_against = terms.budgets()
        self._pressure = Pressure()  # earlier findings used other budgets
        self.verdict = self._dated(self._judged)
        if (device := self.budgets.device) is not None and device.origin == "found":  # no smaller budget was given
            self._held_against = replace(self.budgets, device=Budget(Bytes(size), "found", "the device's size"))

    def _note_pressure(self, sample: Sample) -> None:
        """Compare a sample with the budgets, by the clock of the judgement."""
        step = Step(self.steps) if self.timeline is self.by_step else sample.step
        device = self.budgets.device
        if sample.device is not None and device is not None and device.origin == "found":
            live = sample.device.allocated  # PyTorch's reserved memory fills the device in a healthy run too
            sample = replace(sample, device=DeviceMemory(live, live))
        if self._pressure.note(step, judge_headroom(sample, self._held_against, self._headroom)):
            self.verdict = self._dated(self._pressure.added_to(self._judged))

    def _take_answers(self) -> None:
        """Read the answers of the process, and judge again with them."""
        if self.questions is None:
            return
        self.questions.explainer.poll()
        if self.questions.take_answers():
            self._drain()
            self.judge()

    def _dated(self, verdict: Verdict) -> Verdict:
        """Set the step at which each finding was first made."""
        now = {(one.verdict, one.component) for one in verdict.findings}
        self.first_known = {key: at for key, at in self.first_known.items() if key in now}
        findings: list[Finding] = []
        for one in verdict.findings:
            step = self.first_known.setdefault((one.verdict, one.component), one.detected_step)
            findings.append(replace(one, detected_step=step))
        return replace(verdict, findings=tuple(findings))


def _headroom() -> HeadroomConfig:
    """The headroom levels: a watcher never makes a run wait, so both are the same."""
    short = stopping_level(read_machine())
    return HeadroomConfig(waiting_below=short, stopping_below=short)


_OF_A_LOOK = frozenset(field.name for field in fields(Look))
