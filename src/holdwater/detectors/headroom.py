"""Detect memory that has come close to the budget, or a machine that has little left."""

from dataclasses import dataclass, replace
from typing import Literal

from holdwater.budget import Budgets, Pool
from holdwater.detectors.pools import Use, uses
from holdwater.detectors.verdict import Component, Finding, Verdict
from holdwater.errors import ConfigError
from holdwater.probes.sample import Sample
from holdwater.units import Bytes, Step, format_size

PressureLevel = Literal["calm", "threshold", "waiting", "over budget", "stopping"]
OVER_BUDGET: PressureLevel = "over budget"
LEVELS: tuple[PressureLevel, ...] = ("calm", "threshold", "waiting", "over budget", "stopping")
"""From harmless to severe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadroomConfig:
    """The levels at which pressure begins."""

    waiting_below: Bytes
    """Available memory under which the run waits and releases caches."""
    stopping_below: Bytes
    """Available memory under which the run stops with a checkpoint."""
    threshold: float = 0.8
    """The share of a pool's budget above which caches are released."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ConfigError(
                f"memory_threshold_percentage is {self.threshold * 100:g}, but it is a share of the budget; "
                "set it above 0 and at most 100"
            )
        if self.stopping_below > self.waiting_below:
            raise ConfigError(
                f"stopping_below is {format_size(self.stopping_below)}, but waiting_below is only "
                f"{format_size(self.waiting_below)}: the run would stop before it waits; "
                "set stopping_below at most as high as waiting_below"
            )


@dataclass(frozen=True, slots=True)
class Headroom:
    """How close a sample is to the limits of the most severe pool, with the other pools attached."""

    level: PressureLevel
    reason: str
    """The numbers as text; empty when calm."""
    pool: Pool = "host"
    component: Component = "host.native"
    """The component of its finding."""
    others: "tuple[Headroom, ...]" = ()
    """The other pools that are not calm; the more severe first."""

    @property
    def pools(self) -> "tuple[Headroom, ...]":
        """This one and the others."""
        return (self, *self.others)


CALM = Headroom("calm", "")
_SYSTEM_PRESSURE = {2: "at its warning level", 4: "critical"}
"""By the level that macOS reports (`holdwater.probes.metal`)."""


class Pressure:
    """Keeps, for each pool, the first sample that was over its budget, or found the machine short of memory."""

    def __init__(self) -> None:
        self._findings: dict[Pool, Finding] = {}

    def note(self, step: Step, headroom: Headroom) -> bool:
        """Add a sample's pressure; return whether there is a new finding."""
        if headroom.level in {"calm", "threshold"}:
            return False
        known = len(self._findings)
        for one in headroom.pools:
            if one.pool not in self._findings and one.level not in {"calm", "threshold"}:
                self._findings[one.pool] = Finding(
                    verdict="pressure",
                    component=one.component,
                    detected_step=step,
                    onset_step=step,
                    message=f"{one.level}: {one.reason}",
                )
        return len(self._findings) > known

    def added_to(self, verdict: Verdict) -> Verdict:
        """A verdict with these findings added, if there are any."""
        if not self._findings:
            return verdict
        return Verdict.of((*verdict.findings, *self._findings.values()), verdict.step)


def judge_headroom(sample: Sample, budgets: Budgets, config: HeadroomConfig) -> Headroom:
    """Judge one sample, each pool by its own limit.

    Args:
        sample: One step's.
        budgets: Of the run.
        config: The levels at which pressure begins.

    Returns:
        The pressure of the most severe pool; of two at the same level, the fuller one's.
    """
    held = uses(sample, budgets)
    found = [_judge_use(use, config) for use in held if use.used > config.threshold * use.limit]
    short = _judge_machine(sample, held[0].pool, config)
    if short is CALM and not found:  # the common case, at each step
        return CALM
    fullest = {use.pool: -use.used / use.limit for use in held}
    found = [one for one in (short, *sorted(found, key=lambda one: fullest[one.pool])) if one is not CALM]
    worst, *others = sorted(found, key=lambda one: -LEVELS.index(one.level))
    return replace(worst, others=tuple(one for one in others if one.pool != worst.pool))


def _judge_machine(sample: Sample, pool: Pool, config: HeadroomConfig) -> Headroom:
    """How much memory the machine has left, whichever process uses the rest."""
    available = None if sample.look is None else sample.look.available
    level = None if sample.look is None else sample.look.pressure_level
    if level in _SYSTEM_PRESSURE and (available is None or available >= config.stopping_below):
        return Headroom("waiting", f"the system's memory pressure is {_SYSTEM_PRESSURE[level]}", pool)
    if available is None or available >= config.waiting_below:
        return CALM
    if available < config.stopping_below:
        return Headroom("stopping", _available(available, config.stopping_below, "stopping"), pool)
    return Headroom("waiting", _available(available, config.waiting_below, "waiting"), pool)


def _judge_use(use: Use, config: HeadroomConfig) -> Headroom:
    """The level of a pool that is above its threshold."""
    what = "the device's limit" if use.pool == "buffers" else "the budget"
    said, budget = f"{use.whose} is {use.amount(use.used)}", f"{what} of {use.amount(use.limit)}"
    if use.used > use.limit:
        return Headroom(OVER_BUDGET, f"{said}, over {budget}", use.pool, use.component)
    return Headroom("threshold", f"{said}, over {config.threshold:.0%} of {budget}", use.pool, use.component)


def _available(available: Bytes, level: Bytes, name: str) -> str:
    """The two numbers as text."""
    return f"{format_size(available)} available, under the {name} level of {format_size(level)}"
