"""The verdict on repeated calls of a function: flat, settling or a leak, and the largest leak it may miss."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from holdwater.attribution.site import Explanation, Site
from holdwater.detectors.verdict import Component
from holdwater.report.explained import explanation_in_words
from holdwater.units import format_size

CallVerdictKind = Literal["flat", "settling", "leak", "unknown"]


@dataclass(frozen=True, slots=True)
class CallRate:
    """Growth per call, in bytes, with its 95 % interval."""

    bytes_per_call: float
    low: float
    high: float

    @property
    def interval(self) -> str:
        """The interval in words."""
        return f"95 % interval {format_size(self.low)} to {format_size(self.high)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallVerdict:
    """What repeated calls of a function do to memory."""

    kind: CallVerdictKind
    """`settling`: it still rises, but slows down, or fills what has a maximum length; `unknown`: too few calls."""
    calls: int
    seconds: float
    missed: float
    """The largest leak, in bytes a call, that the exact counters leave possible (Python, malloc, the device)."""
    missed_elsewhere: float
    """The same for memory that libraries map themselves, which only resident memory shows."""
    component: Component | None = None
    """What leaks; None if nothing does."""
    rate: CallRate | None = None
    explanation: Explanation | None = None
    unexplained: str | None = None
    """Why there is no explanation of a leak; None if there is one."""

    @property
    def site(self) -> Site | None:
        """The line to look at first; None if none is known."""
        sites = () if self.explanation is None else self.explanation.sites
        return next(iter(sites), None)

    def __str__(self) -> str:
        """The verdict in words."""
        return "\n".join(self._lines())

    def _lines(self) -> Sequence[str]:
        """The verdict, a sentence each."""
        over = f"over {self.calls:,} calls in {self.seconds:.1f} s"
        if self.kind == "unknown":
            return [f"{self.calls:,} calls are too few to tell whether memory grows; at least 37 are needed"]
        if self.kind == "settling":
            return [f"memory rises more and more slowly, or up to an end, {over}; {self._missed}"]
        if self.kind == "flat":
            return [f"memory is flat {over}; {self._missed}"]
        rate = self.rate
        size = "" if rate is None else f": {format_size(rate.bytes_per_call)} a call ({rate.interval})"
        of = "" if self.component is None else f" of {self.component}"
        return [f"memory leaks{size}{of}, {over}", *(f"  {line}" for line in self._explained())]

    @property
    def _missed(self) -> str:
        """The largest leak that could have been missed, in words."""
        return (
            f"a leak of more than {_size(self.missed)} a call would have been found, "
            f"or of {_size(self.missed_elsewhere)} in memory that libraries map themselves"
        )

    def _explained(self) -> list[str]:
        """The explanation of a leak, a line each."""
        if self.explanation is None:
            return [f"not explained: {self.unexplained}"]
        return explanation_in_words(self._finding())

    def _finding(self) -> dict[str, Any]:
        """The explanation in the form of the JSON verdict's findings."""
        explanation = self.explanation
        row = {} if explanation is None else explanation.as_json()
        return row | {"component": self.component, "known": row.get("pattern"), "missing": row.get("missing", ())}

    def as_json(self) -> dict[str, Any]:
        """The verdict as plain values, for reports."""
        return asdict(self)


def _size(size: float) -> str:
    """A bound in words: whole bytes, rounded up."""
    return format_size(max(math.ceil(size), 1))
