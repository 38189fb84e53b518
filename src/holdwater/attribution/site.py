"""What an explanation is made of: lines, how each is known, and the share of the growth that they account for."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from holdwater.attribution.patterns import Pattern
from holdwater.detectors.verdict import Clock, Component

KnownBy = Literal["seen", "source"]
Answer = Literal["explained", "not explained yet"]
LEAST_EXPLAINED = 1 / 3
"""Sites that account for less of a growth than this are no answer."""
EVENTFUL = frozenset(("evaluation", "checkpoint", "epoch", "shape", "compile"))
"""Clocks whose events are many steps apart."""


@dataclass(frozen=True, slots=True)
class Site:
    """A line that has to do with a growth."""

    role: Literal["allocated", "held"]
    file: str
    line: int
    function: str
    name: str | None
    """Under which it is held; of an allocation the function that was called."""
    kind: str | None
    """What holds: `list`, `lru_cache`, `Tensor`; None for an allocation."""
    bytes_per_step: float
    text: str = ""
    """The line itself."""
    known_by: KnownBy = "seen"
    """Whether the line was recorded or traced while memory grew, or only read in the user's source."""
    ran: bool = True
    """Whether it was seen to run."""
    share: float = 0.0
    """Of the growth, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Growing:
    """The growth that is to be explained."""

    component: Component
    rate: float
    """Bytes (or handles) a step."""
    follows: Clock = "step"
    every_steps: int | None = None
    """Steps from one rise to the next, where it comes so seldom; None where it comes at every step."""
    per_event: float | None = None
    """Bytes of one event of the clock that it follows; None where that is not known."""

    @property
    def eventful(self) -> bool:
        """Whether it comes seldom: by an event, or every few steps."""
        return self.follows in EVENTFUL or self.every_steps is not None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of a growth beside its curve."""

    step: int
    """The step at which it was known."""
    sites: tuple[Site, ...]
    """At most five, the guiltiest first."""
    explained: float
    """The share of the growth that is accounted for, 0 to 1."""
    chain: tuple[str, ...] = ()
    """The way from the allocation to what it keeps, a sentence each."""
    pattern: Pattern | None = None
    missing: tuple[str, ...] = ()
    """What could not be looked at, and why."""
    seconds: float = 0.0
    """What looking cost the training process."""
    answer: Answer = "explained"
    """Whether that accounts for enough of the growth to be told as its cause."""

    def as_json(self) -> dict[str, Any]:
        """For the run's store."""
        return asdict(self)
