"""What variables hold is recorded leaf by leaf; nothing of the user's is called."""

import random
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch

from holdwater.resume.fingerprint import Fingerprint, inputs_of, other_input


def leaves_of(value: object, *excluded: object) -> dict[str, object]:
    """Record one variable."""
    return Fingerprint(excluded).take({"it": value})


class Thing:
    """An object of a user's class, with a slot and an attribute of the class."""

    __slots__ = ("__dict__", "inside")
    count = 0

    def __init__(self) -> None:
        self.inside, self.rows = 1, [1, 2]


class Hostile:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    def __hash__(self) -> int:
        raise RuntimeError("hashed")


def changed_slot(thing: Thing) -> None:
    """Of an object."""
    thing.inside = 2


def changed_rows(thing: Thing) -> None:
    """Of a list in an object."""
    thing.rows[1] = 3


CHANGES: dict[str, tuple[Any, Any, str]] = {
    "an item": ([1, {"a": [2]}], lambda it: it[1]["a"].append(3), "it[1]['a']"),
    "a deque": (deque([1]), lambda it: it.append(2), "it"),
    "a tensor": (torch.zeros(3), lambda it: it.data.add_(1), "it"),
    "an array": (np.zeros(3), lambda it: it.fill(1), "it"),
    "a generator": (np.random.default_rng(1), lambda it: it.random(), "it"),
    "Python's generator": (random.Random(1), lambda it: it.random(), "it"),  # noqa: S311
    "torch's generator": (torch.Generator(), lambda it: torch.rand(1, generator=it), "it"),
    "a slot": (Thing(), changed_slot, "it.inside"),
    "an attribute": (Thing(), changed_rows, "it.rows[1]"),
    "a buffer": (torch.nn.BatchNorm1d(2), lambda it: it(torch.ones(2, 2)), "it.running_mean"),
    "a frozen parameter": (torch.nn.Linear(1, 1), lambda it: it.requires_grad_(requires_grad=False), "it.weight"),
}


class TestChanges:
    """A change is found, at its path."""

    @pytest.mark.parametrize("kind", CHANGES)
    def test_is_found(self, kind: str) -> None:
        """And nothing else before it was made."""
        value, change, path = CHANGES[kind]
        before = leaves_of(value)
        same = leaves_of(value)
        change(value)
        after = leaves_of(value)

        assert same == before
        assert path in {name for name in after.keys() | before.keys() if before.get(name) != after.get(name)}

    def test_of_what_is_kept_otherwise_is_not(self) -> None:
        """Nor of what only leads through it."""
        kept = {"rows": [1]}
        before = leaves_of([kept], kept)
        kept["rows"].append(2)

        assert leaves_of([kept], kept) == before

    def test_an_object_that_raises_is_passed_over(self) -> None:
        """Nothing of it is called."""
        names = [name for name in leaves_of([Hostile(), 1]) if not name.endswith(".__class__")]

        assert names == ["it", "it[0]", "it[1]"]


def test_data_that_differ_from_those_of_another_process() -> None:
    """Tensors and arrays only: times and names may differ."""
    before = inputs_of(leaves_of({"data": torch.ones(2), "when": 1.0}))

    assert list(before) == ["it['data']"]
    assert other_input(before, leaves_of({"data": torch.ones(2), "when": 2.0})) is None
    assert other_input(before, leaves_of({"data": torch.zeros(2), "when": 1.0})) == "it['data']"
