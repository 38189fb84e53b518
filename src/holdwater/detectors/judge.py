"""Judge a run so far: every component of its memory on its own, and the gravest finding for the whole."""

from dataclasses import dataclass, field, replace

import numpy as np

from holdwater.budget import Budget
from holdwater.detectors.growth import DEFAULT, Growth, GrowthConfig, judge_growth
from holdwater.detectors.verdict import Component, Finding, Forecast, Rate, Verdict
from holdwater.timeline.buckets import Buckets, Floats
from holdwater.units import Step, format_rate, format_size

PARTS: tuple[tuple[str, Component], ...] = (
    ("file", "host.file"),
    ("shared_memory", "host.shared"),
    ("heap_kept", "host.retained"),
    ("heap_in_use", "host.native"),
)
"""Parts of resident memory; the one that explains most of its growth gives the component its name."""
OTHERS: tuple[tuple[str, Component], ...] = (
    ("device_allocated", "device.active"),
    ("children", "host.children"),
    ("pinned", "host.pinned"),
)
"""Series beside resident memory, judged where they were read."""

LEAST_PART = 0.3
"""A part is named only if it explains this share of the rise."""


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """What the judgement goes by."""

    growth: GrowthConfig = field(default=DEFAULT)
    leak_threshold: float = 1e6
    """Bytes per step above which remedies may act on a leak; below it, it is only reported."""


def judge(buckets: Buckets, budget: Budget, *, look: int, config: JudgeConfig) -> Verdict:
    """Judge the history of a run.

    Args:
        buckets: The history.
        budget: What the forecast leads to.
        look: The number of this judgement within the run, from 1.
        config: What the judgement goes by.
    """
    step = Step(int(buckets.last_step[-1]) if len(buckets) else 0)
    context = _Context(buckets, budget, look, config, step)
    findings = [context.judge_series("resident", "host.native")]
    others = [context.judge_series(series, component) for series, component in OTHERS if buckets.seen(series)]
    findings += [finding for finding in others if finding.verdict != "unknown"]  # read too seldom as yet
    return Verdict.of(tuple(findings), step)


@dataclass(frozen=True, slots=True)
class _Context:
    """One judgement: what all series of it share."""

    buckets: Buckets
    budget: Budget
    look: int
    config: JudgeConfig
    step: Step

    def judge_series(self, series: str, component: Component) -> Finding:
        """Judge one series and put the result into words."""
        steps, floors = _read(self.buckets, series)
        share = replace(self.config.growth, false_alarms=self.config.growth.false_alarms / (1 + len(OTHERS)))
        growth = judge_growth(steps, floors, look=self.look, config=share)
        if series == "resident":
            component = self._guilty_part(growth)
        return Finding(
            verdict=growth.kind,
            component=component,
            detected_step=self.step,
            advice=self._advise(growth),
            rate=growth.rate,
            follows="step" if growth.kind == "leak" else "unknown",
            onset_step=growth.onset,
            forecast=self._forecast(growth) if growth.kind == "leak" else None,
        )

    def _guilty_part(self, growth: Growth) -> Component:
        """The part of resident memory that rose most since the growth began (or over the whole run)."""
        since = 0 if growth.onset is None else int(growth.onset)
        whole = _rise(*_read(self.buckets, "resident"), since)
        rises = [(_rise(*_read(self.buckets, series), since), component) for series, component in PARTS]
        most, component = max(rises)
        return component if most >= LEAST_PART * whole > 0 else "host.native"

    def _forecast(self, growth: Growth) -> Forecast | None:
        """Extend the line to the budget; None where there is no slope or the budget is spent."""
        rate = growth.rate
        room = self.budget.limit - growth.level
        if rate is None or rate.bytes_per_step <= 0 or room <= 0:
            return None
        steps = room / rate.bytes_per_step
        return Forecast(
            limit_bytes=self.budget.limit,
            steps=steps,
            steps_low=room / rate.high if rate.high > 0 else steps,
            steps_high=room / rate.low if rate.low > 0 else float("inf"),
            seconds=steps * self._seconds_per_step(),
        )

    def _seconds_per_step(self) -> float:
        """The mean over the whole history."""
        steps = self.buckets.last_step[-1] - self.buckets.first_step[0]
        return float(self.buckets.seconds[-1] - self.buckets.seconds[0]) / max(int(steps), 1)

    def _advise(self, growth: Growth) -> str:
        """Say what was found, for people."""
        match growth.kind, growth.rate:
            case "leak", Rate() as rate:
                above = rate.bytes_per_step >= self.config.leak_threshold
                return (
                    f"memory grows by {format_rate(rate.bytes_per_step)} since step {growth.onset}, "
                    f"{'above' if above else 'below'} the threshold of "
                    f"{format_rate(self.config.leak_threshold)}"
                )
            case "warming", _:
                return "memory still rises, but more slowly than before: not judged yet"
            case "bounded", _:
                return f"memory rose by {format_size(growth.risen)} and has stopped"
            case "flat", _:
                return "memory stays where it is"
            case _:
                return "too few steps to judge"


def _rise(steps: Floats, floors: Floats, since: int) -> float:
    """How far a series rose from its last reading before a step to its newest; 0 if there is none."""
    if len(floors) == 0:
        return 0.0
    start = max(int(np.searchsorted(steps, since, side="right")) - 1, 0)
    return float(floors[-1] - floors[start])


def _read(buckets: Buckets, series: str) -> tuple[Floats, Floats]:
    """Steps and floors of a series, without the buckets in which it was not read."""
    floors = buckets.lows(series)
    seen = ~np.isnan(floors)
    return buckets.last_step[seen].astype(np.float64), floors[seen]
