"""Count what a live process holds: tensors, those kept by graphs, images, and containers that grow.

A census reads the objects that Python's collector tracks; it never collects, and keeps no reference. What it
costs grows with the number of objects (about 0.1 s for 300,000), so it is taken only on suspicion.
Storages are counted once however many tensors share them. Nodes of autograd graphs are followed from the
tensors that Python holds: what only a graph keeps is found there.
"""

import gc
import sys
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import compress, filterfalse
from operator import not_
from typing import Any

from holdwater.attribution.frames import local_values, running_frames
from holdwater.attribution.weights import (
    LEAST_BULK,
    MOST_WALKED,
    Weight,
    class_of,
    follow_graphs,
    host_bytes,
    newest,
    note_storage,
    owner_of,
    weigh,
)

LEAST_LENGTH = 8
"""Containers shorter than this are not remembered."""
CHUNK = 20_000
"""Objects whose referents are listed at once."""
_CONSTANT = frozenset((
    types.FunctionType, types.BuiltinFunctionType, types.GetSetDescriptorType, types.MethodDescriptorType,
    types.WrapperDescriptorType, types.MemberDescriptorType, types.GenericAlias, type,
))  # fmt: skip
"""Kinds of objects whose referents stay what they are."""
_PLAIN = frozenset((dict, tuple))
_LEAST: dict[type, int] = {list: 0, set: 0, deque: 0, OrderedDict: 0, defaultdict: 0, dict: LEAST_LENGTH}
"""Containers, and the length from which on each is remembered: there are many short dictionaries."""
_CONTAINERS = frozenset(_LEAST)


@dataclass(slots=True)
class Census:
    """What a process held at one step."""

    step: int
    tensors: int = 0
    """Bytes of host tensor storages that Python or a graph holds."""
    nodes: int = 0
    """Graph nodes reached; `MOST_NODES` means: at least so many."""
    bulk: int = 0
    """Bytes of arrays, texts and byte strings of a kilobyte or more."""
    gained: Weight = field(default_factory=Weight)
    """What containers and new objects have gained since the census before, bulk left out."""
    datasets: int = 0
    """Bytes held by the datasets of the loaders that were iterated."""
    room: int | None = None
    """Bytes that the growing containers will take at most, where all of them have a greatest length."""
    seconds: float = 0.0
    """What taking it cost."""

    @staticmethod
    def tensors_now() -> int:
        """Bytes of host tensor storages now, by a quick count."""
        objects = gc.get_objects()
        census = Census(0)
        Counter.count_tensors(of_kind(objects, set(map(type, objects)), "torch", "Tensor"), census)
        return census.tensors

    def as_json(self) -> dict[str, Any]:
        """The numbers, for the other side of the channel."""
        return asdict(self)


@dataclass(slots=True)
class Seen:
    """What a census has found, for as long as it is taken."""

    objects: list[Any]
    """All that the collector tracks, the oldest first."""
    kinds: set[type]
    """Their types."""
    tensors: list[Any]
    containers: list[Any]
    before: dict[int, int]
    """Lengths of containers at the census before, by identity; empty at the first."""
    storages: dict[int, int]
    """Storages at the census before: their sizes by address."""


Note = Callable[[Seen], None]


