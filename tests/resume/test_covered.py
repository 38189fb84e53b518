"""What has changed in an object of the user's is covered where its state holds the same content."""

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from holdwater.resume.covered import contents, has_own_state, is_covered
from holdwater.resume.fingerprint import Fingerprint
from holdwater.resume.state_codec import state_of


class Replay:
    """Keeps what it is told to keep."""

    def __init__(self, part: object, keep: Callable[[Any], object]) -> None:
        self.part, self._keep = part, keep

    def state_dict(self) -> dict[str, object]:
        """The part, in some form."""
        return {"part": self._keep(self.part)}


PARTS: dict[str, tuple[object, Callable[[Any], object]]] = {
    "a number": (41, int),
    "a number in a list": ([41, 42], list),
    "a deque, as a list": (deque([41.5]), list),
    "a set, as a list": ({"b", "a"}, sorted),
    "a tensor": (torch.arange(5.0, requires_grad=True), lambda it: it.detach().clone()),
    "an array": (np.arange(5.0), np.copy),
    "an array, as a list": (np.arange(5, dtype=np.float32), lambda it: it.tolist()),
    "a tensor, as a number": (torch.tensor([41.5]), lambda it: it.item()),
    "NumPy's generator": (np.random.default_rng(5), lambda it: it.bit_generator.state),
    "Python's generator": (random.Random(5), lambda it: it.getstate()),  # noqa: S311
    "torch's generator": (torch.Generator().manual_seed(5), lambda it: it.get_state()),
}


def uncovered(replay: Replay) -> list[str]:
    """The parts that its state does not hold."""
    leaves = Fingerprint([]).take({"it": replay.part})
    return [path for path, leaf in leaves.items() if not is_covered(leaf, contents(state_of(replay, "it")))]


@pytest.fixture(autouse=True)
def _loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is loaded elsewhere."""
    monkeypatch.setattr(Replay, "load_state_dict", lambda *_: None, raising=False)


class TestIsCovered:
    """By content."""

    @pytest.mark.parametrize("kind", PARTS)
    def test_a_part_that_the_state_holds(self, kind: str) -> None:
        """In any usual form."""
        assert uncovered(Replay(*PARTS[kind])) == []

    @pytest.mark.parametrize("kind", PARTS)
    def test_a_part_that_it_leaves_out(self, kind: str) -> None:
        """The twin: the state holds another."""
        part, _ = PARTS[kind]

        assert uncovered(Replay(part, lambda _: {"another": 7, "empty": torch.zeros(2)})) != []


def test_only_an_object_of_a_users_class_has_a_state_of_his_making() -> None:
    """What torch keeps is kept whole."""
    things = [Replay(1, int), {}, torch.nn.Linear(1, 1), torch.Generator(), random.Random(1)]  # noqa: S311

    assert [has_own_state(thing) for thing in things] == [True, False, False, False, False]
