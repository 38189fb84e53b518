"""Keep the budget inside a supervised script: release memory, continue in a fresh process, or stop."""

import contextlib
import json
import resource
import sys
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, NamedTuple

from holdwater.actions.levers import Levers
from holdwater.actions.perform import Outcome, applies, perform
from holdwater.budget import Budget, Budgets, InUse
from holdwater.detectors.headroom import Headroom, HeadroomConfig, judge_headroom
from holdwater.errors import ProbeError
from holdwater.observe.agent.session import Session
from holdwater.policy.decision import Decision
from holdwater.policy.remedies import Remedies, RemedyConfig
from holdwater.policy.replacement import ReplacementConfig
from holdwater.policy.restarts import lowered_budgets
from holdwater.probes.cgroup import Cgroup
from holdwater.probes.devices import DeviceProbe, find_device, is_unified, loaded
from holdwater.probes.metal import DeviceLimits, MetalBuffers, metal
from holdwater.probes.pace import Pace
from holdwater.probes.sample import DeviceMemory, Sample, in_use_by_pool
from holdwater.probes.statm import Statm
from holdwater.process.restart_context import RestartContext, actions_file
from holdwater.signal_errors import suppressed
from holdwater.units import Bytes, Step

if TYPE_CHECKING:
    from holdwater.observe.agent.protocols import ReplaceableWorkers

GRAIN = 1 << 20
"""Memory is judged again when it has changed by so many bytes."""
PEAK_LASTS = 32
"""Steps for which a step's peak is expected again; one that does not return was no part of the steps."""
GROUP_EVERY = 0.1
"""Seconds after which the control group is read again (40 µs): other processes in it may grow."""
COUNTING = 0.5
"""The part of the readings' allowance that counting Metal buffers may take."""
CHECKPOINT_EVERY = 300.0
"""Seconds between two checkpoints on disk, where no number of steps was given."""


class Ending(NamedTuple):
    """How this process is to end, and why."""

    recycled: bool
    """A fresh process continues the run; otherwise the run stops."""
    reason: str


class _Device:
    """The memory of the device that a script uses, and its budget."""

    def __init__(self, given: int | None) -> None:
        self._given = given
        self._probe: DeviceProbe | None = None
        self.budget: Budget | None = None
        """None as long as no device is used, and where its size is not known."""
        self.unified = False
        """The device has no memory but the host's."""
        self.limits = DeviceLimits()
        """What such a device recommends and permits."""
        self._buffers, self._counting, self._began = MetalBuffers(), Pace(COUNTING), time.monotonic()

    def read(self) -> DeviceMemory | None:
        """Read what counts against the device's budget; None as long as no device is used.

        Against a budget that was given, all reserved memory counts. Otherwise only allocated memory counts,
        against the device's size: PyTorch's reserved memory fills the device in a healthy run too.
        """
        if self._probe is None:
            self._seek()
        if self.limits.buffers is not None:
            self._count_buffers()
        memory = None if self._probe is None else self._probe.read()
        if memory is None or self._given is not None or self.unified:
            return memory
        return DeviceMemory(memory.allocated, memory.allocated)

    def _count_buffers(self) -> None:
        """Count the buffers if that is due: it takes milliseconds."""
        now = time.monotonic() - self._began
        if now >= self._counting.due:
            self._buffers.read()
            self._counting.note(now, time.monotonic() - self._began - now)

    def _seek(self) -> None:
        """Find the device, once the script has begun to use one."""
        torch = loaded("torch")
        on_cuda = torch is not None and torch.cuda.is_initialized()
        source = metal()
        found = find_device() if on_cuda or source is not None else None
        if found is None:
            return
        self._probe, self.unified = found, is_unified(found.name)
        if self.unified and source is not None:
            self.limits = source.limits()
        if torch is not None and on_cuda:
            size = None
            with suppressed(RuntimeError, AttributeError):
                size = int(torch.cuda.mem_get_info()[1])
            self.budget = self._settle(size)

    def _settle(self, size: int | None) -> Budget | None:
        """The budget of a device of this size."""
        if self._given is None:
            return None if size is None else Budget(Bytes(size), "found", "the device's size")
        limit = self._given if size is None else min(self._given, size)
        return Budget(Bytes(limit), "given", "the supervisor's budget of the device")

    def held(self) -> DeviceMemory | None:
        """What is held, whatever counts against the budget; None where no device is used."""
        return None if self._probe is None else self._probe.read()


