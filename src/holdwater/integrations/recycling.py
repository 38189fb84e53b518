"""The ladder in a supervised script's own process: release, go on in a fresh one, or stop, as memory runs out."""

import contextlib
import json
import time
from dataclasses import asdict
from typing import NamedTuple

from holdwater.actions.levers import Levers
from holdwater.actions.perform import applies, perform
from holdwater.budget import Budget
from holdwater.detectors.headroom import HeadroomConfig, judge_headroom
from holdwater.errors import ProbeError
from holdwater.policy.decision import Decision
from holdwater.policy.remedies import Remedies, RemedyConfig
from holdwater.policy.restarts import relieved
from holdwater.probes.cgroup import Cgroup
from holdwater.probes.devices import DeviceProbe, find_device, loaded
from holdwater.probes.sample import DeviceMemory, Sample
from holdwater.probes.statm import Statm
from holdwater.supervise.life import LifeFacts, actions_file
from holdwater.units import Bytes, Step

GRAIN = 1 << 20
"""Memory is judged again when it has changed by so many bytes."""
CHECKPOINT_EVERY = 300.0
"""Seconds between two checkpoints on disk, where no number of steps was given."""


class Ending(NamedTuple):
    """How this process is to end, and why."""

    recycled: bool
    """A fresh one goes on; else the run stops."""
    reason: str


class Recycling:
    """Looks at the memory after each step (2 µs), and judges it when it has changed."""

    def __init__(self, life: LifeFacts, *, resumable: bool = True) -> None:
        """Take up the limits.

        Args:
            life: What the supervisor says.
            resumable: Whether a fresh process could go on; else the run can only be stopped.
        """
        self._resumable = resumable
        self._actions = actions_file(life.pulse)
        settings = life.settings
        limit = Bytes(relieved(int(settings["limit"]), life.relieve))
        self._budget = Budget(limit, "given", "the supervisor's budget")
        self._headroom = HeadroomConfig(waiting_below=Bytes(0), stopping_below=Bytes(0))
        self._interval = settings.get("reload_interval")
        self._every = settings.get("checkpoint_interval")
        config = RemedyConfig(reload_threshold=settings.get("reload_threshold"), can_recycle=resumable)
        self._remedies = Remedies(config)
        self._statm = Statm()
        cgroup = Cgroup.of_this_process()
        self._cgroup = cgroup if cgroup.limit is not None and cgroup.limit <= int(settings["limit"]) else None
        self._first: int | None = None
        self._held = 0
        self._device: DeviceProbe | None = None

    def in_use(self) -> int:
        """What counts against the budget: of the whole control group where that sets it, else of this process."""
        if self._cgroup is not None:
            with contextlib.suppress(ProbeError):
                return int(self._cgroup.usage())
        return self._statm.read()[0]

    def end(self, step: int) -> Ending | None:
        """How this process is to end after this step; None as long as it may go on. Memory is released before.

        Args:
            step: Steps done.
        """
        if self._first is None:
            self._first = step - 1
        if self._resumable and self._interval is not None and step - self._first >= self._interval:
            return Ending(recycled=True, reason=f"every {self._interval} steps, as configured")
        device = self._read_device()
        held = self._statm.read()[0] + (0 if device is None else device.reserved)
        if abs(held - self._held) < GRAIN:
            return None
        begins = self._held == 0
        self._held = held
        sample = Sample(Step(step), time.monotonic(), Bytes(self.in_use()), device)
        if begins:
            self._remedies.begin(sample)
        level = judge_headroom(sample, self._budget, self._headroom)
        return self._climb(self._remedies.answer(level, sample, int(self._budget.limit)))

    def _climb(self, decisions: tuple[Decision, ...]) -> Ending | None:
        """Release what nobody uses, or say how this process is to end."""
        for decision in decisions:
            if decision.action in {"recycle", "stop"}:
                return Ending(recycled=decision.action == "recycle", reason=decision.reason)
            if not applies(decision.action):
                continue
            outcome = perform(decision, Levers(), measure=self._statm_bytes, elapsed=time.monotonic)
            self._remedies.learn(outcome.action, outcome.freed_bytes, self._statm_bytes())
            row = {name: value for name, value in asdict(outcome).items() if name != "error"}
            with self._actions.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        return None

    def _statm_bytes(self) -> int:
        """Resident memory now."""
        return self._statm.read()[0]

    def _read_device(self) -> DeviceMemory | None:
        """Memory of the device that the script uses; None as long as it has started none."""
        if self._device is None:
            torch = loaded("torch")
            if torch is not None and torch.cuda.is_initialized():
                self._device = find_device()
        return None if self._device is None else self._device.read()

    def is_due(self, step: int, seconds: float) -> bool:
        """Whether a checkpoint is to be written.

        Args:
            step: Steps done.
            seconds: Since the last one.
        """
        return step % self._every == 0 if self._every else seconds > CHECKPOINT_EVERY
