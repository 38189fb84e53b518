"""Count what a live process holds: tensors, those kept by graphs, images, and containers that grow.

A census reads the objects that Python's collector tracks; it never collects, and keeps no reference. What it
costs grows with the number of objects (about 1 µs each), so it is taken only on suspicion, and in turns: what
refers to tensors is looked at in the first, the rest a few thousand objects at a time between later steps.
Storages are counted once however many tensors share them. Nodes of autograd graphs are followed from the
tensors that Python holds: what only a graph keeps is found there.
"""

import gc
import sys
import time
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Container, Iterable
from dataclasses import asdict, dataclass, field
from itertools import compress
from operator import not_
from typing import Any, Literal

from holdwater.attribution.behind import Behind, longer, only, those
from holdwater.attribution.frames import local_values, running_frames
from holdwater.attribution.lengths import greatest_length, lengths_of, note_histories
from holdwater.attribution.sweep import Sweep, all_objects, with_subclasses
from holdwater.attribution.turns import Turn, Turns, at_once
from holdwater.attribution.weights import (
    Scales,
    Weight,
    class_of,
    follow_graphs,
    graph_of,
    host_bytes,
    is_a,
    newest,
    note_storage,
    weigh,
)

LEAST_LENGTH = 8
"""Containers shorter than this are not remembered."""
MANY, LEAST_OF_MANY = 200_000, 64
"""Where more containers than this are remembered, the others are from this length on: each takes 100 bytes."""
LEAST_GAIN = 2
"""New graph nodes, instances, or entries of a dictionary under a name, from which on there are more."""
MOST_CONTAINERS = 100
"""Containers whose gain is weighed, those with most new elements first."""
MOST_FRESH, MOST_NEW = 300, 3000
"""New elements of a container, and objects, that are weighed at a time: a few milliseconds."""
MOST_OF_EACH = 24
"""New elements of a container by which the others are weighed."""
MINOR = 0.1
"""Containers without a greatest length that gained so much of what the others did are passed over."""
_CONSTANT = frozenset((
    types.FunctionType, types.BuiltinFunctionType, types.GetSetDescriptorType, types.MethodDescriptorType,
    types.WrapperDescriptorType, types.MemberDescriptorType, types.GenericAlias, type,
))  # fmt: skip
"""Kinds of objects whose referents stay what they are."""
RECENT = 40_000
"""Among so many of the newest objects they are looked at all the same: a new function may hold what grows."""
_GROWING = frozenset((list, set, deque, OrderedDict, defaultdict))
"""Containers that are remembered however short; dictionaries are not, there are so many."""
CONTAINERS = _GROWING | {dict}


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
    """Bytes that the growing containers will take at most, where nearly all of what is gained is gained by such as
    have a greatest length."""
    counted: Literal["all", "in part"] = "all"
    """In part: only what names of the program's own lead to, since there are too many objects."""
    objects: int = 0
    """Objects that the collector tracks; in part, those that were looked at."""
    seconds: float = 0.0
    """What taking it cost."""
    turns: int = 1
    """After how many steps a part of it was made."""

    @staticmethod
    def tensors_now() -> int:
        """Bytes of host tensor storages now, by a quick count."""
        return host_bytes(note_tensors(of_kind(all_objects(), "torch", "Tensor"))[0])

    def as_json(self) -> dict[str, Any]:
        """The numbers, for the other side of the channel."""
        return asdict(self)


@dataclass(slots=True)
class Seen:
    """What a census shows to whoever compares it with the one before."""

    turn: Turn
    before: dict[int, int]
    """Lengths of containers at the census before, by identity; empty at the first."""
    storages: dict[int, int]
    """Storages at the census before: their sizes by address."""
    found: dict[int, int] = field(default_factory=dict)
    """Those of this census: a count that is left undone leaves the one before as it is."""
    tensors: list[Any] = field(default_factory=list)
    """In the first turns only."""
    gains: dict[int, int] = field(default_factory=dict)
    """New elements of containers that were there before, by identity, when all has been seen."""
    containers: dict[int, Any] = field(default_factory=dict)
    """The containers themselves, those that gained most: they were there at the count before, so no step is
    theirs."""

    def note_gains(self, items: list[Any]) -> None:
        """Hold containers that have grown.

        Args:
            items: Some, of which none may have.
        """
        self.containers |= {id(item): item for item in those(items, self.gains)}
        if len(self.containers) > 2 * MOST_CONTAINERS:
            self.containers = {id(item): item for _, item in self.growing()}

    def growing(self) -> list[tuple[int, Any]]:
        """The containers that have grown, with their gains, those that gained most first."""
        pairs = [(self.gains[key], item) for key, item in self.containers.items()]
        return sorted(pairs, key=lambda pair: -pair[0])[:MOST_CONTAINERS]


