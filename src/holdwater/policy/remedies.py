"""Decide when memory is released and when a run stops, the mildest remedy first; each pool by its own budget.

A release that freed too little is not repeated until memory has grown, and none is repeated within the cooldown.
"""

import math
from dataclasses import dataclass, field

from holdwater.budget import NOTHING_IN_USE, Budgets, InUse, Pool
from holdwater.detectors.headroom import Headroom
from holdwater.detectors.pools import Use, uses
from holdwater.detectors.verdict import Verdict
from holdwater.errors import ConfigError
from holdwater.policy.approach import Approaches, Near
from holdwater.policy.cache_clearing import CacheClearing
from holdwater.policy.decision import GENTLE, RELEASE, ActionName, Decision
from holdwater.policy.replacement import Replacement, ReplacementConfig
from holdwater.probes.sample import Sample, in_use_by_pool
from holdwater.units import Step, format_size


@dataclass(frozen=True, slots=True, kw_only=True)
class RemedyConfig:
    """When remedies may act."""

    cooldown: float = 30.0
    """Seconds between two releases."""
    least_yield: int = 1 << 20
    """Bytes that an action must free, or it counts as having freed too little."""
    regrowth: float = 1.05
    """How much memory must have grown, as a factor, before an action that freed too little is tried again."""
    leak_threshold: float = 1e6
    """Bytes per step above which a leak is a reason to release memory."""
    cache_clear_interval: int | None = None
    """Steps between two clearings of framework caches; None clears only when memory is short."""
    replacement: ReplacementConfig = field(default_factory=ReplacementConfig)
    """When the process is replaced by a fresh one."""
    can_recycle: bool = False
    """Whether the process can be replaced: somebody starts another, which can go on from a checkpoint."""
    has_workers: bool = False
    """Whether workers that load the data can be replaced."""

    def __post_init__(self) -> None:
        if self.cache_clear_interval is not None and self.cache_clear_interval < 1:
            raise ConfigError(
                f"periodic_cache_clear_interval is {self.cache_clear_interval}, but it counts steps; "
                "set it to 1 or more, or leave it out to clear only when memory is short"
            )


LONGEST_REPLACEMENT = 10.0
"""Seconds after which the replacement of a worker counts as failed."""
NEAR_RELEASING = Near(12.0, 0.05, 32 << 20)
"""So near to its budget, growing memory is worth releases that cost more than a collection."""
NEAR_STOPPING = Near(2.0, 0.01, 16 << 20)
"""A run that cannot be recycled is stopped here, before the kernel kills it."""


