"""Containers with a maximum length: they fill, and that is no leak."""

import gc
import queue
from collections import deque
from collections.abc import Iterable
from typing import Any

import pytest

from holdwater.attribution.census import Census, CensusTaker
from holdwater.attribution.lengths import lengths_of, maximum_length, note_histories

torch = pytest.importorskip("torch")


def test_a_list_is_as_long_as_its_places_that_are_taken() -> None:
    """Made whole, filled in any order."""
    rows: list[Any] = [None] * 1000
    rows[3] = rows[500] = rows[999] = "row"

    assert lengths_of([rows, [1, 2, 3], deque(range(5))]) == [3, 3, 5]
    assert maximum_length(rows, {}) == 1000


@pytest.mark.parametrize(("item", "most"), [(deque([1], maxlen=7), 7), (deque([1]), None), ([1] * 100, None)])
def test_the_greatest_length_of_others(item: Any, most: int | None) -> None:
    """Only what says so has one."""
    assert maximum_length(item, {}) == most


def test_an_optimizers_history() -> None:
    """L-BFGS keeps as many directions as it was told."""
    weight = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.LBFGS([weight], history_size=9, max_iter=3)
    optimizer.step(lambda: _loss(weight, optimizer))
    histories: dict[int, int] = {}

    note_histories([weight, optimizer], histories)

    (state,) = optimizer.state.values()
    assert maximum_length(state["old_dirs"], histories) == 9


def _loss(weight: Any, optimizer: Any) -> Any:
    optimizer.zero_grad()
    loss = (weight.cos() * torch.arange(4.0)).sum()
    loss.backward()
    return loss


class TestCensus:
    """A count says what growing containers will still take, where all of them have a maximum length."""

    @staticmethod
    def counted(rows: list[Any], fill: Any) -> Census:
        """The second of two counts."""
        counter = CensusTaker()
        counter.take(1)
        fill(rows)
        return counter.take(2)

    def test_of_a_list_whose_places_fill(self) -> None:
        """40 of 100 places were taken, so 60 are left."""

        def fill(rows: list[Any]) -> None:
            rows[:40] = [bytearray(100_000) for _ in range(40)]

        census = self.counted([None] * 100, fill)

        assert census.room == pytest.approx(6_000_000, rel=0.05)

    def test_not_of_a_list_that_is_added_to(self) -> None:
        """It has no end."""
        census = self.counted([], lambda rows: rows.extend(bytearray(100_000) for _ in range(40)))

        assert census.room is None


def test_ignores_the_list_of_a_queue() -> None:
    """A `SimpleQueue` of C leaves empty slots where it has taken something: it has no maximum length."""
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    for number in range(300):
        waiting.put(b"%d" % number)
    for _ in range(40):
        waiting.get()
    items = next((part for part in gc.get_referents(waiting) if type(part) is list), None)
    if items is None:
        pytest.skip("this version of Python keeps them in no list")

    assert items[0] is None
    assert maximum_length(items, {}) is None
    assert lengths_of([items]) == [260]


@pytest.mark.parametrize("filled", [[0], [700, 999], range(500, 998)])
def test_reports_a_list_that_fills_from_anywhere(filled: Iterable[int]) -> None:
    """Its empty slots lie behind filled ones, too."""
    rows: list[int | None] = [None] * 1000
    for number in filled:
        rows[number] = number

    assert maximum_length(rows, {}) == 1000
