"""The parts of an explanation: lines, how each is known, and the share of the growth that they account for."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from holdwater.attribution.patterns import Pattern
from holdwater.detectors.verdict import Clock, Component

KnownBy = Literal["seen", "source"]
Answer = Literal["explained", "not explained yet"]
LEAST_EXPLAINED = 1 / 3
"""Sites that account for a smaller share of a growth do not explain it."""
EVENTFUL = frozenset(("evaluation", "checkpoint", "epoch", "shape", "compile"))
"""Clocks whose events are many steps apart."""


@dataclass(frozen=True, slots=True)
class Site:
    """A line that allocates or holds a growth."""

    role: Literal["allocated", "held"]
    file: str
    line: int
    function: str
    name: str | None
    """The name under which it is held; for an allocation, the function that was called."""
    kind: str | None
    """The holder's type: `list`, `lru_cache`, `Tensor`; None for an allocation."""
    bytes_per_step: float
    text: str = ""
    """The source text of the line."""
    known_by: KnownBy = "seen"
    """Whether the line was recorded or traced while memory grew, or only read in the user's source."""
    ran: bool = True
    """Whether it was seen to run."""
    share: float = 0.0
    """Share of the growth, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Growing:
    """The growth that is to be explained."""

    component: Component
    rate: float
    """Bytes (or handles) a step."""
    follows: Clock = "step"
    every_steps: int | None = None
    """Steps from one rise to the next; None if it grows at every step."""
    per_event: float | None = None
    """Bytes per event of the clock that it follows; None if unknown."""

    @property
    def eventful(self) -> bool:
        """Whether it is rare: by events, or every few steps."""
        return self.follows in EVENTFUL or self.every_steps is not None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The explanation of a growth."""

    step: int
    """The step at which it was found."""
    sites: tuple[Site, ...]
    """At most five, the most likely first."""
    explained: float
    """The share of the growth that is accounted for, 0 to 1."""
    chain: tuple[str, ...] = ()
    """The path from the allocation to what it keeps, one sentence each."""
    pattern: Pattern | None = None
    missing: tuple[str, ...] = ()
    """What could not be examined, and why."""
    seconds: float = 0.0
    """Seconds that the explanation cost the training process."""
    answer: Answer = "explained"
    """Whether that accounts for enough of the growth to be reported as its cause."""

    def as_json(self) -> dict[str, Any]:
        """As JSON, for the run's store."""
        return asdict(self)
