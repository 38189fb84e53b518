"""Count the objects of a training process between its steps, if the predicted cost is allowed.

A full count that would cost more than counts may take of this run is not begun: then only objects reachable from
names are counted. A count is made in turns of a few milliseconds, one after each step.
"""

import gc
import sys
import time
from typing import TYPE_CHECKING, Any, Literal

from holdwater.attribution.census import Census, CensusTaker
from holdwater.attribution.gains import Gains
from holdwater.attribution.generation import tokens_of_generation
from holdwater.attribution.kinds import no_overrides, note_metaclasses
from holdwater.attribution.roots import PartCounter
from holdwater.attribution.turns import Turn, collector_at_rest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from holdwater.attribution.gains import CensusComparison
    from holdwater.attribution.turns import Turns

Purpose = Literal["compare", "explain", "end"]
ALLOWED: dict[Purpose, float] = {"compare": 1.0, "explain": 5.0, "end": 2.0}
"""Seconds that the counts of a run may take together, by purpose: a first count to compare with, an accusation and
its explanation, or the end of the run, when the script waits."""
ALLOWED_SHARE = 0.01
"""In a long run they may take this share of it."""
PER_OBJECT, LISTED = 2e-6, 30e-9
"""Seconds for each object before a cost was measured: of a full count, and of listing it."""
TRACKED = 0.3
"""The approximate share of Python's blocks that are objects tracked by its collector."""
SHORT, LONG = 0.02, 0.04
"""Seconds of a turn: at first; and after `HURRY` turns, or to explain growth, since the script may end."""
HURRY = 30
FAR = 256
"""A count this many steps ago is too old to be compared with."""
MOST_FROZEN = 1000
"""More frozen objects are a program's own doing."""
ENOUGH = 2
"""Full counts that can be compared."""
AGE = 2
"""Objects that have outlived this many steps may be referenced while they are counted; see `Sweep`."""
SHARE = 0.05
"""A turn may take this share of a step."""
MOST_LISTED = 0.02
"""Seconds that listing all objects may take at once, unless steps are long."""


class CountCost:
    """The cost of counting: predicted from the blocks in use, and corrected by measured costs."""

    def __init__(self, blocks: "Callable[[], int]" = sys.getallocatedblocks) -> None:
        """Start with typical costs.

        Args:
            blocks: How many blocks Python has handed out.
        """
        self._blocks = blocks
        self._tracked, self._each = TRACKED, PER_OBJECT

    @property
    def objects(self) -> float:
        """The approximate number of objects that the collector tracks."""
        return self._tracked * self._blocks()

    @property
    def whole(self) -> float:
        """Seconds of a full count."""
        return self._each * self.objects

    @property
    def listing(self) -> float:
        """Seconds of its one indivisible part."""
        return LISTED * self.objects

    def note(self, census: Census) -> None:
        """Learn from a full count; it counts half, since busy programs make it slower."""
        if census.objects:
            self._tracked = census.objects / max(self._blocks(), 1)
            self._each += 0.5 * (census.seconds / census.objects - self._each)


def hides_objects() -> bool:
    """Whether the program has frozen objects (`gc.freeze`): no full count can see them, but names lead to them."""
    return gc.get_freeze_count() > MOST_FROZEN


