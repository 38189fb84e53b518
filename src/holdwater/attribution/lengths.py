"""Lengths of containers, and their maximum lengths: a container with a maximum length stops growing when full.

A deque has a `maxlen`. A preallocated list has empty slots (None) that fill, so its length is the number of filled
slots. An optimizer's history has a configured maximum.
"""

from collections import deque
from collections.abc import Iterable
from itertools import repeat
from operator import is_
from typing import Any

from holdwater.attribution.kinds import class_of, is_a, namespace_of

LEAST_PLACES = 64
"""Shorter lists are not searched for empty slots: there are too many."""
_ASKED = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Positions at which a list is searched for empty slots, as parts of its length."""


def lengths_of(items: list[Any]) -> list[int]:
    """The lengths of containers; of preallocated lists, the number of filled slots.

    Args:
        items: Containers.
    """
    found = list(map(len, items))
    for at, (item, length) in enumerate(zip(items, found, strict=True)):
        if length >= LEAST_PLACES and type(item) is list and _has_empty_places(item):
            found[at] = length - sum(map(is_, item, repeat(None)))
    return found


def maximum_length(item: Any, histories: dict[int, int]) -> int | None:  # noqa: ANN401 - a container
    """The maximum length of a container; None if it has none.

    Args:
        item: The container.
        histories: Maximum lengths of optimizers' histories by identity, as `note_histories` finds them.
    """
    if type(item) is deque:
        return item.maxlen
    if type(item) is list and id(item) in histories:
        return histories[id(item)]
    return len(item) if type(item) is list and _has_empty_places(item) and not _is_queue(item) else None


def note_histories(objects: Iterable[Any], histories: dict[int, int]) -> None:
    """Record the histories of L-BFGS optimizers, with their maximum lengths.

    Args:
        objects: Objects that may include such optimizers.
        histories: Receives what is found, by the identity of the list.
    """
    kind = class_of("torch.optim.lbfgs", "LBFGS")
    for optimizer in (item for item in objects if is_a(item, kind)):
        parts = namespace_of(optimizer)
        most, states = _history_size(parts.get("param_groups")), parts.get("state")
        if most is None or not is_a(states, dict):
            continue
        for state in list(dict.values(states)):  # type: ignore[arg-type] # seen above
            values = list(dict.values(state)) if is_a(state, dict) else []
            histories |= {id(value): most for value in values if type(value) is list}


def _history_size(groups: Any) -> int | None:  # noqa: ANN401 - an optimizer's parameter groups
    """The maximum length of the histories of an optimizer; None if its groups are not as torch makes them."""
    first: Any = groups[0] if type(groups) is list and groups else None
    size = dict.get(first, "history_size") if is_a(first, dict) else None
    return size if type(size) is int else None


def _has_empty_places(item: list[Any]) -> bool:
    """Whether one of a few slots of a list is empty."""
    last = len(item) - 1
    return last >= 0 and any(item[int(part * last)] is None for part in _ASKED)


def _is_queue(item: list[Any]) -> bool:
    """Whether all empty slots lie before the filled ones: they were taken from there, as from a `SimpleQueue`."""
    empty = bytes(map(is_, item, repeat(None)))
    first = empty.find(0)
    return first > 0 and empty.find(1, first) < 0
