"""Count what a live process holds: tensors, those kept by graphs, images, and containers that grow.

A census reads the objects that Python's collector tracks; it never collects, and keeps no reference. Its cost
grows with the number of objects (about 1 µs each), so it is taken only on suspicion, and in turns: objects that
refer to tensors in the first, the rest a few thousand at a time between later steps.
Storages are counted once however many tensors share them. Nodes of autograd graphs are followed from the
tensors that Python holds: what only a graph keeps is found there.
"""

import gc
import time
import types
from collections.abc import Callable, Container, Iterable
from dataclasses import asdict, dataclass, field
from itertools import compress
from operator import not_
from typing import Any, Literal

from holdwater.attribution.frames import local_values, running_frames
from holdwater.attribution.kinds import (
    class_of,
    is_a,
    no_overrides,
    note_metaclasses,
    only,
    ordinary,
    with_subclasses,
)
from holdwater.attribution.lengths import (
    GROWING,
    derived_containers,
    length_of,
    lengths_of,
    maximum_length,
    newest,
    note_histories,
)
from holdwater.attribution.mlx_arrays import active_on_the_host
from holdwater.attribution.sweep import Sweep, all_objects
from holdwater.attribution.turns import Turn, Turns, at_once
from holdwater.attribution.untracked import Untracked, longer, those
from holdwater.attribution.weights import (
    ObjectWeights,
    Weight,
    follow_graphs,
    graph_of,
    host_bytes,
    note_storage,
    weigh,
)

LEAST_LENGTH = 8
"""The lengths of shorter containers are not kept."""
MANY, LEAST_OF_MANY = 200_000, 64
"""Above this many containers, only those of this length or more are kept: each takes 100 bytes."""
LEAST_GAIN = 2
"""Fewer new graph nodes, instances, or entries of a named dictionary are no growth."""
MOST_CONTAINERS = 100
"""Containers whose gain is measured, those with most new elements first."""
MOST_FRESH, MOST_NEW = 300, 3000
"""New elements of a container, and objects, that are measured at a time: a few milliseconds."""
MOST_OF_EACH = 24
"""New elements of a container that are measured, as a sample of the others."""
MINOR = 0.1
"""Containers without a maximum length are ignored if they gained less than this part of what the others did."""
_CONSTANT = frozenset((
    types.FunctionType, types.BuiltinFunctionType, types.GetSetDescriptorType, types.MethodDescriptorType,
    types.WrapperDescriptorType, types.MemberDescriptorType, types.GenericAlias, type,
))  # fmt: skip
"""Kinds of objects whose referents do not change."""
RECENT = 40_000
"""Among this many of the newest objects they are visited too: a new function may hold what grows."""


@dataclass(slots=True)
class Census:
    """What a process held at one step."""

    step: int
    tensors: int = 0
    """Bytes of host tensor storages that Python or a graph holds, and of MLX's arrays in host memory."""
    nodes: int = 0
    """Graph nodes reached; `MOST_NODES` means at least that many."""
    bulk: int = 0
    """Bytes of arrays, strings and byte strings of a kilobyte or more."""
    gained: Weight = field(default_factory=Weight)
    """What containers and new objects have gained since the previous census, without `bulk`."""
    datasets: int = 0
    """Bytes held by the datasets of the loaders that were iterated."""
    new_datasets: int = 0
    """The part of it in datasets that were not iterated yet at the previous census."""
    room: int | None = None
    """Bytes that the growing containers can still take, if nearly all of the gain is in containers with a maximum
    length."""
    generation: tuple[int, int] | None = None
    """Tokens so far, and at most, of a generation of `mlx_lm` that was running; None if none was."""
    counted: Literal["all", "in part"] = "all"
    """Partial: only objects reachable from the program's own names, since there are too many objects."""
    objects: int = 0
    """Objects that the collector tracks; in a partial census, those that were visited."""
    seconds: float = 0.0
    """Seconds that it took."""
    turns: int = 1
    """The steps after which its parts were made."""

    @staticmethod
    def tensors_now() -> int:
        """Bytes of host tensor storages now, by a quick count."""
        with no_overrides():
            tensors = note_tensors(of_kind(all_objects(), "torch", "Tensor"))[0]
        return host_bytes(tensors) + active_on_the_host()

    def as_json(self) -> dict[str, Any]:
        """The numbers as JSON, for the watcher."""
        return asdict(self)


