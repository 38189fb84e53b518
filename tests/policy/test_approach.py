"""How near growing memory is to its budget: by rises that repeat, not by one reading."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdwater.policy.approach import GRAIN, RISES, Approach

MB = 1_000_000
LIMIT = 1000 * MB


def near_after(*megabytes: float) -> bool:
    """Whether the last of these readings is near, at six rises or a hundredth of the budget."""
    approach = Approach()
    for step, size in enumerate(megabytes):
        approach.note(step, int(size * MB))
    return approach.is_near(int(megabytes[-1] * MB), LIMIT, rises=6, left=0.01 * LIMIT)


class TestApproach:
    """Reports growth that goes on; ignores what fills once, slackens or swings."""

    def test_reports_steady_rises(self) -> None:
        """20 MB a reading, 100 MB left."""
        assert near_after(*range(780, 901, 20))

    def test_ignores_them_far_from_the_budget(self) -> None:
        """The same, 300 MB left."""
        assert not near_after(*range(580, 701, 20))

    def test_ignores_one_large_rise(self) -> None:
        """An array that is allocated once."""
        assert not near_after(300, 300, 300, 950, 950, 950)

    def test_ignores_rises_that_become_smaller(self) -> None:
        """Lengths that vary: each new maximum is closer to the last."""
        assert not near_after(300, 500, 650, 750, 800, 830, 850, 860)

    def test_ignores_a_late_rise_after_those_of_the_beginning(self) -> None:
        """An optimizer's state that is made at step 200."""
        assert not near_after(300, 400, 500, 600, 700, 800, *[800] * 100, 890)

    def test_reports_rises_with_long_pauses(self) -> None:
        """Each evaluation leaves 40 MB."""
        assert near_after(*[600 + 40 * (step // 50) for step in range(401)])

    def test_ignores_a_swing_below_the_highest(self) -> None:
        """Noise of 30 MB near the budget, after it was reached."""
        assert not near_after(300, 500, 700, 800, 900, 980, 950, 980, 950, 980)

    def test_reports_small_rises_at_the_very_edge(self) -> None:
        """2 MB a reading, 8 MB left."""
        assert near_after(*range(980, 993, 2))

    @pytest.mark.parametrize(("last", "left"), [(51, 1.49), (49, float("inf"))])
    def test_a_last_rise_of_less_than_half_the_usual_one_tells_of_an_end(self, last: int, left: float) -> None:
        """Four rises of 100 MB, and one more; 149 MB below the budget."""
        approach = Approach()
        for step, size in enumerate([100, 200, 300, 400, 500, 500 + last]):
            approach.note(step, size * MB)

        assert approach.rises_left(LIMIT - 149 * MB, LIMIT) == left

    @pytest.mark.parametrize(("size", "near"), [(GRAIN, True), (GRAIN - 1, False)])
    def test_a_rise_has_a_least_size(self, size: int, near: bool) -> None:
        """What is smaller counts only together with the next one."""
        approach = Approach()
        for step in range(RISES + 1):
            approach.note(step, step * size)

        assert approach.is_near(RISES * size, 100 * MB, rises=1000, left=0) is near

    @pytest.mark.parametrize(("pause", "left"), [(16, 8.0), (17, float("inf"))])
    def test_rises_before_a_long_pause_are_forgotten(self, pause: int, left: float) -> None:
        """A rise at each step, and the next one after so many."""
        approach = Approach()
        for step in [*range(6), 5 + pause]:
            approach.note(step, min(step, 6) * 20 * MB)

        assert approach.rises_left(LIMIT - 160 * MB, LIMIT) == left

    @given(st.lists(st.integers(min_value=0, max_value=LIMIT), min_size=1, max_size=60))
    def test_falling_memory_is_never_near(self, sizes: list[int]) -> None:
        """Whatever it falls from."""
        approach = Approach()
        for step, size in enumerate(sorted(sizes, reverse=True)):
            approach.note(step, size)

            assert not approach.is_near(size, LIMIT, rises=100, left=LIMIT)

    def test_ignores_a_sawtooth(self) -> None:
        """From 600 to 980 MB and back, again and again: it has been there before."""
        assert not near_after(*[600, 700, 800, 900, 980] * 20)

    def test_reports_the_way_back_up_after_a_release(self) -> None:
        """Memory that was released at 980 MB and is taken again."""
        approach = Approach()
        for step, size in enumerate([900, 920, 940, 960, 980]):
            approach.note(step, size * MB)
        approach.forget(100 * MB)
        for step, size in enumerate([900, 920, 940, 960], start=5):
            approach.note(step, size * MB)

        assert approach.is_near(960 * MB, LIMIT, rises=6, left=0)

    def test_remembers_a_bounded_number(self) -> None:
        """A guard must not leak."""
        approach = Approach()
        for step in range(10_000):
            approach.note(step, step * 2 * MB)

        assert len(approach._rises) == RISES
