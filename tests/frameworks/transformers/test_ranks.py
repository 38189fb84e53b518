"""Processes that train together stop after the same step."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from holdwater.frameworks.transformers.ranks import CommonStop


class Store(dict[str, bytes]):
    """As of torch.distributed."""

    def check(self, keys: list[str]) -> bool:
        """Whether all are there."""
        return all(key in self for key in keys)

    def compare_set(self, key: str, expected: str, wanted: str) -> None:
        """Set what is not there yet."""
        if key not in self and not expected:
            self[key] = wanted.encode()


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> list[CommonStop]:
    """Two processes, and their store."""
    store, found = Store(), []
    for rank in (0, 1):
        one = CommonStop(1)
        stand_in = SimpleNamespace(get_rank=partial(int, rank), barrier=lambda: None)
        monkeypatch.setattr(one, "_distributed", stand_in)
        monkeypatch.setattr(one, "_store", store)
        found.append(one)
    return found


def test_all_stop_two_steps_after_one_wants_to(two: list[CommonStop]) -> None:
    """None is more than one step ahead, so each has seen it by then."""
    first, second = two
    stops: dict[int, int] = {}
    for step in range(1, 10):
        for one in (second, first):  # the second is asked before the first has written
            reason = "memory is short" if one is first and step == 4 else None
            if one.agree(step, reason) is not None:
                stops.setdefault(one.rank, step)

    assert stops == {0: 6, 1: 6}
    assert second.agree(6, None) == "rank 0: memory is short"


def test_the_first_that_wants_to_decides(two: list[CommonStop]) -> None:
    """Two that run short at once agree too."""
    first, second = two
    first.agree(4, "short")
    second.agree(5, "short too")

    assert [one.agree(6, None) for one in two] == ["rank 0: short"] * 2


def test_a_process_alone_asks_nobody() -> None:
    """There is no group of processes here."""
    assert not torch.distributed.is_initialized()
    alone = CommonStop(1)

    assert (alone.is_needed, alone.rank, alone.agree(4, "short")) == (False, 0, None)
    alone.wait_for_all()
