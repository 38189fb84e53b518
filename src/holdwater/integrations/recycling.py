"""The ladder in a supervised script's own process: release, go on in a fresh one, or stop, as memory runs out."""

import contextlib
import json
import resource
import sys
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, NamedTuple

from holdwater.actions.levers import Levers
from holdwater.actions.perform import Outcome, applies, perform
from holdwater.budget import Budget
from holdwater.detectors.headroom import Headroom, HeadroomConfig, judge_headroom
from holdwater.errors import ProbeError
from holdwater.integrations.session import Session
from holdwater.policy.decision import Decision
from holdwater.policy.remedies import Remedies, RemedyConfig
from holdwater.policy.restarts import relieved
from holdwater.probes.cgroup import Cgroup
from holdwater.probes.devices import DeviceProbe, find_device, loaded
from holdwater.probes.sample import DeviceMemory, Sample
from holdwater.probes.statm import Statm
from holdwater.supervise.life import LifeFacts, actions_file
from holdwater.units import Bytes, Step

if TYPE_CHECKING:
    from holdwater.integrations.loader_workers import LoaderWorkers

GRAIN = 1 << 20
"""Memory is judged again when it has changed by so many bytes."""
PEAK_LASTS = 32
"""Steps in which a step's peak is expected again; one that comes no more was no part of the steps."""
GROUP_EVERY = 0.1
"""Seconds after which the control group is looked at anew (40 µs), for others in it may grow."""
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
        self._workers: LoaderWorkers | None = None
        self._asked: list[Decision] = []
        self._resumable = resumable
        self._actions = actions_file(life.pulse)
        settings = life.settings
        limit = Bytes(relieved(int(settings["limit"]), life.relieve))
        self._budget = Budget(limit, "given", "the supervisor's budget")
        self._headroom = HeadroomConfig(waiting_below=Bytes(0), stopping_below=Bytes(0))
        self._interval = settings.get("reload_interval")
        self._every = settings.get("checkpoint_interval")
        config = RemedyConfig(
            reload_threshold=settings.get("reload_threshold"), can_recycle=resumable, has_workers=True
        )
        self._remedies = Remedies(config)
        self._statm, group = Statm(), Cgroup.of_this_process()
        self._cgroup = None if group.limit is None else group
        self._first: int | None = None
        self._held, self._peak = 0, _highest_resident()  # what the imports needed is no step's peak
        self._highest = self._peak
        self._needed_more = 0
        """What a step has lately held beyond what is left at its end."""
        self._risen_ago = PEAK_LASTS
        self._judged = 0.0
        self._begun = False
        self._on_device: DeviceMemory | None = None
        self._device: DeviceProbe | None = None

    def look_after(self, session: Session) -> None:
        """Take up the loaders of a script, and tell its session what is left.

        Args:
            session: The script's.
        """
        self._workers, session.room = session.workers, self.room

    def in_use(self) -> int:
        """What counts against the budget: so much of it as leaves what is left, here or in the control group."""
        own = self._statm.read()[0] + (0 if self._workers is None else self._workers.growth())
        if self._cgroup is not None and self._cgroup.limit is not None:
            with contextlib.suppress(ProbeError):
                return max(own, int(self._budget.limit) - (self._cgroup.limit - int(self._cgroup.usage())))
        return own

    def _needed(self) -> int:
        """What counts against the budget, at the peak of a step."""
        return self.in_use() + self._needed_more

    def room(self) -> int:
        """Bytes of the budget that are left."""
        return int(self._budget.limit) - self.in_use()

    def end(self, step: int) -> Ending | None:
        """How this process is to end after this step; None as long as it may go on. Memory is released before.

        Args:
            step: Steps done.
        """
        if self._first is None:
            self._first = step - 1
        if self._resumable and self._interval is not None and step - self._first >= self._interval:
            return Ending(recycled=True, reason=f"every {self._interval} steps, as configured")
        if not self._has_changed():
            return None
        self._note_replaced()
        in_use = self.in_use()
        sample = Sample(Step(step), time.monotonic(), Bytes(in_use), self._on_device)
        if not self._begun:
            self._remedies.begin(sample)
            self._begun = True
        level = judge_headroom(sample, self._budget, self._headroom)
        needed = replace(sample, resident=Bytes(in_use + self._needed_more))
        if level.level == "calm" and self._needed_more:
            level = capped(judge_headroom(needed, self._budget, self._headroom))
        return self._climb(self._remedies.answer(level, needed, int(self._budget.limit)))

    def _has_changed(self) -> bool:
        """Whether memory is to be judged again: it has changed, or others of the group may have changed it."""
        device, own, peak = self._read_device(), self._statm.read()[0], _highest_resident()
        self._on_device = device
        held = own + (0 if device is None else device.reserved)
        self._risen_ago = 0 if peak > self._highest else self._risen_ago + 1
        self._highest, rose = peak, peak - self._peak >= GRAIN
        self._needed_more = max(peak - own, 0) if self._risen_ago < PEAK_LASTS else 0
        now = time.monotonic()
        others = self._cgroup is not None or self._workers is not None
        waited = others and now - self._judged > GROUP_EVERY
        if not (rose or waited or abs(held - self._held) >= GRAIN):
            return False
        self._held, self._peak, self._judged = held, peak, now
        return True

    def _climb(self, decisions: tuple[Decision, ...]) -> Ending | None:
        """Release what nobody uses, or say how this process is to end."""
        for decision in decisions:
            if decision.action in {"recycle", "stop"}:
                return Ending(recycled=decision.action == "recycle", reason=decision.reason)
            if decision.action == "replace_worker":
                self._replace_worker(decision)
            if not applies(decision.action):
                continue
            outcome = perform(decision, Levers(), measure=self._statm_bytes, elapsed=time.monotonic)
            self._remedies.learn(outcome.action, outcome.freed_bytes, self._needed())
            self._write(outcome)
        return None

    def _replace_worker(self, decision: Decision) -> None:
        """Begin to replace a worker, if one has grown."""
        if self._workers is not None and self._workers.replace():
            self._asked.append(decision)
        else:
            self._remedies.learn("replace_worker", 0, self._needed())

    def _note_replaced(self) -> None:
        """Note what replacing a worker has freed, once the old one is gone."""
        for found in () if self._workers is None or not self._asked else self._workers.turn():
            asked = self._asked.pop(0)
            self._remedies.learn("replace_worker", found.freed_bytes, self._needed())
            self._write(Outcome(asked.step, asked.action, asked.reason, found.freed_bytes, found.seconds))

    def _write(self, outcome: Outcome) -> None:
        """Tell the supervisor what was done."""
        row = {name: value for name, value in asdict(outcome).items() if name != "error"}
        with self._actions.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

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


def capped(headroom: Headroom) -> Headroom:
    """What memory that only a moment of a step needs is worth: remedies are weighed, nothing is stopped for it."""
    return headroom if headroom.level == "calm" else Headroom("threshold", headroom.reason)


def _highest_resident() -> int:
    """The kernel's high-water mark of this process's resident memory, in bytes (1 µs)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
