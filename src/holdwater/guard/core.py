"""The pure part of the guard: samples in, events out. No clock, no thread, no file, no framework.

The same samples always give the same events, so that a stored run can be judged again.
"""

import math
from dataclasses import dataclass, field

from holdwater.actions.levers import Levers
from holdwater.budget import Budgets, InUse, MachineMemory, stopping_level, waiting_level
from holdwater.detectors.closing import moved_at_the_end
from holdwater.detectors.growth import DEFAULT, GrowthConfig
from holdwater.detectors.headroom import CALM, Headroom, HeadroomConfig, Pressure, judge_headroom
from holdwater.detectors.judge import JudgeConfig, judge
from holdwater.detectors.pools import uses
from holdwater.detectors.rise import keeps_its_pace
from holdwater.detectors.series import held_series
from holdwater.detectors.verdict import Verdict
from holdwater.guard.settings import GuardSettings
from holdwater.policy.decision import ActionName, Decision
from holdwater.policy.remedies import Remedies, RemedyConfig
from holdwater.policy.restarts import lowered_budgets
from holdwater.probes.sample import Sample
from holdwater.timeline.timeline import CAPACITY, Timeline
from holdwater.units import Step

FIRST_JUDGEMENT = 128
"""Steps before the first judgement."""
EARLIEST_JUDGEMENT = 12
"""Steps before the first judgement of a run that would spend its budget before the usual one."""
JUDGEMENT_GROWTH = 1.5
"""Each judgement comes when the run is this many times as long as at the previous one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreConfig:
    """The settings of the guard's core."""

    headroom: HeadroomConfig
    remedies: RemedyConfig = field(default_factory=RemedyConfig)
    growth: GrowthConfig = DEFAULT
    deaths: int = 0
    """Processes of this run that were killed out of memory."""
    capacity: int = CAPACITY


Event = Decision | Verdict
"""The core's answer to a sample."""