class Note:
    """Is shown what a census sees; this one ignores it."""

    def begin(self, seen: Seen) -> None:
        """Tensors are there: the newer in the first turn, the older in the second."""

    def look(self, chunk: list[Any], kinds: set[type]) -> None:
        """Some objects: none is to be kept."""

    def end(self, seen: Seen) -> Turns[None]:
        """All was seen."""
        del seen
        yield from ()


class CensusTaker:
    """Takes censuses, and remembers the lengths of containers from one to the next."""

    def __init__(self) -> None:
        self.mark: object | None = None
        """An object that was made some steps before a count that is made in turns; see `Sweep`."""
        self.lengths: dict[int, int] | None = None
        """Of containers at the newest count, by identity; None before the first."""
        self.totals = (0, 0)
        """Bytes of tensors, and of large arrays and texts, at the newest count."""
        self._storages: dict[int, int] = {}
        self._constant: dict[int, int] = {}
        self._objects = 0
        self._histories: dict[int, int] = {}

    def take(self, step: int, datasets: Iterable[object] = (), *, note: Note | None = None) -> Census:
        """Count what is held now, in one turn.

        Args:
            step: The step that ended last.
            datasets: Objects whose own weight is asked for.
            note: Is shown what was found, before it is forgotten.
        """
        return at_once(self.turns(Turn(time.thread_time), Census(step), lambda: datasets, note or Note()))

    def turns(
        self, turn: Turn, census: Census, datasets: Callable[[], Iterable[object]], note: Note
    ) -> Turns[Census]:
        """Count what is held now, in turns.

        Args:
            turn: Says when the training is to go on.
            census: Takes what is found; its step is the one that ended last.
            datasets: Gives objects whose own weight is asked for.
            note: Is shown what is found.
        """
        sweep = Sweep(turn, all_objects(), self.mark)  # first: what is made for a count is not to be counted
        seen = Seen(turn, self.lengths or {}, self._storages)
        self._note_tensors(sweep, seen, census, note)
        lengths = yield from self._sweep(sweep, seen, census, note)
        census.objects = sweep.total
        if self.lengths is not None:
            if turn.over:
                yield
            yield from self._weigh_gains(seen, census, max(sweep.total - self._objects, 0))
        yield from note.end(seen)
        self.lengths, self._objects, self._storages = lengths, sweep.total, seen.found
        self.totals = census.tensors, census.bulk
        census.datasets = sum(weigh([dataset]).total for dataset in datasets())
        census.seconds = turn.spent
        return census

    def _note_tensors(self, sweep: Sweep, seen: Seen, census: Census, note: Note, *, older: bool = False) -> None:
        """Add up what tensors hold, those that are older than the mark in a turn of their own."""
        base = getattr(sys.modules.get("torch"), "Tensor", None)
        seen.tensors = [] if base is None else sweep.take_out(base, older=older)
        storages, nodes = note_tensors(seen.tensors)
        seen.found |= storages
        census.nodes += nodes
        census.tensors = host_bytes(seen.found)
        note.begin(seen)
        seen.tensors = []

    def _sweep(self, sweep: Sweep, seen: Seen, census: Census, note: Note) -> Turns[dict[int, int]]:
        """Go through all objects: what is behind them, and how long the containers are."""
        lengths: dict[int, int] = {}
        values = [value for frame in running_frames() for value in local_values(frame)]
        bulk = Behind().look([values]).bulk
        del values
        first, newer, looked = self.lengths is None, True, 0
        for chunk in sweep.chunks():
            if chunk is None:
                yield
                if newer:
                    self._note_tensors(sweep, seen, census, note, older=True)
                newer = False
                continue
            if first:
                self._constant |= Behind().look(list(only(chunk, _CONSTANT))).bulk
            looked += len(chunk)
            behind = Behind().look(chunk if looked <= RECENT else _variable(chunk))
            bulk |= behind.bulk
            _measure([*only(chunk, _GROWING), *longer(list(only(chunk, {dict})), LEAST_LENGTH)], lengths, seen)
            _measure(list(longer(behind.dicts, LEAST_LENGTH)), lengths, seen)
            kinds = set(map(type, chunk))
            if any(issubclass(kind, class_of("torch.optim.lbfgs", "LBFGS")) for kind in kinds):
                note_histories(chunk, self._histories)
            note.look(chunk, kinds)  # last: reading attributes makes dictionaries of them
            del chunk, behind
        census.bulk = sum((self._constant | bulk).values())
        return lengths

    def _weigh_gains(self, seen: Seen, census: Census, more: int) -> Turns[None]:
        """Weigh what containers have gained, and the objects that are new: some, that stand for the others."""
        own = {id(seen), id(seen.before), id(self.__dict__), id(seen.gains), id(seen.containers)}
        scales = Scales(Either(own, seen.before), seen.storages, bulk=False)
        with_end = without = room = 0.0
        weighed = 0.0
        for gain, item in seen.growing():
            if gain >= LEAST_LENGTH and id(item) not in own:
                unit = 2 if is_a(item, dict) else 1
                elements = gain * unit
                fresh = newest(item, gain)
                weighed += _weigh_some(scales, fresh[:MOST_FRESH], elements, unit, census)
                each, most = _each(fresh), greatest_length(item, self._histories)
                with_end += each * elements if most is not None else 0.0
                without += each * elements if most is None else 0.0
                room += 0.0 if most is None else each * (most - lengths_of([item])[0])
                del fresh
            if seen.turn.over:
                yield
        if more > weighed:
            news = gc.get_objects(generation=2)[-min(more, MOST_NEW) :]
            census.gained.add(
                scales.weigh(news, MOST_NEW), max((more - weighed) / len(news), 1.0) if news else 0.0
            )
            del news
        if with_end > 0 and without <= MINOR * with_end:
            census.room = int(room)