class _StepPeak:
    """How much more recent steps have held than is left at their end, by the kernel's high-water mark."""

    def __init__(self) -> None:
        self._judged = self._highest = _highest_resident()  # what the imports needed is no step's peak
        self._risen_ago = PEAK_LASTS
        self.beyond = 0
        """Bytes."""

    def note(self, own: int) -> bool:
        """Take in the end of a step; return whether the mark has risen since it was last judged.

        Args:
            own: Resident memory now, in bytes.
        """
        peak = _highest_resident()
        self._risen_ago = 0 if peak > self._highest else self._risen_ago + 1
        self._highest = peak
        self.beyond = max(peak - own, 0) if self._risen_ago < PEAK_LASTS else 0
        return peak - self._judged >= GRAIN

    def mark_judged(self) -> None:
        """Remember that the mark has been judged as it is now."""
        self._judged = self._highest


class BudgetCallback:
    """Reads the memory after each step (2 µs), and judges it when it has changed."""

    def __init__(self, restart: RestartContext, *, resumable: bool = True) -> None:
        """Prepare to keep the budget that the supervisor has set.

        Args:
            restart: What the supervisor says.
            resumable: Whether a fresh process could continue; otherwise the run can only be stopped.
        """
        self._workers: ReplaceableWorkers | None = None
        self._asked: list[Decision] = []
        self._resumable = resumable
        self._actions = actions_file(restart.channel_path)
        settings = restart.settings
        self._out_of_memory_restarts = restart.out_of_memory_restarts
        self._host_limit_with_device = settings.get("beside_device")
        self._device = _Device(settings.get("device_limit"))
        self._keep(int(settings["limit"]))
        self._headroom = HeadroomConfig(waiting_below=Bytes(0), stopping_below=Bytes(0))
        self._every = settings.get("checkpoint_interval")
        wanted = ReplacementConfig(
            reload_interval=settings.get("reload_interval"), reload_threshold=settings.get("reload_threshold")
        )
        self._remedies = Remedies(RemedyConfig(replacement=wanted, can_recycle=resumable, has_workers=True))
        self._statm, group = Statm(), Cgroup.of_this_process()
        self._cgroup = None if group.limit is None else group
        self._held, self._peak = InUse(), _StepPeak()
        self._judged, self._begun = 0.0, False
        self._on_device: DeviceMemory | None = None
        self._buffers: int | None = None
        """Metal buffers when memory was last judged."""

    def _keep(self, limit: int) -> None:
        """Set the budgets, smaller where earlier processes of the run were killed for want of memory.

        Args:
            limit: Of the host's memory, in bytes; the device has its own.
        """
        self._group_budget = limit  # a budget that was lowered leaves as much less in the group
        device = self._device
        most = device.limits.working_set
        host = Budget(Bytes(limit if most is None else min(limit, most)), "given", "the supervisor's budget")
        self._budgets = lowered_budgets(
            Budgets(host, device.budget, device.unified, device.limits.buffers), self._out_of_memory_restarts
        )

    def look_after(self, session: Session) -> None:
        """Take up the loaders of a script, and let its session ask how much of the budget is left.

        Args:
            session: The script's.
        """
        self._workers, session.room = session.workers, self.room

    def in_use(self) -> int:
        """Bytes that count against the host's budget: of this process and its workers, or of the control group."""
        own = self._statm.read()[0] + (0 if self._workers is None else self._workers.growth())
        if self._cgroup is not None and self._cgroup.limit is not None:
            with contextlib.suppress(ProbeError):
                return max(own, self._group_budget - (self._cgroup.limit - int(self._cgroup.usage())))
        return own

    def _needed(self) -> InUse:
        """Memory in use at the peak of a step, on the host and on the device: what remedies must lower."""
        return in_use_by_pool(Bytes(self.in_use() + self._peak.beyond), self._on_device)

    def room(self) -> int:
        """Bytes of the host's budget that are left."""
        return int(self._budgets.host.limit) - self.in_use()

    def end(self, step: int) -> Ending | None:
        """How this process is to end after this step; None as long as it may continue. Releases memory if needed.

        Args:
            step: Steps done.
        """
        reason = self._remedies.replacement.by_steps(step)
        if reason:
            return Ending(recycled=True, reason=reason)
        if not self._has_changed():
            return None
        self._note_replaced()
        in_use = self.in_use()
        sample = Sample(Step(step), time.monotonic(), Bytes(in_use), self._on_device)
        if not self._begun:
            self._remedies.begin(replace(sample, step=Step(step - 1)))
            self._begun = True
        level = judge_headroom(sample, self._budgets, self._headroom)
        needed = replace(sample, resident=Bytes(in_use + self._peak.beyond))
        if self._peak.beyond and all(one.pool == "device" or one.level == "calm" for one in level.pools):
            level = with_peak(level, judge_headroom(needed, self._budgets, self._headroom))
        return self._climb(self._remedies.answer(level, needed, self._budgets))

    def _has_changed(self) -> bool:
        """Whether memory is to be judged again: it has changed, or that of the control group may have."""
        device, own = self._device.read(), self._statm.read()[0]
        if self._device.budget is not None and self._budgets.device is None:
            limit = self._host_limit_with_device
            self._keep(self._group_budget if limit is None else int(limit))
        if self._device.unified and not self._budgets.unified:
            self._keep(self._group_budget)
        self._on_device, rose = device, self._peak.note(own)
        held = in_use_by_pool(Bytes(own), device)
        now = time.monotonic()
        others = self._cgroup is not None or self._workers is not None
        waited = others and now - self._judged > GROUP_EVERY
        counted = None if device is None else device.buffers
        changed = any(abs(size - before) >= GRAIN for size, before in zip(held, self._held, strict=True))
        if not (rose or waited or changed or counted != self._buffers):
            return False
        self._held, self._judged, self._buffers = held, now, counted
        self._peak.mark_judged()
        return True

    def _climb(self, decisions: tuple[Decision, ...]) -> Ending | None:
        """Carry out decisions: release memory, or return how this process is to end."""
        for decision in decisions:
            if decision.action in {"recycle", "stop"}:
                return Ending(recycled=decision.action == "recycle", reason=decision.reason)
            if decision.action == "replace_worker":
                self._replace_worker(decision)
            if not applies(decision.action):
                continue
            before = self._held_now()
            outcome = perform(decision, Levers(), measure=lambda: sum(self._held_now()), elapsed=time.monotonic)
            self._remedies.learn(outcome.action, self._held_now().since(before), self._needed())
            self._write(outcome)
        return None

    def _replace_worker(self, decision: Decision) -> None:
        """Begin to replace a loader worker, if one has grown."""
        if self._workers is not None and self._workers.replace():
            self._asked.append(decision)
        else:
            self._remedies.learn("replace_worker", InUse(), self._needed())

    def _note_replaced(self) -> None:
        """Record what replacing a worker has freed, once the old one has ended."""
        for found in () if self._workers is None or not self._asked else self._workers.turn():
            asked = self._asked.pop(0)
            self._remedies.learn("replace_worker", InUse(found.freed_bytes), self._needed())
            self._write(Outcome(asked.step, asked.action, asked.reason, found.freed_bytes, found.seconds))

    def _write(self, outcome: Outcome) -> None:
        """Report to the supervisor what was done."""
        row = {name: value for name, value in asdict(outcome).items() if name != "error"}
        with suppressed(OSError), self._actions.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _held_now(self) -> InUse:
        """What an action can lower: resident memory, and memory reserved on the device."""
        return in_use_by_pool(Bytes(self._statm.read()[0]), self._device.held())

    def is_due(self, step: int, seconds: float) -> bool:
        """Whether a checkpoint is to be written.

        Args:
            step: Steps done.
            seconds: Since the last one.
        """
        return step % self._every == 0 if self._every else seconds > CHECKPOINT_EVERY


def with_peak(headroom: Headroom, at_peak: Headroom) -> Headroom:
    """Add host memory that only the peak of a step needs: it asks for remedies like memory above the threshold.

    Args:
        headroom: At the end of a step.
        at_peak: At the step's peak.
    """
    found = [one for one in at_peak.pools if one.pool != "device" and one.level != "calm"]
    capped = tuple(replace(one, level="threshold", others=()) for one in found)
    if headroom.level != "calm":
        return replace(headroom, others=(*headroom.others, *capped))
    return capped[0] if capped else headroom


def _highest_resident() -> int:
    """The kernel's high-water mark of this process's resident memory, in bytes (1 µs)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
