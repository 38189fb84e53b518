"""Decide in a supervised script's own process when a fresh one is to go on: by steps, or as memory runs out."""

import contextlib

from holdwater.budget import Budget
from holdwater.detectors.headroom import HeadroomConfig, judge_headroom
from holdwater.errors import ProbeError
from holdwater.policy.remedies import Remedies, RemedyConfig
from holdwater.probes.cgroup import Cgroup
from holdwater.probes.devices import DeviceProbe, find_device, loaded
from holdwater.probes.sample import DeviceMemory, Sample
from holdwater.probes.statm import Statm
from holdwater.supervise.life import LifeFacts
from holdwater.units import Bytes, Step

GRAIN = 1 << 20
"""Memory is judged again when it has changed by so many bytes."""
CHECKPOINT_EVERY = 300.0
"""Seconds between two checkpoints on disk, where no number of steps was given."""


class Recycling:
    """Looks at the memory after each step (2 µs), and judges it when it has changed."""

    def __init__(self, life: LifeFacts) -> None:
        """Take up the limits.

        Args:
            life: What the supervisor says.
        """
        settings = life.settings
        limit = Bytes(int(settings["limit"]))
        self._budget = Budget(limit, "given", "the supervisor's budget")
        self._headroom = HeadroomConfig(waiting_below=Bytes(0), stopping_below=Bytes(0))
        self._interval = settings.get("reload_interval")
        self._every = settings.get("checkpoint_interval")
        config = RemedyConfig(reload_threshold=settings.get("reload_threshold"), can_recycle=True)
        self._remedies = Remedies(config)
        self._statm = Statm()
        cgroup = Cgroup.of_this_process()
        self._cgroup = cgroup if cgroup.limit is not None and cgroup.limit <= limit else None
        self._first: int | None = None
        self._held = 0
        self._device: DeviceProbe | None = None

    def in_use(self) -> int:
        """What counts against the budget: of the whole control group where that sets it, else of this process."""
        if self._cgroup is not None:
            with contextlib.suppress(ProbeError):
                return int(self._cgroup.usage())
        return self._statm.read()[0]

    def reason(self, step: int) -> str | None:
        """Why a fresh process is to go on after this step; None as long as this one may.

        Args:
            step: Steps done.
        """
        if self._first is None:
            self._first = step - 1
        if self._interval is not None and step - self._first >= self._interval:
            return f"every {self._interval} steps, as configured"
        device = self._read_device()
        held = self._statm.read()[0] + (0 if device is None else device.reserved)
        if abs(held - self._held) < GRAIN:
            return None
        begins = self._held == 0
        self._held = held
        sample = Sample(Step(step), 0.0, Bytes(self.in_use()), device)
        if begins:
            self._remedies.begin(sample)
        level = judge_headroom(sample, self._budget, self._headroom)
        decisions = self._remedies.answer_recycling(level, sample, int(self._budget.limit))
        return decisions[0].reason if decisions else None

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
