"""Decide when memory is released and when a run stops, from gentle to hard.

A release that did not pay is not repeated until memory has grown again, and never within the cooldown.
"""

from dataclasses import dataclass

from holdwater.detectors.headroom import Headroom
from holdwater.detectors.verdict import Verdict
from holdwater.errors import ConfigError
from holdwater.policy.decision import RELEASE, ActionName, Decision
from holdwater.probes.sample import Sample
from holdwater.units import Step, format_size


@dataclass(frozen=True, slots=True, kw_only=True)
class RemedyConfig:
    """When remedies may act."""

    cooldown: float = 30.0
    """Seconds between two releases."""
    least_yield: int = 1 << 20
    """Bytes that an action must free to have paid."""
    regrowth: float = 1.05
    """How far memory must have grown before an action that did not pay is tried again."""
    leak_threshold: float = 1e6
    """Bytes per step above which a leak is a reason to release memory."""
    cache_clear_interval: int | None = None
    """Steps between two clearings of framework caches; None clears only when memory is short."""
    reload_interval: int | None = None
    """Steps after which the process is recycled; None recycles only when memory is short."""
    reload_threshold: int | None = None
    """Bytes in use above which the process is recycled; None takes the budget's threshold, if releasing fails."""
    can_recycle: bool = False
    """Whether the process can be recycled: somebody starts another, and it can be gone on from a checkpoint."""

    def __post_init__(self) -> None:
        if self.cache_clear_interval is not None and self.cache_clear_interval < 1:
            raise ConfigError(
                f"periodic_cache_clear_interval is {self.cache_clear_interval}, but it counts steps; "
                "set it to 1 or more, or leave it out to clear only when memory is short"
            )


WORTH_RECYCLING = 0.1
"""A process is recycled for want of memory only if it holds so much more than it began with."""
FEW_STEPS_LEFT = 6.0
"""A growing process is recycled when its budget would be spent in so few steps."""
FEWEST_STEPS = 10
"""A process that has made fewer steps is not recycled for want of memory."""