@dataclass(slots=True)
class Seen:
    """What a census passes to the comparison with the previous one."""

    turn: Turn
    before: dict[int, int]
    """Lengths of containers at the previous census, by identity; empty at the first."""
    storages: dict[int, int]
    """Storages at the previous census: their sizes by address."""
    found: dict[int, int] = field(default_factory=dict)
    """The lengths at this census; an abandoned census does not replace the previous one."""
    tensors: list[Any] = field(default_factory=list)
    """In the first turns only."""
    gains: dict[int, int] = field(default_factory=dict)
    """New elements of containers that existed before, by identity, when all has been seen."""
    containers: dict[int, Any] = field(default_factory=dict)
    """The containers that gained most. They existed at the previous count, so none belongs to one step."""

    def note_gains(self, items: list[Any]) -> None:
        """Keep containers that have grown.

        Args:
            items: Containers, grown or not.
        """
        self.containers |= {id(item): item for item in those(items, self.gains)}
        if len(self.containers) > 2 * MOST_CONTAINERS:
            self.containers = {id(item): item for _, item in self.growing()}

    def growing(self) -> list[tuple[int, Any]]:
        """The containers that have grown, with their gains, those that gained most first."""
        pairs = [(self.gains[key], item) for key, item in self.containers.items()]
        return sorted(pairs, key=lambda pair: -pair[0])[:MOST_CONTAINERS]


class Note:
    """Receives the objects of a census; this base class ignores them."""

    def begin(self, seen: Seen) -> None:
        """Receive tensors: the newer in the first turn, the older in the second."""

    def visit(self, chunk: list[Any], kinds: set[type]) -> None:
        """Receive some objects: none may be kept."""

    def end(self, seen: Seen) -> Turns[None]:
        """The census is complete."""
        del seen
        yield from ()


class CensusTaker:
    """Takes censuses, and keeps the lengths of containers from one to the next."""

    def __init__(self) -> None:
        self.mark: object | None = None
        """An object that was created some steps before a count in turns; see `Sweep`."""
        self.lengths: dict[int, int] | None = None
        """Lengths of containers at the newest count, by identity; None before the first."""
        self.totals = (0, 0)
        """Bytes of tensors, and of large arrays and strings, at the newest count."""
        self._storages: dict[int, int] = {}
        self._constant: dict[int, int] = {}
        self._objects = 0
        self._histories: dict[int, int] = {}
        self._datasets = set[int]()
        """Identities of the datasets at the newest count."""

    def take(self, step: int, datasets: Iterable[object] = (), *, note: Note | None = None) -> Census:
        """Count what is held now, in one turn.

        Args:
            step: The step that ended last.
            datasets: Objects whose own size is measured.
            note: Receives what was found, before it is released.
        """
        return at_once(self.turns(Turn(time.thread_time), Census(step), lambda: datasets, note or Note()))

    def turns(
        self, turn: Turn, census: Census, datasets: Callable[[], Iterable[object]], note: Note
    ) -> Turns[Census]:
        """Count what is held now, in turns.

        Args:
            turn: Its end returns control to the training.
            census: Receives the totals; its step is the one that ended last.
            datasets: Returns objects whose own size is measured.
            note: Receives what is found.
        """
        sweep = Sweep(turn, all_objects(), self.mark)  # first: objects of the count itself must not be counted
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
        self._weigh_datasets(census, datasets())
        census.seconds = turn.spent
        return census

    def _weigh_datasets(self, census: Census, datasets: Iterable[object]) -> None:
        """Add up what datasets hold, and what those do that are new."""
        before, self._datasets = self._datasets, set()
        for dataset in datasets:
            size = weigh([dataset]).total
            self._datasets.add(id(dataset))
            census.datasets += size
            census.new_datasets += 0 if id(dataset) in before else size

    def _note_tensors(self, sweep: Sweep, seen: Seen, census: Census, note: Note, *, older: bool = False) -> None:
        """Add up what tensors hold; those older than the mark in a separate turn."""
        seen.tensors = sweep.take_out(class_of("torch", "Tensor"), older=older)
        storages, nodes = note_tensors(seen.tensors)
        seen.found |= storages
        census.nodes += nodes
        census.tensors = host_bytes(seen.found) + active_on_the_host()
        note.begin(seen)
        seen.tensors = []

    def _sweep(self, sweep: Sweep, seen: Seen, census: Census, note: Note) -> Turns[dict[int, int]]:
        """Visit all objects: add up untracked data, and record the lengths of containers."""
        lengths: dict[int, int] = {}
        values = [value for frame in running_frames() for value in local_values(frame)]
        bulk = Untracked().visit([values]).bulk
        del values
        first, newer, visited, lbfgs = self.lengths is None, True, 0, class_of("torch.optim.lbfgs", "LBFGS")
        for chunk in sweep.chunks():
            if chunk is None:
                yield
                if newer:
                    self._note_tensors(sweep, seen, census, note, older=True)
                newer = False
                continue
            if first:
                self._constant |= Untracked().visit(list(only(chunk, _CONSTANT))).bulk
            visited += len(chunk)
            untracked = Untracked().visit(chunk if visited <= RECENT else _variable(chunk))
            bulk |= untracked.bulk
            kinds = set(map(type, chunk))
            _measure_all(chunk, kinds, untracked.dicts, lengths, seen)
            if any(issubclass(kind, lbfgs) for kind in kinds):
                note_histories(chunk, self._histories)
            note.visit(chunk, kinds)  # last: reading attributes makes dictionaries of them
            del chunk, untracked
        census.bulk = sum((self._constant | bulk).values())
        return lengths

    def _weigh_gains(self, seen: Seen, census: Census, more: int) -> Turns[None]:
        """Measure what containers have gained, and the new objects, by samples."""
        own = {id(seen), id(seen.before), id(self.__dict__), id(seen.gains), id(seen.containers)}
        weights = ObjectWeights(Either(own, seen.before), seen.storages, bulk=False)
        with_end = without = capacity = weighed = 0.0
        growing = seen.growing()
        ends = any(maximum_length(item, self._histories) is not None for _, item in growing)
        for gain, item in growing:
            if gain >= LEAST_LENGTH and id(item) not in own:
                unit = 2 if is_a(item, dict) else 1
                elements = gain * unit
                fresh = newest(item, gain)
                weighed += _weigh_some(weights, fresh[:MOST_FRESH], elements, unit, census)
                each, most = _each(fresh) if ends else 0.0, maximum_length(item, self._histories)
                with_end += each * elements if most is not None else 0.0
                without += each * elements if most is None else 0.0
                capacity += 0.0 if most is None else each * (most - lengths_of([item])[0])
                del fresh
            if seen.turn.over:
                yield
        del growing
        if more > weighed:
            news = gc.get_objects(generation=2)[-min(more, MOST_NEW) :]
            census.gained.add(
                weights.weigh(news, MOST_NEW), max((more - weighed) / len(news), 1.0) if news else 0.0
            )
            del news
        if with_end > 0 and without <= MINOR * with_end:
            census.room = int(capacity)


