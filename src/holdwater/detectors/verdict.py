"""Verdicts on a run's memory, with their numbers."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from holdwater.units import Step

VerdictKind = Literal["flat", "bounded", "cyclic", "unknown", "warming", "fragmentation", "pressure", "leak"]
GRAVITY: tuple[VerdictKind, ...] = (
    "leak",
    "pressure",
    "fragmentation",
    "warming",
    "unknown",
    "cyclic",
    "bounded",
    "flat",
)
"""The most severe first."""
Component = Literal[
    "host.python",
    "host.tensors",
    "host.native",
    "host.retained",
    "host.file",
    "host.shared",
    "host.children",
    "host.pinned",
    "device.active",
    "device.reserved",
    "device.other",
    "device.buffers",
    "process.handles",
]
COUNTED: frozenset[Component] = frozenset(("process.handles", "device.buffers"))
"""Components that are numbers of things: their rates and forecasts are numbers too, not bytes."""
Clock = Literal["step", "sample", "epoch", "evaluation", "checkpoint", "shape", "compile", "seconds", "unknown"]
"""The clocks that a growth can follow."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Growth over the settled part of a run, with its interval, in bytes per step (for `COUNTED`, a number)."""

    bytes_per_step: float
    low: float
    high: float
    confidence: float
    """The probability with which `low` and `high` enclose the true rate."""
    per_event: float | None = None
    """Bytes per event of the clock that the growth follows; None if that is the step."""
    every_steps: int | None = None
    """Steps from one event to the next, if growth comes every so many steps; else None."""

    def per(self, event: float) -> "Rate":
        """The same rate, with the bytes that each event adds."""
        return replace(self, per_event=event)


@dataclass(frozen=True, slots=True)
class Forecast:
    """When the growth meets the budget, if it goes on."""

    limit_bytes: int
    """The number of buffers for `device.buffers`."""
    steps: float
    """Counted from the step of the judgement."""
    steps_low: float
    steps_high: float
    """With `steps_low`, the 90 % interval."""
    seconds: float
    """At the speed of the run so far."""


@dataclass(frozen=True, slots=True)
class Plateau:
    """The level at which a growth ends by itself."""

    settles_at_bytes: float
    """Resident memory at that level."""
    steps: float
    """Counted from the step of the judgement; 0 if it has settled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One component of memory, judged on its own."""

    verdict: VerdictKind
    component: Component
    detected_step: Step
    """The step of the judgement."""
    message: str
    """One or two sentences for the user."""
    rate: Rate | None = None
    """None if there are too few steps for a slope."""
    follows: Clock = "unknown"
    onset_step: Step | None = None
    """Where the growth began; None if nothing grows."""
    forecast: Forecast | Plateau | None = None
    """None if nothing grows, or no limit is known."""
    pattern: str | None = None
    """The name of a known cause."""

    @property
    def spent_after(self) -> float:
        """Steps until its pool is spent; infinite if there is no forecast."""
        return self.forecast.steps if isinstance(self.forecast, Forecast) else float("inf")

    def as_row(self) -> dict[str, Any]:
        """For the store, by the names of schema 1: the message is its `advice`."""
        row = asdict(self)
        return row | {"advice": row.pop("message")}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of a whole run so far."""

    kind: VerdictKind
    step: Step
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, findings: tuple[Finding, ...], step: Step) -> "Verdict":
        """Take the most severe finding's verdict, `unknown` without any; of several the soonest spent leads."""
        kinds = {finding.verdict for finding in findings}
        kind: VerdictKind = next((kind for kind in GRAVITY if kind in kinds), "unknown")
        ordered = sorted(findings, key=lambda finding: (GRAVITY.index(finding.verdict), finding.spent_after))
        return cls(kind, step, tuple(ordered))