class Remedies:
    """Turns pressure and verdicts into decisions; remembers what paid."""

    def __init__(self, config: RemedyConfig) -> None:
        self._config = config
        self._released_at = float("-inf")
        self._released_over_budget = False
        self._useless: dict[ActionName, int] = {}
        """Memory in use when an action last freed too little, by its name."""
        self._leaks_answered = 0
        self._began: tuple[Step, int] | None = None
        """The first step of this process, and its memory then."""
        self._settled: tuple[Step, int] | None = None
        """The same after its first steps, when what every process needs is there."""
        self._released = False
        """Whether releasing has been tried since memory was calm last."""
        self._interval_step: Step | None = None

    def begin(self, sample: Sample) -> None:
        """Take note of the memory with which this process began."""
        self._began = (sample.step, held_against_budget(sample))

    def answer_recycling(self, headroom: Headroom, sample: Sample, limit: int) -> tuple[Decision, ...]:
        """Decide whether the process is to be replaced by a fresh one that goes on where it stands.

        Args:
            headroom: How close the sample is to its limits.
            sample: The newest.
            limit: The budget, in bytes.
        """
        config, in_use = self._config, held_against_budget(sample)
        first_step, at_first = self._began or (sample.step, in_use)
        steps = sample.step - first_step
        if steps >= FEWEST_STEPS:
            self._settled = self._settled or (sample.step, in_use)
        if not config.can_recycle or steps < 1:
            return ()
        if config.reload_interval is not None and steps >= config.reload_interval:
            reason = f"every {config.reload_interval} steps, as configured"
        elif in_use < at_first * (1 + WORTH_RECYCLING) or steps < FEWEST_STEPS:
            return ()  # a fresh process would hold as much
        else:
            reason = self._want(headroom, sample, limit)
        return (Decision(sample.step, "recycle", reason),) if reason else ()

    def _want(self, headroom: Headroom, sample: Sample, limit: int) -> str:
        """Why a process is to be replaced for want of memory; empty where it is not."""
        config, in_use = self._config, held_against_budget(sample)
        if config.reload_threshold is not None and in_use > config.reload_threshold:
            return f"memory in use is {format_size(in_use)}, above {format_size(config.reload_threshold)}"
        if headroom.level in {"calm", "stopping"}:  # the machine is short, whoever has taken it: the run stops
            return ""
        left = self._steps_left(sample, limit)
        if left < FEW_STEPS_LEFT:
            return f"{headroom.reason}, and grows: the budget is spent in {max(left, 0):.0f} steps"
        if headroom.level != "threshold" and self._released:
            return f"{headroom.reason}, and releasing did not help"
        return ""

    def _steps_left(self, sample: Sample, limit: int) -> float:
        """Steps until the budget is spent, if memory goes on growing as it has since the first steps."""
        if self._settled is None or sample.step <= self._settled[0]:
            return float("inf")
        step, in_use = self._settled
        rate = (held_against_budget(sample) - in_use) / (sample.step - step)
        return (limit - held_against_budget(sample)) / rate if rate > 0 else float("inf")

    def answer_headroom(self, headroom: Headroom, sample: Sample) -> tuple[Decision, ...]:
        """Decide what a sample's distance to its limits asks for."""
        match headroom.level:
            case "calm":
                self._released_over_budget = self._released = False
                return ()
            case "stopping":
                return (Decision(sample.step, "stop", headroom.reason),)
            case "over budget" if self._released_over_budget:
                return (Decision(sample.step, "stop", f"{headroom.reason}, and releasing did not help"),)
            case "over budget":
                self._released_over_budget = True
                return self._release(headroom.reason, sample, urgent=True)
            case _:
                return self._release(headroom.reason, sample)

    def answer_verdict(self, verdict: Verdict, sample: Sample) -> tuple[Decision, ...]:
        """Decide what a leak above the threshold asks for: one release for each time it is found."""
        fast = [
            finding
            for finding in verdict.findings
            if finding.verdict == "leak"
            and finding.rate is not None
            and finding.rate.bytes_per_step >= self._config.leak_threshold
        ]
        if not fast or self._leaks_answered:
            self._leaks_answered = len(fast)
            return ()
        self._leaks_answered = len(fast)
        return self._release(fast[0].advice, sample)

    def answer_interval(self, step: Step) -> tuple[Decision, ...]:
        """Decide whether the caches are due to be cleared."""
        interval = self._config.cache_clear_interval
        before, self._interval_step = self._interval_step, step
        if interval is None or before is None or step // interval == before // interval:
            return ()
        return (Decision(step, "clear_caches", f"every {interval} steps, as configured"),)

    def learn(self, action: ActionName, freed: int, in_use: int) -> None:
        """Take note of what an action freed, and of the memory in use after it."""
        if freed < self._config.least_yield:
            self._useless[action] = in_use
        else:
            self._useless.pop(action, None)

    def _release(self, reason: str, sample: Sample, *, urgent: bool = False) -> tuple[Decision, ...]:
        """Decide on every gentle action that may still pay."""
        if not urgent and sample.seconds - self._released_at < self._config.cooldown:
            return ()
        in_use = memory_in_use(sample)
        actions = [
            action
            for action in RELEASE
            if urgent or in_use >= self._config.regrowth * self._useless.get(action, 0)
        ]
        if set(actions) <= {"synchronise"}:  # waiting alone releases nothing
            return ()
        self._released_at = sample.seconds
        self._released = True
        return tuple(Decision(sample.step, action, reason) for action in actions)

    def __repr__(self) -> str:
        useless = {name: format_size(size) for name, size in self._useless.items()}
        return f"Remedies(did not pay: {useless})"


def memory_in_use(sample: Sample) -> int:
    """What a release can lower: resident memory and what is reserved on the device."""
    return sample.resident + (0 if sample.device is None else sample.device.reserved)


def held_against_budget(sample: Sample) -> int:
    """What is held against the budget: the host's memory or the device's, whichever is more."""
    return max(int(sample.resident), 0 if sample.device is None else int(sample.device.reserved))
