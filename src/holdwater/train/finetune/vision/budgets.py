"""Pack the pictures of a step into a few fixed budgets of patches, so that the vision tower sees few shapes.

A picture is some number of patches; several go through the tower together, padded up to a budget. Serving engines
capture the tower for such budgets: shapes do not change, and neither does memory.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import combinations, pairwise
from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.int64]]
UNREACHED = 2**62
"""More padding than there can be."""


@dataclass(frozen=True, slots=True)
class Filled:
    """Pictures that go through the tower together."""

    pictures: tuple[int, ...]
    """Their numbers in the step, ascending."""
    patches: int
    """Of all of them."""
    budget: int | None
    """Places for patches; None for a picture that is larger than every budget and stands alone."""

    @property
    def padding(self) -> int:
        """Places that hold no patch."""
        return 0 if self.budget is None else self.budget - self.patches


def choose_budgets(counts: Sequence[int], *, most: int, kinds: int = 4) -> tuple[int, ...]:
    """Choose budgets with the least padding for a sample.

    The largest budget is `most`, so that each picture up to it has one. The others are found by dynamic
    programming over the different counts of the sample: no choice pads less, if each count is padded up to the
    smallest budget that holds it. For steps of several pictures, sample the sums of whole steps as well.

    Args:
        counts: Patches of pictures, or of what a step has in all. Those above `most` are passed over.
        most: The largest budget, at least 1.
        kinds: How many budgets there are at most, at least 1.

    Returns:
        The budgets, ascending.

    Raises:
        ValueError: `most` or `kinds` is below 1.
    """
    if most < 1 or kinds < 1:
        raise ValueError(f"most is {most} and kinds is {kinds}; both are at least 1")
    sample = [count for count in counts if 0 < count < most]
    if not sample or kinds == 1:
        return (most,)
    values, repeats = np.unique(np.asarray(sample, np.int64), return_counts=True)
    return (*_least_padded(values, repeats, most, kinds - 1), most)


def _least_padded(values: Numbers, repeats: Numbers, most: int, kinds: int) -> list[int]:
    """At most so many of the values as budgets; what is above them is padded up to `most`."""
    number, patches = (np.concatenate([[0], np.cumsum(part)]) for part in (repeats, values * repeats))

    def padded(begins: Numbers, end: int, budget: int) -> Numbers:
        """Padding of the values between each of some places and another one, up to a budget."""
        found: Numbers = budget * (number[end] - number[begins]) - (patches[end] - patches[begins])
        return found

    places = np.arange(len(values) + 1)
    least = np.where(places == 0, 0, UNREACHED)
    before: list[Numbers] = []
    for _ in range(kinds):
        found, came = least.copy(), np.zeros_like(places)
        for end in places[1:].tolist():
            totals = least[:end] + padded(places[:end], end, int(values[end - 1]))
            came[end] = totals.argmin()
            found[end] = totals[came[end]]
        least = found
        before.append(came)
    end = int((least + padded(places, len(values), most)).argmin())
    budgets: list[int] = []
    for came in reversed(before):
        if end:
            budgets.insert(0, int(values[end - 1]))
            end = int(came[end])
    return budgets


class Rule(Enum):
    """Which pictures may go through the tower together, so that features depend on the picture alone."""

    ANY = "any"
    """Any: a picture has the same bits at all positions and in all budgets."""
    HOME = "home"
    """Those whose smallest budget is the same: a picture has the same bits at all positions of one budget."""
    ALONE = "alone"
    """None: each has its smallest budget for itself."""


def fill(
    counts: Sequence[int], budgets: tuple[int, ...], *, rule: Rule = Rule.ANY, most: int | None = None
) -> list[Filled]:
    """Decide which pictures of a step go together, and in which budget.

    First-fit decreasing: the largest picture first, each into the first fill that has room; then each fill takes
    the smallest budget that holds it. Every budget is tried as the room of a fill, and what pads least is kept, of
    several the one with the fewest fills. The same counts always give the same fills. Source: Johnson (1973),
    "Near-optimal bin packing algorithms", MIT.

    Args:
        counts: Patches of each picture of the step, at least 1 each.
        budgets: Ascending, as `choose_budgets` returns them.
        rule: Which pictures may go together.
        most: Pictures in a fill; None sets no limit.

    Returns:
        Each picture exactly once; fills in the order of their first pictures.
    """
    largest = max(budgets, default=0)
    fills = [Filled((at,), count, None) for at, count in enumerate(counts) if count > largest]
    limit = 1 if rule is Rule.ALONE else most or len(counts)
    if rule is Rule.ANY:
        tried = [_first_fit(counts, budgets, room, limit) for room in reversed(budgets)]
        best = min(tried, key=_cost) if tried else []
        fills += best
    else:
        for smaller, home in pairwise((0, *budgets)):
            own = [count if smaller < count <= home else 0 for count in counts]
            fills += _first_fit(own, (home,), home, limit)
    return sorted(fills, key=lambda one: one.pictures)


def worth_having(
    budgets: tuple[int, ...], steps: Sequence[Sequence[int]], *, rule: Rule, most: int, per_pass: float
) -> tuple[int, ...]:
    """Leave out budgets that make more passes than they save padding.

    Under `Rule.HOME` pictures cannot leave their smallest budget for a larger one that would hold several of them.
    All choices with the largest budget are tried.

    Args:
        budgets: Ascending, as `choose_budgets` returns them.
        steps: Patches of each picture, for some steps.
        rule: Which pictures may go together.
        most: Pictures in a fill.
        per_pass: What a pass costs besides its places, in places.

    Returns:
        Ascending; of several that cost the same, the fewest.
    """

    def cost(chosen: tuple[int, ...]) -> float:
        """Of all steps."""
        fills = [one for counts in steps for one in fill(counts, chosen, rule=rule, most=most)]
        return sum((one.budget or 0) + per_pass for one in fills)

    smaller, largest = budgets[:-1], budgets[-1]
    choices = [(*some, largest) for size in range(len(budgets)) for some in combinations(smaller, size)]
    return min(choices, key=cost)


def _cost(fills: list[Filled]) -> tuple[int, int]:
    """Padding, then how many fills there are."""
    return sum(one.padding for one in fills), len(fills)


def _first_fit(counts: Sequence[int], budgets: tuple[int, ...], room: int, most: int) -> list[Filled]:
    """Fills of some room, or of the smallest budget that holds their first picture where that is larger.

    Counts of 0 and those above all budgets are passed over.
    """
    fills: list[list[int]] = []
    left: list[int] = []
    held = [picture for picture, count in enumerate(counts) if 0 < count <= budgets[-1]]
    for picture in sorted(held, key=lambda picture: -counts[picture]):
        count = counts[picture]
        fits = (at for at, places in enumerate(left) if places >= count and len(fills[at]) < most)
        at = next(fits, len(left))
        if at == len(left):
            fills.append([])
            left.append(max(room, smallest_budget(budgets, count)))
        fills[at].append(picture)
        left[at] -= count
    sums = [sum(counts[picture] for picture in pictures) for pictures in fills]
    return [
        Filled(tuple(sorted(pictures)), patches, smallest_budget(budgets, patches))
        for pictures, patches in zip(fills, sums, strict=True)
    ]


def smallest_budget(budgets: tuple[int, ...], patches: int) -> int:
    """The smallest budget that holds some patches, which are not more than the largest."""
    return budgets[bisect_left(budgets, patches)]