def _weigh_some(weights: ObjectWeights, fresh: list[Any], elements: int, unit: int, census: Census) -> float:
    """Estimate the size of a container's new elements by a sample; return how many objects they are."""
    if not fresh:
        return 0.0
    before = len(weights.seen)
    weight, number = weights.weigh_some(fresh, MOST_NEW, unit=unit)
    times = max(elements / number, 1.0)
    census.gained.add(weight, times)
    return times * (len(weights.seen) - before)


class Either:
    """Identities in one of two sets."""

    def __init__(self, first: Container[int], second: Container[int]) -> None:
        """Join two sets without copying."""
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


def _measure_all(
    chunk: list[Any], kinds: set[type], untracked: list[Any], lengths: dict[int, int], seen: Seen
) -> None:
    """Record the lengths of all containers among some objects, and of dictionaries that are not tracked."""
    _measure([*only(chunk, GROWING), *longer(list(only(chunk, {dict})), LEAST_LENGTH)], lengths, seen)
    _measure(list(longer(untracked, LEAST_LENGTH)), lengths, seen)
    derived = derived_containers(kinds)
    if derived:
        _measure_derived(list(only(chunk, derived)), lengths, seen)


def _measure(items: list[Any], lengths: dict[int, int], seen: Seen) -> None:
    """Record the lengths of containers, and which have grown."""
    if len(lengths) > MANY:
        items = list(longer(items, LEAST_OF_MANY))
    _compare(items, lengths_of(items), lengths, seen)


def _measure_derived(items: list[Any], lengths: dict[int, int], seen: Seen) -> None:
    """The same of containers whose class may have a length of its own."""
    now = list(map(length_of, items))
    least = LEAST_OF_MANY if len(lengths) > MANY else LEAST_LENGTH
    kept = [at for at, length in enumerate(now) if length >= least]
    _compare([items[at] for at in kept], [now[at] for at in kept], lengths, seen)


def _compare(items: list[Any], now: list[int], lengths: dict[int, int], seen: Seen) -> None:
    """Record lengths, and which of the containers were shorter at the previous census."""
    keys = list(map(id, items))
    lengths.update(zip(keys, now, strict=True))
    for key, length, before in zip(keys, now, map(seen.before.get, keys, now), strict=True):
        if length - before >= (LEAST_GAIN if before == 0 else 1):  # of several that grow in turn each gains little
            seen.gains[key] = length - before
    seen.note_gains(items)


def of_kind(objects: list[Any], module: str, name: str) -> list[Any]:
    """The objects of a class and its subclasses; none if the module is not loaded."""
    note_metaclasses()
    return list(only(ordinary(objects), with_subclasses(class_of(module, name))))


def _each(fresh: list[Any]) -> float:
    """Bytes of a new element, by a sample."""
    if not fresh:
        return 0.0
    weight, number = ObjectWeights().weigh_some(fresh[:MOST_OF_EACH], MOST_NEW)
    return weight.total / number