class Counter:
    """Takes censuses, and remembers the lengths of containers from one to the next."""

    def __init__(self) -> None:
        self._lengths: dict[int, int] | None = None
        self._storages: dict[int, int] = {}
        self._constant: dict[int, int] = {}
        self._objects = 0

    def take(self, step: int, datasets: Iterable[object] = (), *, note: Note | None = None) -> Census:
        """Count what is held now.

        Args:
            step: The step that ended last.
            datasets: Objects whose own weight is asked for.
            note: Is shown what was found, before it is forgotten.
        """
        objects = gc.get_objects()
        kinds = set(map(type, objects))
        census = Census(step)
        try:
            tensors = of_kind(objects, kinds, "torch", "Tensor")
            storages = self.count_tensors(tensors, census)
            census.bulk, dicts = self._look_behind(objects)
            containers = [item for item in only(objects, _CONTAINERS) if len(item) >= _LEAST[type(item)]]
            containers += [item for item in dicts if len(item) >= LEAST_LENGTH]
            lengths = {id(item): len(item) for item in containers}
            if note is not None:
                note(Seen(objects, kinds, tensors, containers, self._lengths or {}, self._storages))
            if self._lengths is not None:
                self._weigh_gains(objects, containers, lengths, census)
            self._lengths, self._objects, self._storages = lengths, len(objects), storages
            census.datasets = sum(weigh([dataset]).total for dataset in datasets)
        finally:
            del objects
        return census

    def _look_behind(self, objects: list[Any]) -> tuple[int, list[Any]]:
        """Find what objects and running functions hold beside tracked objects.

        What functions and the like refer to does not change, so it is looked at once.
        """
        if self._lengths is None:
            self._constant, _ = _look_behind(list(only(objects, _CONSTANT)))
        values = [value for frame in running_frames() for value in local_values(frame)]
        changing = list(compress(objects, map(not_, map(_CONSTANT.__contains__, map(type, objects)))))
        found, dicts = _look_behind([values, *changing])
        return sum((self._constant | found).values()), dicts

    @staticmethod
    def count_tensors(tensors: list[Any], census: Census) -> dict[int, int]:
        """Add up storages, and what graphs hold."""
        storages: dict[int, int] = {}
        functions = []
        for tensor in tensors:
            note_storage(tensor, storages)
            function = getattr(tensor, "grad_fn", None)
            if function is not None:
                functions.append(function)
        census.nodes = follow_graphs(functions, storages)
        census.tensors = host_bytes(storages)
        return storages

    def _weigh_gains(
        self, objects: list[Any], containers: list[Any], lengths: dict[int, int], census: Census
    ) -> None:
        """Weigh what containers have gained, and the objects that are new."""
        before = self._lengths or {}
        news: list[Any] = []
        rooms: list[int | None] = []
        own = {id(before), id(lengths), id(self.__dict__), id(objects), id(containers), id(news), id(rooms)}
        for item in containers:
            if id(item) in own:
                continue
            gain = lengths.get(id(item), 0) - before.get(id(item), 0)
            if gain >= LEAST_LENGTH and id(item) in before:
                fresh = newest(item, gain)
                news.extend(fresh)
                rooms.append(_room(item, fresh))
        fresh_objects = len(objects) - self._objects
        if fresh_objects > 0:
            news.extend(objects[-min(fresh_objects, MOST_WALKED) :])
        census.gained = weigh(news, skip=own | before.keys(), known=self._storages, bulk=False)
        if rooms and all(room is not None for room in rooms):
            census.room = sum(room or 0 for room in rooms)


def only(items: list[Any], kinds: Container[type]) -> Iterator[Any]:
    """The items of exactly these kinds; a loop in C, for there are millions."""
    return compress(items, map(kinds.__contains__, map(type, items)))


def _is_long(text: str | bytes | bytearray) -> bool:
    """Whether a text takes a kilobyte or more."""
    return len(text) >= LEAST_BULK


def of_kind(objects: list[Any], kinds: set[type], module: str, name: str) -> list[Any]:
    """The objects of a class and its subclasses; none where the module is not loaded."""
    base = getattr(sys.modules.get(module), name, None)
    if not isinstance(base, type):
        return []
    wanted = {kind for kind in kinds if issubclass(kind, base)}
    return list(only(objects, wanted)) if wanted else []


def _look_behind(objects: list[Any]) -> tuple[dict[int, int], list[Any]]:
    """Find what tracked objects hold that the collector does not track.

    Dicts and tuples of plain values are not tracked, so they are gone into.

    Returns:
        Bytes of arrays, texts and byte strings of a kilobyte or more, by identity; and the dicts.
    """
    array = class_of("numpy", "ndarray")
    found: dict[int, int] = {}
    hidden: dict[int, Any] = {}
    waiting = [objects[at : at + CHUNK] for at in range(0, len(objects), CHUNK)]
    while waiting:
        held = gc.get_referents(*waiting.pop())
        kinds = set(map(type, held))
        texts = {kind for kind in kinds if issubclass(kind, str | bytes | bytearray)}
        arrays = {kind for kind in kinds if issubclass(kind, array)}
        for item in filter(_is_long, only(held, texts)) if texts else ():
            found[id(item)] = sys.getsizeof(item)
        for item in only(held, arrays) if arrays else ():
            owner, size = owner_of(item, array)
            if size >= LEAST_BULK:
                found[id(owner)] = size
        plain = [item for item in filterfalse(gc.is_tracked, only(held, _PLAIN)) if item]
        fresh = {id(item): item for item in plain if id(item) not in hidden}
        hidden |= fresh
        if fresh:
            waiting.append(list(fresh.values()))
    return found, [item for item in hidden.values() if type(item) is dict]


def _room(item: Any, fresh: list[Any]) -> int | None:  # noqa: ANN401 - a container
    """What a container will still take until its greatest length; None where it has none."""
    most = getattr(item, "maxlen", None)
    if most is None or not fresh:
        return None
    return int((most - len(item)) * weigh(fresh).total / len(fresh))