class Remedies:
    """Turns pressure and verdicts into decisions; remembers which actions freed enough."""

    def __init__(self, config: RemedyConfig) -> None:
        self._config = config
        self._released_at = float("-inf")
        self._released_over_budget = False
        self._useless: dict[ActionName, InUse] = {}
        """Memory in use when an action last freed too little, by the name of the action."""
        self._leaks_answered = 0
        self._approaches = Approaches()
        self.replacement = Replacement(config.replacement, self._approaches, possible=config.can_recycle)
        self._released = False
        """Whether all releases were tried since memory was last below the threshold."""
        self._replacing_since = float("-inf")
        """When the replacement of a worker began that is still going on: it takes a few batches."""
        self._interval_step: Step | None = None
        self.cache = CacheClearing()
        """Says when the device's cache is to be cleared although memory is not short."""

    def begin(self, sample: Sample) -> None:
        """Take note of the memory with which this process began."""
        self.replacement.begin(sample)

    def answer(self, headroom: Headroom, sample: Sample, budgets: Budgets) -> tuple[Decision, ...]:
        """Decide what a sample asks for: nothing, a release, replacing the process, or a stop.

        Args:
            headroom: How close the sample is to its limits.
            sample: The newest.
            budgets: Of the run.
        """
        held = {use.pool: use for use in uses(sample, budgets)}
        self._approaches.note(sample.step, held.values())
        reason = self.replacement.reason(headroom, sample, budgets, released=self._released)
        if reason:
            return (Decision(sample.step, "recycle", reason),)
        decisions = self._answer_headroom(headroom, sample, held)
        return decisions or self._answer_cache(sample, budgets)

    def _answer_cache(self, sample: Sample, budgets: Budgets) -> tuple[Decision, ...]:
        """Decide whether the device's cache is cleared, where memory is not short."""
        reason = self.cache.reason(sample, budgets)
        if not reason or not self._may_pay("clear_caches", memory_in_use(sample)):
            return ()
        return (Decision(sample.step, "clear_caches", reason),)

    def steps_left(self, sample: Sample, budgets: Budgets) -> float:
        """Steps until a pool's budget is spent, if memory goes on to rise as it did; infinite if it does not.

        Args:
            sample: The newest, which was answered already.
            budgets: Of the run.
        """
        return self._approaches.steps_left(uses(sample, budgets))

    def _nearest(self, headroom: Headroom, held: dict[Pool, Use]) -> tuple[Headroom, Use]:
        """Of the pools above their thresholds, the one whose budget will be spent first."""
        found = [(one, held[one.pool]) for one in headroom.pools if one.pool in held]
        for near in (NEAR_STOPPING, NEAR_RELEASING):
            for pair in found:
                if self._approaches.is_near(near, pair[1]):
                    return pair
        return found[0]

    def _answer_headroom(self, headroom: Headroom, sample: Sample, held: dict[Pool, Use]) -> tuple[Decision, ...]:
        """Decide what a sample's distance to its limits asks for, where the process is not replaced."""
        match headroom.level:
            case "calm":
                self._released_over_budget = self._released = False
                return ()
            case "stopping":
                return (Decision(sample.step, "stop", headroom.reason),)
            case "over budget" if self._released_over_budget:
                return self._stop(headroom.reason, sample)
            case "over budget":
                self._released_over_budget = True
                return self._release(headroom.reason, sample, RELEASE, urgent=True)
            case "threshold":
                return self._answer_threshold(*self._nearest(headroom, held), sample)
            case _:
                return self._release(headroom.reason, sample, RELEASE)

    def _answer_threshold(self, headroom: Headroom, use: Use, sample: Sample) -> tuple[Decision, ...]:
        """Decide what memory above the threshold asks for: stronger remedies as the budget runs out."""
        if not self._approaches.is_near(NEAR_RELEASING, use):
            return self._release(headroom.reason, sample, GENTLE)
        reason = f"{headroom.reason}, and grows: {self._approaches.spent_soon(use)}"
        if not self._released:
            return self._release(reason, sample, RELEASE, urgent=True)
        if self._approaches.is_near(NEAR_STOPPING, use):
            return self._stop(reason, sample)
        return self._replace_worker(reason, sample) or self._release(reason, sample, RELEASE)

    def _stop(self, reason: str, sample: Sample) -> tuple[Decision, ...]:
        """Stop, unless a worker can be replaced first, or is being replaced."""
        if self._is_replacing(sample):
            return ()
        stop = (Decision(sample.step, "stop", f"{reason}, and releasing did not help"),)
        return self._replace_worker(reason, sample) or stop

    def _is_replacing(self, sample: Sample) -> bool:
        """Whether a worker is being replaced; a replacement that takes too long counts as failed."""
        if sample.seconds - self._replacing_since < LONGEST_REPLACEMENT:
            return True
        if self._replacing_since > float("-inf"):  # it has freed nothing so far
            self.learn("replace_worker", NOTHING_IN_USE, memory_in_use(sample))
        return False

    def _replace_worker(self, reason: str, sample: Sample) -> tuple[Decision, ...]:
        """Have a worker replaced, if there are workers and the last replacement has freed enough."""
        pays = self._may_pay("replace_worker", memory_in_use(sample))
        if self._is_replacing(sample) or not pays or not self._config.has_workers:
            return ()
        self._replacing_since = sample.seconds
        return (Decision(sample.step, "replace_worker", reason),)

    def answer_verdict(self, verdict: Verdict, sample: Sample) -> tuple[Decision, ...]:
        """Decide what a leak above the threshold asks for: one release each time it is newly found."""
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
        return self._release(fast[0].message, sample, RELEASE)

    @property
    def answers_at(self) -> float:
        """The next step after which something is done whatever the memory is; infinite if there is none."""
        interval, due = self._config.cache_clear_interval, self.replacement.due_at
        cleared = math.inf if interval is None else interval * ((self._interval_step or 0) // interval + 1)
        return min(cleared, math.inf if due is None else due)

    def answer_interval(self, step: Step) -> tuple[Decision, ...]:
        """Decide whether the caches are due to be cleared."""
        interval = self._config.cache_clear_interval
        before, self._interval_step = self._interval_step, step
        if interval is None or before is None or step // interval == before // interval:
            return ()
        return (Decision(step, "clear_caches", f"every {interval} steps, as configured", configured=True),)

    def learn(self, action: ActionName, freed: InUse, in_use: InUse) -> None:
        """Record what an action freed, and the memory in use after it, in bytes by pool."""
        if action == "replace_worker":
            self._replacing_since = float("-inf")
        if sum(freed) < self._config.least_yield:
            self._useless[action] = in_use
            return
        self._useless.pop(action, None)
        self._approaches.forget(freed)

    def _may_pay(self, action: ActionName, in_use: InUse) -> bool:
        """Whether an action freed enough when it was last tried, or memory has grown since."""
        then = self._useless.get(action)
        if then is None:
            return True
        return any(now and now >= self._config.regrowth * before for now, before in zip(in_use, then, strict=True))

    def _release(
        self, reason: str, sample: Sample, rungs: tuple[ActionName, ...], *, urgent: bool = False
    ) -> tuple[Decision, ...]:
        """Decide on those of the given actions that may free enough."""
        if not urgent and sample.seconds - self._released_at < self._config.cooldown:
            return ()
        self._released |= rungs == RELEASE
        in_use = memory_in_use(sample)
        actions = [action for action in rungs if urgent or self._may_pay(action, in_use)]
        if set(actions) <= {"synchronise"}:  # waiting alone releases nothing
            return ()
        self._released_at = sample.seconds
        return tuple(Decision(sample.step, action, reason) for action in actions)

    def __repr__(self) -> str:
        useless = {name: tuple(map(format_size, sizes)) for name, sizes in self._useless.items()}
        return f"Remedies(did not pay: {useless})"


def memory_in_use(sample: Sample) -> InUse:
    """What a release can lower: resident memory and what is reserved on the device."""
    return in_use_by_pool(sample.resident, sample.device)
