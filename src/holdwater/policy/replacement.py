"""Decide whether and when a process is replaced by a fresh one: after so many steps, or for want of memory."""

from dataclasses import dataclass

from holdwater.budget import Budgets, Pool
from holdwater.detectors.headroom import Headroom
from holdwater.detectors.pools import Use, uses
from holdwater.policy.approach import Approaches, Near
from holdwater.probes.sample import Sample
from holdwater.units import format_size

WORTH_REPLACING = 0.1
"""A process is replaced for want of memory only if it holds so much more than it began with."""
FEWEST_STEPS = 10
"""A process that has made fewer steps is not replaced for want of memory."""
NEAR_REPLACING = Near(6.0, 0.02, 24 << 20)
"""How near to its budget growing memory must be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplacementConfig:
    """When the user wants processes to be replaced."""

    reload_interval: int | None = None
    """Steps after which a process is replaced; None replaces it only when memory is short."""
    reload_threshold: int | None = None
    """Bytes in use of one pool above which a process is replaced; None goes by the budgets alone."""

    @property
    def is_configured(self) -> bool:
        """Whether the user has asked for processes to be replaced, whatever their budgets are."""
        return self.reload_interval is not None or self.reload_threshold is not None


class Replacement:
    """Knows how one process began, and says when it is to be replaced."""

    def __init__(self, config: ReplacementConfig, approaches: Approaches, *, possible: bool) -> None:
        """Take up what was configured.

        Args:
            config: When the user wants processes to be replaced.
            approaches: How the memory of each pool has risen lately.
            possible: Whether somebody starts another process, which can go on from a checkpoint.
        """
        self._config, self._approaches, self._possible = config, approaches, possible
        self._began: Sample | None = None
        self._at_first: dict[Pool, int] = {}
        """Bytes of each pool that this process held when it was seen first."""

    def begin(self, sample: Sample) -> None:
        """Take note of the step and the memory with which this process began.

        Args:
            sample: Of the step before its first one.
        """
        self._began = sample

    @property
    def due_at(self) -> int | None:
        """The step after which the process is replaced whatever its memory is; None where no step is."""
        interval = self._config.reload_interval
        if interval is None or self._began is None or not self._possible:
            return None
        return self._began.step + max(interval, 1)

    def by_steps(self, step: int) -> str:
        """Why the process is to be replaced after this step, whatever its memory is; empty where it is not.

        Args:
            step: The last step that has ended.
        """
        due = self.due_at
        return "" if due is None or step < due else f"every {self._config.reload_interval} steps, as configured"

    def reason(self, headroom: Headroom, sample: Sample, budgets: Budgets, *, released: bool) -> str:
        """Why the process is to be replaced after this sample; empty where it is not.

        Args:
            headroom: How close the sample is to its limits.
            sample: The newest.
            budgets: Of the run.
            released: Whether all releases were tried since memory was last below the threshold.
        """
        held = {use.pool: use for use in uses(sample, budgets)}
        if held.keys() - self._at_first.keys():
            for use in (*uses(self._began or sample, budgets), *held.values()):
                self._at_first.setdefault(use.pool, use.used)
        reason = self.by_steps(sample.step)
        if reason or not self._possible or self._began is None or sample.step - self._began.step < FEWEST_STEPS:
            return reason
        # where a fresh process would hold as much, another one is no help
        grown = {
            pool: use for pool, use in held.items() if use.used >= self._at_first[pool] * (1 + WORTH_REPLACING)
        }
        return self._by_memory(headroom, grown, released=released)

    def _by_memory(self, headroom: Headroom, grown: dict[Pool, Use], *, released: bool) -> str:
        """Why a process is to be replaced for want of memory; empty where it is not."""
        most = self._config.reload_threshold
        for use in grown.values():
            if most is not None and use.used > most and use.pool != "buffers":
                return f"memory in use is {format_size(use.used)}, above {format_size(most)}"
        if headroom.level == "stopping":  # the machine is short, whoever has taken it: the run stops
            return ""
        for one in headroom.pools:
            if one.level == "calm" or one.pool not in grown:
                continue
            if self._approaches.is_near(NEAR_REPLACING, grown[one.pool]):
                return f"{one.reason}, and grows: {self._approaches.spent_soon(grown[one.pool])}"
            if one.level != "threshold" and released:
                return f"{one.reason}, and releasing did not help"
        return ""
