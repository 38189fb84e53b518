"""A verdict with what should be measured before it is believed."""

from dataclasses import dataclass, replace

from holdwater.detectors.bounds import needs_no_address_space
from holdwater.detectors.growth import Growth
from holdwater.detectors.verdict import Component, Finding, Verdict
from holdwater.timeline.buckets import Buckets
from holdwater.units import Step

LOOKED_INTO = frozenset(("host.children", "host.shared", "host.file", "process.handles"))
"""Components that hardly grow in a healthy run (files: in new mappings): objects are counted once one does."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, and what should be measured before it is believed."""

    verdict: Verdict
    suspicious: bool
    """There is a growth for which objects should be counted."""
    accusing: bool
    """A leak of private memory would be reported: an experiment should be made first."""
    children: bool = False
    """There is a growth in child processes, such as loader workers, whose number has not grown."""
    regions: bool = False
    """The growth may lie in regions that were mapped before: they should be read."""
    untested: bool = False
    """No experiment was made since the growth was half its current age."""
    suspect: Finding | None = None
    """A growth for which objects should be counted, which is no finding yet: what a window then waits for."""


def is_rare_in_healthy_runs(component: Component, buckets: Buckets, growth: Growth) -> bool:
    """Whether hardly any healthy run grows in this way: objects are then counted at once, since the run may end.

    Mapped files that are read for the first time become resident in many; ever more mappings are rare.

    Args:
        component: What grows.
        buckets: The history.
        growth: How it grows.
    """
    if component != "host.file":
        return component in LOOKED_INTO
    onset = Step(int(buckets.first_step[0])) if growth.onset is None else growth.onset
    return buckets.seen("virtual") and not needs_no_address_space(buckets, replace(growth, onset=onset))
