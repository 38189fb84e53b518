"""How long containers are, and how long they can get: what has a greatest length fills, and then grows no more.

A deque says its greatest length itself. A list that was made whole has empty places (None) that fill, so it is as
long as its places that are taken. An optimizer's history is as long as it was told.
"""

from collections import deque
from collections.abc import Iterable
from itertools import repeat
from operator import is_
from typing import Any

from holdwater.attribution.weights import class_of, is_a

LEAST_PLACES = 64
"""A shorter list is not asked for empty places: there are many."""
_ASKED = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where in a list an empty place is looked for, as parts of its length."""


def lengths_of(items: list[Any]) -> list[int]:
    """The lengths of containers; of lists that were made whole, the places that are taken.

    Args:
        items: Containers.
    """
    found = list(map(len, items))
    for at, (item, length) in enumerate(zip(items, found, strict=True)):
        if length >= LEAST_PLACES and type(item) is list and _has_empty_places(item):
            found[at] = length - sum(map(is_, item, repeat(None)))
    return found


def greatest_length(item: Any, histories: dict[int, int]) -> int | None:  # noqa: ANN401 - a container
    """How long a container can get; None where nothing says so.

    Args:
        item: The container.
        histories: Greatest lengths of optimizers' histories by identity, as `note_histories` finds them.
    """
    if type(item) is deque:
        return item.maxlen
    if type(item) is list and id(item) in histories:
        return histories[id(item)]
    return len(item) if type(item) is list and _has_empty_places(item) else None


def note_histories(objects: Iterable[Any], histories: dict[int, int]) -> None:
    """Note the histories of L-BFGS optimizers, with their greatest lengths.

    Args:
        objects: Some, among which such optimizers may be.
        histories: Takes what is found, by the identity of the list.
    """
    kind = class_of("torch.optim.lbfgs", "LBFGS")
    for optimizer in (item for item in objects if is_a(item, kind)):
        most = int(optimizer.param_groups[0]["history_size"])
        for state in list(optimizer.state.values()):
            histories |= {id(value): most for value in list(state.values()) if type(value) is list}


def _has_empty_places(item: list[Any]) -> bool:
    """Whether one of a few places of a list is empty."""
    last = len(item) - 1
    return last >= 0 and any(item[int(part * last)] is None for part in _ASKED)
