"""Budgets of patches: chosen with the least padding, filled with each picture exactly once."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdwater.train.finetune.vision.budgets import (
    Filled,
    Rule,
    choose_budgets,
    fill,
    smallest_budget,
    worth_having,
)

COUNTS = st.lists(st.integers(1, 60), max_size=30)
BUDGETS = st.lists(st.integers(1, 50), min_size=1, max_size=4, unique=True).map(
    lambda budgets: tuple(sorted(budgets))
)


def padding_of(counts: list[int], budgets: tuple[int, ...]) -> int:
    """Of each count alone in the smallest budget that holds it."""
    return sum(min(budget for budget in budgets if budget >= count) - count for count in counts)


class TestChoose:
    """The least padding for a sample."""

    @given(counts=st.lists(st.integers(1, 30), max_size=12), most=st.integers(10, 35), kinds=st.integers(1, 4))
    @settings(max_examples=150, deadline=None)
    def test_no_other_choice_pads_less(self, counts: list[int], most: int, kinds: int) -> None:
        """Of as many budgets whose largest is the same, all of which are tried."""
        held = [count for count in counts if count <= most]
        chosen = choose_budgets(counts, most=most, kinds=kinds)
        values = sorted(set(held) - {most})
        others = [
            (*some, most) for size in range(min(kinds, len(values) + 1)) for some in combinations(values, size)
        ]

        assert padding_of(held, chosen) == min(padding_of(held, other) for other in others)

    @given(counts=COUNTS, most=st.integers(1, 70), kinds=st.integers(1, 5))
    def test_budgets_ascend_to_the_largest(self, counts: list[int], most: int, kinds: int) -> None:
        """No more of them than were asked for."""
        chosen = choose_budgets(counts, most=most, kinds=kinds)

        assert chosen[-1] == most
        assert list(chosen) == sorted(set(chosen))
        assert len(chosen) <= kinds

    def test_two_sizes_of_pictures_have_a_budget_each(self) -> None:
        """And what few there are between them go into the larger one."""
        assert choose_budgets([256] * 50 + [1024] * 50 + [900], most=4096, kinds=3) == (256, 1024, 4096)

    def test_a_large_sample_is_quick(self) -> None:
        """Two thousand different counts."""
        assert len(choose_budgets(range(4, 8004, 4), most=16384, kinds=4)) == 4

    @pytest.mark.parametrize(("most", "kinds"), [(0, 4), (100, 0)])
    def test_refuses_no_budget(self, most: int, kinds: int) -> None:
        """A mistake of the caller."""
        with pytest.raises(ValueError, match="at least 1"):
            choose_budgets([1], most=most, kinds=kinds)


class TestFill:
    """Which pictures go together."""

    @given(counts=COUNTS, budgets=BUDGETS)
    def test_each_picture_exactly_once(self, counts: list[int], budgets: tuple[int, ...]) -> None:
        """In ascending order within a fill, and fills by their first picture."""
        fills = fill(counts, budgets)

        assert sorted(picture for one in fills for picture in one.pictures) == list(range(len(counts)))
        assert all(list(one.pictures) == sorted(one.pictures) for one in fills)
        assert [one.pictures[0] for one in fills] == sorted(one.pictures[0] for one in fills)

    @given(counts=COUNTS, budgets=BUDGETS)
    def test_sums_are_within_their_budgets(self, counts: list[int], budgets: tuple[int, ...]) -> None:
        """The smallest one that holds them; only a picture larger than all stands alone, without one."""
        for one in fill(counts, budgets):
            assert one.patches == sum(counts[picture] for picture in one.pictures)
            if one.budget is None:
                assert len(one.pictures) == 1
                assert one.patches > budgets[-1]
            else:
                assert one.budget == min(budget for budget in budgets if budget >= one.patches)

    @given(counts=COUNTS, budgets=BUDGETS)
    def test_pads_no_more_than_each_alone(self, counts: list[int], budgets: tuple[int, ...]) -> None:
        """In the smallest budget that holds it."""
        fills = fill(counts, budgets)
        held = [count for count in counts if count <= budgets[-1]]

        assert 0 <= sum(one.padding for one in fills) <= padding_of(held, budgets)

    def test_small_pictures_share_a_large_budget(self) -> None:
        """Where both pad nothing, fewer fills are better."""
        assert fill([25, 25, 50], (25, 100)) == [Filled((0, 1, 2), 100, 100)]

    def test_several_small_budgets_are_better_than_one_large(self) -> None:
        """Where that pads less."""
        assert fill([60, 50], (60, 1000)) == [Filled((0,), 60, 60), Filled((1,), 50, 60)]

    def test_a_picture_larger_than_all_stands_alone(self) -> None:
        """It pads nothing."""
        assert fill([10, 99, 10], (20, 40)) == [Filled((0, 2), 20, 20), Filled((1,), 99, None)]
        assert fill([3], ()) == [Filled((0,), 3, None)]

    def test_of_nothing_there_is_nothing(self) -> None:
        """A step without pictures."""
        assert fill([], (10,)) == []

    @given(counts=COUNTS, budgets=BUDGETS, rule=st.sampled_from([Rule.HOME, Rule.ALONE]))
    def test_a_budget_follows_from_the_picture_alone(
        self, counts: list[int], budgets: tuple[int, ...], rule: Rule
    ) -> None:
        """Where bits differ between budgets; each picture is there exactly once."""
        fills = fill(counts, budgets, rule=rule)

        assert sorted(picture for one in fills for picture in one.pictures) == list(range(len(counts)))
        assert rule is Rule.HOME or all(len(one.pictures) == 1 for one in fills)
        for one in fills:
            assert one.patches == sum(counts[picture] for picture in one.pictures)
            for picture in one.pictures:
                fits = counts[picture] <= budgets[-1]
                assert one.budget == (smallest_budget(budgets, counts[picture]) if fits else None)

    def test_pictures_of_one_home_share_it(self) -> None:
        """A smaller one has its own."""
        assert fill([25, 30, 60, 10], (20, 60), rule=Rule.HOME) == [
            Filled((0, 1), 55, 60), Filled((2,), 60, 60), Filled((3,), 10, 20),
        ]  # fmt: skip

    @pytest.mark.parametrize("rule", [Rule.ANY, Rule.HOME])
    def test_a_fill_holds_no_more_pictures_than_asked(self, rule: Rule) -> None:
        """However small they are."""
        assert [len(one.pictures) for one in fill([1] * 7, (100,), rule=rule, most=3)] == [3, 3, 1]


class TestWorthHaving:
    """Budgets without those that only make more passes."""

    def test_squares_of_one_size_share_a_pass(self) -> None:
        """Although each fits into the smallest budget."""
        steps = [[1] * 8, [1] * 7, [1] * 8]

        assert worth_having((1, 4, 8), steps, rule=Rule.HOME, most=99, per_pass=0.5) == (8,)

    def test_padding_is_not_worth_it(self) -> None:
        """Where steps have few pictures, the small budget stays."""
        assert worth_having((1, 8), [[1], [1, 1], [1]], rule=Rule.HOME, most=99, per_pass=0.5) == (1, 8)

    @given(steps=st.lists(COUNTS, max_size=4), budgets=BUDGETS, rule=st.sampled_from(Rule))
    def test_the_largest_stays(self, steps: list[list[int]], budgets: tuple[int, ...], rule: Rule) -> None:
        """So that each picture still has a budget."""
        found = worth_having(budgets, steps, rule=rule, most=5, per_pass=3)

        assert found[-1] == budgets[-1]
        assert set(found) <= set(budgets)
        assert list(found) == sorted(found)