class Counting:
    """All counts of one run, and the one in progress."""

    def __init__(
        self,
        datasets: "Callable[[], Iterable[object]]",
        *,
        by_names: bool = False,
        cost: CountCost | None = None,
        clock: "Callable[[], float]" = time.perf_counter,
        work: "Callable[[], float]" = time.thread_time,
    ) -> None:
        """Start with no count.

        Args:
            datasets: Returns the datasets that are iterated, whose size is measured.
            by_names: Count only objects reachable from names: in a forked process each object read copies a page.
            cost: Predicts the cost of counts.
            clock: Seconds, on a clock that never goes backwards.
            work: Processor seconds of this thread: elapsed time grows when other programs are busy.
        """
        self.gains = Gains()
        self.counted_at = 0
        """The step at which the newest count that was not abandoned began."""
        self.outdated = False
        """Whether much of what the newest count saw was freed since."""
        self.made = 0
        """Full counts that were made while the training ran."""
        self._counted_before = 0
        self._datasets, self._clock, self._worked = datasets, clock, work
        self._cost = CountCost() if cost is None else cost
        self._counter = CensusTaker()
        self._part = PartCounter(self._counter, datasets)
        self._by_names = by_names
        self._began = clock()
        self._spent: dict[Purpose, float] = dict.fromkeys(ALLOWED, 0.0)
        self._work: Turns[Census] | None = None
        self._turn = Turn(work)
        self._purpose: Purpose = "compare"
        self._turns, self._length, self._waits = 0, SHORT, 0
        self._work_done = 0.0
        self._census = Census(0)

    @property
    def busy(self) -> bool:
        """Whether a count is in progress."""
        return self._work is not None

    @property
    def has_enough(self) -> bool:
        """Whether enough was counted to say what a growth is made of: an experiment needs no other count."""
        return self.made >= ENOUGH

    def is_old(self, step: int) -> bool:
        """Whether the newest count is too old to be compared with.

        Args:
            step: The newest.
        """
        return self.outdated or step - self.counted_at > FAR

    def is_affordable(self, purpose: Purpose, period: float = 0.0) -> bool:
        """Whether a full count is within what counts may take.

        Args:
            purpose: The count's.
            period: Seconds of a step.
        """
        if self._part.alone:
            return False
        allowed = max(ALLOWED[purpose], ALLOWED_SHARE * (self._clock() - self._began))
        if self._cost.whole > allowed - self._spent[purpose]:
            return False
        return purpose == "end" or self._cost.listing <= max(MOST_LISTED, SHARE * period)

    def begin(self, note: "CensusComparison", *, purpose: Purpose, period: float) -> None:
        """Begin a count: full, or partial if that is too expensive or sees too little. `go_on` makes it.

        Args:
            note: Receives the objects that are found.
            purpose: The count's.
            period: Seconds of a step.
        """
        self.abandon()
        self.outdated = False
        self._purpose, self._turns, self._work_done = purpose, 0, 0.0
        self._turn, self._length = Turn(self._worked), max(SHORT, SHARE * period)
        self._census = Census(0)
        if not self._by_names and not hides_objects() and self.is_affordable(purpose, period):
            self._counter.mark = None if purpose == "end" else []
            self._waits = 0 if purpose == "end" else AGE
            self._work = self._counter.turns(self._turn, self._census, self._datasets, note)
        else:
            self._waits = 0
            self._work = self._part.turns(self._turn, self._census, note)

    @property
    def begins(self) -> bool:
        """Whether the next turn is the first."""
        return self._work is not None and self._turns == self._waits == 0

    def go_on(self, step: int, *, to_the_end: bool = False) -> Census | None:
        """Count for one turn; return the census when it is done.

        Args:
            step: The step that ended last.
            to_the_end: Finish at once: there are no more steps.
        """
        if self._work is None:
            return None
        if self._waits:
            self._waits -= 1
            return None
        if self._turns == 0:
            self._counted_before, self.counted_at = self.counted_at, step
            self._census.step, self._census.generation = step, tokens_of_generation()
        self._turns += 1
        long = LONG if self._turns > HURRY or self._purpose == "explain" else SHORT
        self._turn.begin(float("inf") if to_the_end else max(self._length, long))
        census = self._one_turn(self._work)
        if census is not None:
            self._work = None
            census.seconds, census.turns = self._work_done, self._turns
            if census.counted == "all":
                self.made += 1
                self._cost.note(census)
        return census

    def _one_turn(self, work: "Turns[Census]") -> Census | None:
        """Continue for a turn, and account for its time."""
        began = self._worked()
        try:
            note_metaclasses()
            with collector_at_rest(), no_overrides():
                next(work)
        except StopIteration as ended:
            census: Census = ended.value
            return census
        except BaseException:
            self._work = None
            raise
        finally:
            self._turn.end()
            self._work_done += self._worked() - began
            self._spent[self._purpose] += self._worked() - began
        return None

    def as_answer(
        self, census: Census | None, before: dict[str, float], *, at_end: bool = False
    ) -> dict[str, Any]:
        """The census for the watcher; None if its totals cannot be compared with others.

        Args:
            census: None while it is not done.
            before: What was in use in its first turn.
            at_end: Whether the script had ended.
        """
        if census is None or (census.counted == "in part" and not self._part.alone):
            return {} if census is None else {"counted": census.counted}
        return {"step": census.step, "before": before, "census": census.as_json() | {"at_end": at_end}}

    def abandon(self) -> None:
        """Abandon the count."""
        work, self._work = self._work, None
        if work is not None:
            work.close()
            if self._turns:
                self.counted_at = self._counted_before
