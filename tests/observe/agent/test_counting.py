"""Counts between steps: foreseen, in turns, and within what they may take; the clocks are fakes."""

import gc

import pytest

from holdwater.attribution.census import Census
from holdwater.observe.agent.counting import HURRY, LONG, SHORT, CountCost, Counting, Purpose

pytestmark = pytest.mark.usefixtures("imports_collected")
"""Counts of this process are long enough for several turns."""


class Ticks:
    """A clock that goes on by a millisecond whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Read it."""
        self.now += 1e-3
        return self.now


def blocks(count: int) -> CountCost:
    """The cost in a process with so many blocks."""
    return CountCost(lambda: count)


def take(counting: Counting, purpose: Purpose = "compare", period: float = 0.01) -> Census:
    """Count from the beginning to the end."""
    counting.begin(counting.gains.remember, purpose=purpose, period=period)
    for step in range(100_000):
        census = counting.go_on(step)
        if census is not None:
            return census
    raise AssertionError("it has no end")


class TestPrice:
    """What a count costs is known before it is begun."""

    def test_an_ordinary_process(self) -> None:
        """A million blocks, 300,000 objects: 0.6 s at most, of which 9 ms are one call."""
        assert blocks(1_000_000).whole == pytest.approx(0.6)
        assert blocks(1_000_000).listing == pytest.approx(0.009)

    def test_learns_from_counts(self) -> None:
        """Half the cost, and it comes nearer to it."""
        cost = blocks(1_000_000)
        census = Census(1, objects=300_000)
        census.seconds = 0.3

        cost.note(census)

        assert cost.whole == pytest.approx(0.45)


class TestFrozen:
    """`gc.freeze` hides objects from whoever asks the collector."""

    def test_counts_by_names(self) -> None:
        """They lead to what is frozen too."""
        gc.freeze()
        try:
            assert take(Counting(tuple, cost=blocks(0))).counted == "in part"
        finally:
            gc.unfreeze()
        assert take(Counting(tuple, cost=blocks(0))).counted == "all"


class TestOld:
    """What a count is compared with."""

    def test_a_count_before_garbage_was_freed_says_nothing(self) -> None:
        """There are fewer objects now than it has seen, whatever has been added since."""
        counting = Counting(list, cost=blocks(1000))
        take(counting)
        young = counting.is_old(counting.counted_at + 10)
        counting.outdated = True
        old = counting.is_old(counting.counted_at + 10)
        take(counting)

        assert (young, old, counting.is_old(counting.counted_at + 10)) == (False, True, False)


