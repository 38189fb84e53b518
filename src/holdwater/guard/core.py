"""The guard's mind: samples in, events out. No clock, no thread, no file, no framework.

The same samples always give the same events, so that a stored run can be judged again.
"""

from dataclasses import dataclass, field

from holdwater.budget import Budgets, InUse
from holdwater.detectors.growth import DEFAULT, GrowthConfig
from holdwater.detectors.headroom import CALM, Headroom, HeadroomConfig, Pressure, judge_headroom
from holdwater.detectors.judge import JudgeConfig, judge
from holdwater.detectors.verdict import Verdict
from holdwater.policy.decision import ActionName, Decision
from holdwater.policy.remedies import Remedies, RemedyConfig
from holdwater.policy.restarts import lowered_budgets
from holdwater.probes.sample import Sample
from holdwater.timeline.timeline import CAPACITY, Timeline
from holdwater.units import Step

FIRST_JUDGEMENT = 128
"""Steps before the first judgement."""
JUDGEMENT_GROWTH = 1.5
"""Each judgement comes when the run is this many times as long as at the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreConfig:
    """What the guard goes by."""

    headroom: HeadroomConfig
    remedies: RemedyConfig = field(default_factory=RemedyConfig)
    growth: GrowthConfig = DEFAULT
    deaths: int = 0
    """Processes of this run that were killed for want of memory."""
    capacity: int = CAPACITY


Event = Decision | Verdict
"""What the core answers a sample with."""


class GuardCore:
    """Remembers the run in bounded memory, judges it at growing intervals, and decides on remedies."""

    def __init__(self, budgets: Budgets, config: CoreConfig) -> None:
        self.config = config
        self.keep(budgets)
        self.timeline = Timeline(config.capacity)
        self.verdict = Verdict("unknown", Step(0), ())
        self.headroom: Headroom = CALM
        self._remedies = Remedies(config.remedies)
        self._judge_config = JudgeConfig(config.growth, config.remedies.leak_threshold)
        self._first_step: Step | None = None
        self._next_judgement = FIRST_JUDGEMENT

    def keep(self, budgets: Budgets) -> None:
        """Keep these budgets from now on.

        Args:
            budgets: Of the run; other ones where it has begun to use a device.
        """
        self.budgets = budgets
        self._kept = lowered_budgets(budgets, self.config.deaths)
        self._pressure = Pressure()

    def observe(self, sample: Sample) -> tuple[Event, ...]:
        """Take one sample in.

        Args:
            sample: The memory at the end of a step; steps increase.

        Returns:
            What follows from it, in the order in which it should be done.
        """
        self.record(sample)
        self.headroom = judge_headroom(sample, self.budgets, self.config.headroom)
        self._pressure.note(sample.step, self.headroom)
        events: tuple[Event, ...] = self._remedies.answer(self.headroom, sample, self._kept)
        if any(event.action == "recycle" for event in events if isinstance(event, Decision)):
            return events
        events += self._remedies.answer_interval(sample.step)
        steps = sample.step - (self._first_step or 0)
        if steps >= self._next_judgement:
            self._next_judgement = int(steps * JUDGEMENT_GROWTH)
            verdict = self.judge()
            events += (verdict, *self._remedies.answer_verdict(verdict, sample))
        return events

    def record(self, sample: Sample) -> None:
        """Take one sample into the history only: before the first step, and after the last."""
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

    def learn(self, action: ActionName, freed: InUse, in_use: InUse) -> None:
        """Take in what an action freed, in bytes by pool, so that one that does not pay is not repeated."""
        self._remedies.learn(action, freed, in_use)
