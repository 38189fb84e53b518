"""Lengths of containers, their newest elements, and their maximum lengths.

A container with a maximum length stops growing when it is full: a deque has a `maxlen`; a preallocated list has
empty slots (None) that fill, so its length is the number of filled slots; an optimizer's history has a configured
maximum.
"""

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable
from itertools import islice, repeat
from operator import is_
from typing import Any

from holdwater.attribution.kinds import class_of, is_a, namespace_of
from holdwater.signal_errors import not_the_scripts

GROWING = frozenset((list, set, deque, OrderedDict, defaultdict))
"""Containers that are kept however short; dictionaries are not, there are too many."""
CONTAINERS = GROWING | {dict}
MOST_NEWEST = 20_000
"""Elements of a container that are listed, the newest first."""
_BASES = (dict, list, set, deque)
LEAST_PLACES = 64
"""Shorter lists are not searched for empty slots: there are too many."""
_ASKED = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Positions at which a list is searched for empty slots, as parts of its length."""


def derived_containers(kinds: Iterable[type]) -> set[type]:
    """The classes that are derived from a container, such as `Counter`, or a cache that is a `dict`.

    Args:
        kinds: Classes that can be put into sets.
    """
    return {kind for kind in kinds if issubclass(kind, _BASES)} - CONTAINERS


def is_container(item: object) -> bool:
    """Whether an object is a container that can grow, or of a class that is derived from one."""
    return type(item) in CONTAINERS or is_a(item, _BASES)


def length_of(item: Any) -> int:  # noqa: ANN401 - a container
    """The number of elements, as the built-in class counts them: a derived class may have a length of its own."""
    return next(base.__len__(item) for base in _BASES if is_a(item, base))


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


def newest(item: Any, gain: int) -> list[Any]:  # noqa: ANN401 - a container
    """The elements that a container has gained, as far as its order shows."""
    gain = min(gain, MOST_NEWEST)
    try:
        if is_a(item, dict):  # not by key: that would compare keys of the program's own classes
            return [part for pair in islice(reversed(dict.items(item)), gain) for part in pair]
        if is_a(item, set):
            return list(islice(set.__iter__(item), gain))
        base: Any = next((one for one in (list, deque) if is_a(item, one)), None)
        backwards = reversed(item) if base is None else base.__reversed__(item)
        return list(islice((part for part in backwards if part is not None), gain))
    except not_the_scripts(RuntimeError, KeyError, TypeError):  # another thread changes it
        return []


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