def _weigh_some(scales: Scales, fresh: list[Any], elements: int, unit: int, census: Census) -> float:
    """Weigh some of a container's new elements for all of them; return how many objects they are together."""
    if not fresh:
        return 0.0
    before = len(scales.seen)
    weight, number = scales.weigh_some(fresh, MOST_NEW, unit=unit)
    times = max(elements / number, 1.0)
    census.gained.add(weight, times)
    return times * (len(scales.seen) - before)


class Either:
    """Identities in one of two sets."""

    def __init__(self, first: Container[int], second: Container[int]) -> None:
        """Take both as they are."""
        self._first, self._second = first, second

    def __contains__(self, identity: object) -> bool:
        """Whether an identity is in one of them."""
        return identity in self._first or identity in self._second


def note_tensors(tensors: list[Any]) -> tuple[dict[int, int], int]:
    """The storages of tensors and of the graphs behind them, and how many nodes those have."""
    storages: dict[int, int] = {}
    functions = []
    for tensor in tensors:
        note_storage(tensor, storages)
        function = graph_of(tensor)
        if function is not None:
            functions.append(function)
    return storages, follow_graphs(functions, storages)


def _variable(chunk: list[Any]) -> list[Any]:
    """The objects whose referents may change."""
    return list(compress(chunk, map(not_, map(_CONSTANT.__contains__, map(type, chunk)))))


def _measure(items: list[Any], lengths: dict[int, int], seen: Seen) -> None:
    """Note the lengths of containers, and which have grown."""
    if len(lengths) > MANY:
        items = list(longer(items, LEAST_OF_MANY))
    keys, now = list(map(id, items)), lengths_of(items)
    lengths.update(zip(keys, now, strict=True))
    for key, length, before in zip(keys, now, map(seen.before.get, keys, now), strict=True):
        if length - before >= (LEAST_GAIN if before == 0 else 1):  # of several that grow in turn each gains little
            seen.gains[key] = length - before
    seen.note_gains(items)


def of_kind(objects: list[Any], module: str, name: str) -> list[Any]:
    """The objects of a class and its subclasses; none where the module is not loaded."""
    base = getattr(sys.modules.get(module), name, None)
    return list(only(objects, with_subclasses(base))) if base is not None else []


def _each(fresh: list[Any]) -> float:
    """Bytes of a new element, by a few."""
    if not fresh:
        return 0.0
    weight, number = Scales().weigh_some(fresh[:MOST_OF_EACH], MOST_NEW)
    return weight.total / number