class TestUndone:
    """A count that was left undone is none."""

    def test_the_next_is_compared_with_the_one_before_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What has grown since is all there, tensors too."""
        torch = pytest.importorskip("torch")
        monkeypatch.setattr(Counting, "is_affordable", lambda *_: True)  # whatever else this process has loaded
        counting, rows = Counting(list, cost=blocks(1000), work=Ticks()), []
        take(counting)
        at = counting.counted_at
        rows += [torch.ones(1000) for _ in range(50)]
        counting.begin(counting.gains.compare, purpose="compare", period=0.01)
        for step in range(10, 14):
            counting.go_on(step)
        assert counting.counted_at != at

        counting.abandon()
        assert counting.counted_at == at
        counting.begin(counting.gains.compare, purpose="end", period=0.01)
        counting.go_on(20, to_the_end=True)

        (gain,) = (gain for gain in counting.gains.found if gain.naming and gain.naming.name == "rows")
        assert gain.weight.tensors == pytest.approx(200_000, rel=0.05)


class TestCountsAll:
    """Where it is cheap enough."""

    def test_in_turns(self) -> None:
        """Each after a step, and none longer than a few milliseconds by the clock, but for the first."""
        clock, lengths = Ticks(), []
        counting = Counting(list, cost=blocks(1_000_000), work=clock)
        counting.begin(counting.gains.remember, purpose="compare", period=0.01)
        census = None
        while census is None:
            before = clock.now
            census = counting.go_on(1)
            lengths.append(clock.now - before)

        assert census.counted == "all"
        assert census.turns > 2
        assert max(lengths[:HURRY]) <= SHORT + 0.006
        assert max(lengths) <= LONG + 0.005

    def test_longer_turns_where_steps_are_long(self) -> None:
        """A step of ten seconds is held up by half a second at most, so fewer turns are needed."""
        counting = Counting(list, cost=blocks(1_000_000), work=Ticks())

        assert take(counting, period=10.0).turns < 10

    def test_begins_when_the_mark_is_two_steps_old(self) -> None:
        """The totals belong to the step of the first turn."""
        counting = Counting(list, cost=blocks(1_000_000), work=lambda: 0.0)

        assert take(counting).step == 2
        assert counting.counted_at == 2


class TestCountsInPart:
    """Where a whole count would be too expensive."""

    def test_many_objects(self) -> None:
        """Six million would take twelve seconds."""
        assert take(Counting(list, cost=blocks(20_000_000))).counted == "in part"

    def test_when_the_allowance_is_spent(self) -> None:
        """A second for all counts of a short run."""
        counting = Counting(list, cost=blocks(1_000_000))
        counting._spent["compare"] = 1.0

        assert take(counting).counted == "in part"

    def test_but_not_for_an_explanation(self) -> None:
        """That has an allowance of its own."""
        counting = Counting(list, cost=blocks(1_000_000))
        counting._spent["compare"] = 1.0

        assert take(counting, "explain").counted == "all"

    def test_not_in_a_long_run(self) -> None:
        """After an hour counts may have taken 36 seconds."""
        now = [0.0]
        counting = Counting(list, cost=blocks(1_000_000), clock=lambda: now[0])
        counting._spent["compare"] = 1.0
        now[0] = 3600.0

        assert take(counting).counted == "all"

    def test_stays_so_where_it_began_so(self) -> None:
        """What names lead to is not to be compared with all there is."""
        count = [20_000_000]
        counting = Counting(list, cost=CountCost(lambda: count[0]))
        take(counting)
        count[0] = 1_000_000

        assert take(counting).counted == "in part"


class TestAnswers:
    """What the watching process is told of a count."""

    def test_totals_where_they_compare(self) -> None:
        """A whole count, and one in part where there was never another."""
        whole, parts = Counting(list, cost=blocks(1_000_000)), Counting(list, cost=blocks(20_000_000))

        assert whole.as_answer(take(whole), {"resident": 1.0})["census"]["counted"] == "all"
        assert parts.as_answer(take(parts), {"resident": 1.0})["census"]["counted"] == "in part"

    def test_no_totals_where_they_do_not(self) -> None:
        """One in part after a whole one has not seen what that has seen."""
        counting = Counting(list, cost=blocks(1_000_000))
        take(counting)
        counting._spent["compare"] = 1.0

        assert counting.as_answer(take(counting), {}) == {"counted": "in part"}


class TestEnds:
    """A count that is left undone leaves nothing."""

    def test_when_it_is_abandoned(self) -> None:
        """The next begins anew."""
        counting = Counting(list, cost=blocks(1_000_000), work=lambda: 0.0)
        counting.begin(counting.gains.remember, purpose="compare", period=0.01)
        counting.go_on(1)

        counting.abandon()

        assert not counting.busy
        assert counting.go_on(2) is None
        assert take(counting).counted == "all"

    def test_at_the_end_of_the_script(self) -> None:
        """All that is left is done at once."""
        counting = Counting(list, cost=blocks(1_000_000), work=lambda: 0.0)
        counting.begin(counting.gains.remember, purpose="end", period=0.01)

        census = counting.go_on(7, to_the_end=True)

        assert census is not None
        assert (census.step, census.turns) == (7, 1)
