"""Find what tracked objects hold that Python's collector does not track: arrays, strings, plain dicts and tuples.

Dicts and tuples of plain values are not tracked, so they are searched. A container with very many elements is
sampled at even distances: else one list could take as long as a step.
"""

import gc
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Container, Iterator
from itertools import compress, filterfalse, islice
from typing import Any

from holdwater.attribution.kinds import class_of, is_a, only, ordinary
from holdwater.attribution.weights import LEAST_BULK, owner_of
from holdwater.signal_errors import not_the_scripts

LONG = 20_000
"""Containers with more elements are sampled."""
SAMPLED = 5_000
"""The approximate size of a sample."""
MOST_HIDDEN = 50_000
"""Plain dicts and tuples that are searched at a time."""
_TEXTS = frozenset((str, bytes, bytearray))
_PLAIN = frozenset((dict, tuple))
_SIZED = frozenset((dict, OrderedDict, defaultdict, list, tuple, set, frozenset, deque))


class Untracked:
    """The untracked objects that some objects hold."""

    def __init__(self) -> None:
        self.bulk: dict[int, int] = {}
        """Bytes of arrays, strings and byte strings of a kilobyte or more, by identity."""
        self.dicts: list[dict[Any, Any]] = []
        """Dicts that the collector does not track."""
        self._hidden: dict[int, Any] = {}

    def visit(self, objects: list[Any]) -> "Untracked":
        """Search some objects.

        Args:
            objects: Tracked objects, or a list of what running functions hold.
        """
        waiting = [(objects, 1)]
        while waiting:
            holders, times = waiting.pop()
            usual, long = _apart(holders)
            fresh = self._note(gc.get_referents(*usual), times)
            if fresh:
                waiting.append((fresh, times))
            for item in long:
                held, scale = _sample(item)
                fresh = self._note(held, times * scale)
                if fresh:
                    waiting.append((fresh, times * scale))
        self.dicts = [item for item in self._hidden.values() if type(item) is dict]
        self._hidden = {}
        return self

    def _note(self, held: list[Any], times: int) -> list[Any]:
        """Record large objects; return the plain containers that were not seen before."""
        array = class_of("numpy", "ndarray")
        held = ordinary(held)
        kinds = set(map(type, held))
        arrays = {kind for kind in kinds if issubclass(kind, array)}
        for item in longer(list(only(held, _TEXTS)), LEAST_BULK) if kinds & _TEXTS else ():
            self.bulk[id(item)] = times * sys.getsizeof(item)
        for item in only(held, arrays) if arrays else ():
            owner, size = owner_of(item, array)
            if size >= LEAST_BULK:
                self.bulk[id(owner)] = times * size
        if not kinds & _PLAIN or len(self._hidden) > MOST_HIDDEN:
            return []
        plain = [item for item in filterfalse(gc.is_tracked, only(held, _PLAIN)) if item]
        fresh = {id(item): item for item in plain if id(item) not in self._hidden}
        self._hidden |= fresh
        return list(fresh.values())


def longer(items: list[Any], least: int) -> Iterator[Any]:
    """The items with at least this many elements."""
    return compress(items, map(least.__le__, map(len, items)))


def those(items: list[Any], wanted: Container[int]) -> Iterator[Any]:
    """The items of these identities."""
    return compress(items, map(wanted.__contains__, map(id, items)))


def _apart(holders: list[Any]) -> tuple[list[Any], list[Any]]:
    """The objects whose referents can be listed, and the containers that are too long for it."""
    long = list(longer(list(only(holders, _SIZED)), LONG))
    if not long:
        return holders, []
    apart = set(map(id, long))
    return [item for item in holders if id(item) not in apart], long


def _sample(item: Any) -> tuple[list[Any], int]:  # noqa: ANN401 - a container
    """Some elements of a long container, and how many each stands for."""
    every = max(len(item) // SAMPLED, 1)
    try:
        if type(item) in {list, tuple}:
            return list(item[::every]), every
        values = dict.values(item) if is_a(item, dict) else item
        return list(islice(values, SAMPLED)), every
    except not_the_scripts(RuntimeError):  # another thread changes it
        return [], 1