class GuardCore:
    """Keeps the run's history in bounded memory, judges it at growing intervals, and decides on remedies."""

    def __init__(self, budgets: Budgets, config: CoreConfig) -> None:
        self.config = config
        self.keep(budgets)
        self.timeline = Timeline(config.capacity)
        self.verdict = Verdict("unknown", Step(0), ())
        self.headroom: Headroom = CALM
        self._remedies = Remedies(config.remedies)
        self.replacement = self._remedies.replacement
        """Says when the process is to be replaced."""
        self._judge_config = JudgeConfig(config.growth, config.remedies.leak_threshold)
        self._first_step: Step | None = None
        self.answers_at = -math.inf
        """The step whose sample is to be observed at once."""
        self._next_judgement = FIRST_JUDGEMENT
        self._early_judgement: float = EARLIEST_JUDGEMENT
        self._judge_after = 0.0

    def keep(self, budgets: Budgets) -> None:
        """Keep these budgets from now on.

        Args:
            budgets: The run's; they change when it begins to use a device.
        """
        self.budgets = budgets
        self._kept = lowered_budgets(budgets, self.config.deaths)
        self._pressure = Pressure()
        self._calm_below = self._threshold(self._kept.host.limit)

    def can_wait(self, sample: Sample) -> bool:
        """Whether nothing has to be done about a sample, so that it may be observed later, with others.

        Args:
            sample: The newest, not observed yet.
        """
        if sample.look is not None or sample.step >= self.answers_at:
            return False
        if sample.device is None:  # as in nearly all calls: cheap enough for every step
            return sample.resident < self._calm_below
        if self._remedies.cache.is_over(sample, self._kept):
            return False
        return all(use.used < self._threshold(use.limit) for use in uses(sample, self._kept))

    def judge_after(self, seconds: float) -> None:
        """Let no judgement follow from samples before this moment, since judging has its price.

        Args:
            seconds: On the samples' clock.
        """
        self._judge_after = seconds

    def observe(self, sample: Sample) -> tuple[Event, ...]:
        """Add one sample.

        Args:
            sample: The memory at the end of a step; steps increase.

        Returns:
            Events, in the order in which they should be handled.
        """
        self.record(sample)
        self.headroom = judge_headroom(sample, self.budgets, self.config.headroom)
        self._pressure.note(sample.step, self.headroom)
        events: tuple[Event, ...] = self._remedies.answer(self.headroom, sample, self._kept)
        if any(event.action == "recycle" for event in events if isinstance(event, Decision)):
            return events
        events += self._remedies.answer_interval(sample.step)
        events += self._judge_early(sample)
        self.answers_at = self._remedies.answers_at
        if self._judgement_is_due(sample):
            self._next_judgement = int((sample.step - (self._first_step or 0)) * JUDGEMENT_GROWTH)
            verdict = self.judge()
            events += (verdict, *self._remedies.answer_verdict(verdict, sample))
        return events

    def record(self, sample: Sample) -> None:
        """Add one sample to the history only: before the first step, and after the last."""
        self.timeline.append(sample)
        if self._first_step is None:
            self._first_step = sample.step
            self._remedies.begin(sample)

    def judge(self, *, final: bool = False) -> Verdict:
        """Judge the run so far, now.

        Args:
            final: The run has ended: there is nothing to wait for.
        """
        judgement = judge(self.timeline.buckets(), self.budgets, config=self._judge_config, final=final)
        self.verdict = self._pressure.added_to(judgement.verdict)
        return self.verdict

    def judge_end(self, closing: Sample) -> Verdict:
        """Judge the run, which has ended.

        What was a leak while the loop ran is one, even if its memory was freed between the last step and the
        closing sample, or more was taken: resident memory has moved then, or the allocator keeps what was freed.

        Args:
            closing: Taken after the last step, with all readings.
        """
        loop, before = self.judge(final=True), self.timeline.buckets().lows("resident")
        self.record(closing)
        whole = self.judge(final=True)
        freed = whole.kind == "fragmentation" or (len(before) > 0 and closing.resident < before[-1])
        if loop.kind == "leak" and (freed or moved_at_the_end(self.timeline.buckets())):
            self.verdict = loop
        return self.verdict

    def learn(self, action: ActionName, freed: InUse, in_use: InUse) -> None:
        """Record what an action freed, in bytes by pool, so that an ineffective one is not repeated."""
        self._remedies.learn(action, freed, in_use)

    def _judge_early(self, sample: Sample) -> tuple[Event, ...]:
        """Judge a run that would spend its budget before the first judgement, as if it ended now.

        Only where host and device are one pool, whose end Metal does not survive: elsewhere a large warm-up, which
        looks the same, is more likely than a leak that spends the budget in so few steps.
        """
        steps = sample.step - (self._first_step or 0)
        if not self._kept.unified or not self._early_judgement <= steps < FIRST_JUDGEMENT:
            return ()
        soon = self._remedies.steps_left(sample, self._kept) < FIRST_JUDGEMENT - steps
        ends = soon and any(keeps_its_pace(values) for values in held_series(self.timeline.buckets()))
        if not ends and self._early_judgement == EARLIEST_JUDGEMENT:
            return ()
        self._early_judgement = int(steps * JUDGEMENT_GROWTH)
        verdict = self.judge(final=ends)
        return (verdict, *self._remedies.answer_verdict(verdict, sample))

    def _judgement_is_due(self, sample: Sample) -> bool:
        """Whether a sample is to be followed by a judgement."""
        steps = sample.step - (self._first_step or 0)
        return steps >= self._next_judgement and sample.seconds >= self._judge_after

    def _threshold(self, limit: int) -> float:
        """Bytes of a pool with this limit under which a sample asks for nothing."""
        most = self.config.remedies.replacement.reload_threshold
        threshold = self.config.headroom.threshold * limit
        return threshold if most is None else min(threshold, most)


def configure(settings: GuardSettings, machine: MachineMemory, levers: Levers) -> CoreConfig:
    """The settings of a guard in the core's terms; levels are scaled to the machine.

    Args:
        settings: Of the guard.
        machine: What the machine has.
        levers: The loop's side of the remedies.
    """
    waiting = waiting_level(machine) if settings.waiting_below is None else settings.waiting_below
    stopping = stopping_level(machine) if settings.stopping_below is None else settings.stopping_below
    return CoreConfig(
        headroom=HeadroomConfig(waiting_below=waiting, stopping_below=stopping, threshold=settings.threshold),
        deaths=settings.deaths,
        remedies=RemedyConfig(
            leak_threshold=settings.leak_threshold,
            cache_clear_interval=settings.cache_clear_interval,
            replacement=settings.replacement,
            can_recycle=levers.recycle is not None,
        ),
    )
