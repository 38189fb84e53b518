"""Detect memory that has come close to the budget, or a machine that has little left."""

from dataclasses import dataclass
from typing import Literal

from holdwater.budget import Budget
from holdwater.detectors.verdict import Finding, Verdict
from holdwater.errors import ConfigError
from holdwater.probes.sample import Sample
from holdwater.units import Bytes, Step, format_size

PressureLevel = Literal["calm", "threshold", "waiting", "over budget", "stopping"]
LEVELS: tuple[PressureLevel, ...] = ("calm", "threshold", "waiting", "over budget", "stopping")
"""From harmless to grave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadroomConfig:
    """Where pressure begins."""

    waiting_below: Bytes
    """Available memory under which the run waits and releases caches."""
    stopping_below: Bytes
    """Available memory under which the run stops with a checkpoint."""
    threshold: float = 0.8
    """The share of the budget above which caches are released."""

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
    """How close a sample is to its limits."""

    level: PressureLevel
    reason: str
    """The numbers, for people; empty when calm."""


CALM = Headroom("calm", "")


class Pressure:
    """Remembers the first sample that was over the budget, or found the machine short of memory."""

    def __init__(self) -> None:
        self.finding: Finding | None = None

    def note(self, step: Step, headroom: Headroom) -> None:
        """Take in how close a sample was to its limits."""
        if self.finding is None and headroom.level not in {"calm", "threshold"}:
            self.finding = Finding(
                verdict="pressure",
                component="host.native",
                detected_step=step,
                onset_step=step,
                advice=f"{headroom.level}: {headroom.reason}",
            )

    def added_to(self, verdict: Verdict) -> Verdict:
        """A verdict with this finding in it, if there is one."""
        return verdict if self.finding is None else Verdict.of((*verdict.findings, self.finding), verdict.step)


def judge_headroom(sample: Sample, budget: Budget, config: HeadroomConfig) -> Headroom:
    """Judge one sample; the gravest level wins."""
    available = None if sample.look is None else sample.look.available
    if available is not None and available < config.stopping_below:
        return Headroom("stopping", _available(available, config.stopping_below, "stopping"))
    used, limit, whose = _largest_use(sample, budget)
    if used > limit:
        return Headroom("over budget", f"{whose} is {format_size(used)}, over the budget of {format_size(limit)}")
    if available is not None and available < config.waiting_below:
        return Headroom("waiting", _available(available, config.waiting_below, "waiting"))
    if used > config.threshold * limit:
        return Headroom(
            "threshold",
            f"{whose} is {format_size(used)}, over {config.threshold:.0%} of the budget of {format_size(limit)}",
        )
    return CALM


def _largest_use(sample: Sample, budget: Budget) -> tuple[int, int, str]:
    """The memory that is held against a limit, and that limit: the host's or the device's, whichever is nearer."""
    host = (int(sample.resident), int(budget.limit), "resident memory")
    if sample.device is None:
        return host
    device = (int(sample.device.reserved), int(sample.device.limit or budget.limit), "device memory reserved")
    return max(host, device, key=lambda use: use[0] / use[1])


def _available(available: Bytes, level: Bytes, name: str) -> str:
    """The two numbers, for people."""
    return f"{format_size(available)} available, under the {name} level of {format_size(level)}"
