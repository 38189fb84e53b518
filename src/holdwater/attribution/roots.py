"""Take a partial census: a bounded walk from the names of the user's code, if there are too many objects for all.

From the globals of the user's modules, the variables of running functions and the attributes of classes it goes a
few levels down, the newest elements first. It finds growing containers by their names, and touches neither the
collector's list nor the millions of records that make counting expensive. Each name is walked within one turn.
"""

import gc
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from holdwater.attribution.census import Census, CensusTaker, Seen
from holdwater.attribution.frames import local_items, running_frames
from holdwater.attribution.gain import Gain
from holdwater.attribution.gains import CensusComparison
from holdwater.attribution.kinds import (
    attributes,
    class_of,
    file_of,
    full_name_of,
    is_a,
    is_ordinary,
    members_of,
    module_of,
    name_of,
    namespace_of,
    only,
    ordinary,
    qualname_of,
)
from holdwater.attribution.lengths import CONTAINERS, is_container, length_of, newest
from holdwater.attribution.links import PathPart
from holdwater.attribution.managers import kept_by_manager
from holdwater.attribution.measured import in_container
from holdwater.attribution.mlx_arrays import array_class
from holdwater.attribution.named import cache_kinds
from holdwater.attribution.turns import Turn, Turns
from holdwater.attribution.user_code import is_users, users_modules
from holdwater.attribution.weights import LEAST_BULK, host_bytes, note_storage, owner_of

DEEPEST = 5
"""Levels below a name that are visited."""
MOST_OBJECTS = 100_000
"""Objects of one count."""
MOST_BELOW = 3000
"""Objects below one name: a few milliseconds."""
NEWEST = 64
"""Elements of a container that are visited."""
DATASET = PathPart("attribute", "dataset", "torch.utils.data.DataLoader")
"""How a loader holds its dataset."""
_TEXTS = frozenset((str, bytes, bytearray))
_LEAVES = (types.ModuleType, types.CodeType, types.BuiltinFunctionType, types.FrameType)

Held = tuple[Any, tuple[PathPart, ...], int]
"""An object, the path to it, and its level."""


@dataclass(slots=True)
class _Met:
    """The objects of one count."""

    seen: set[int] = field(default_factory=set)
    lengths: dict[int, int] = field(default_factory=dict)
    storages: dict[int, int] = field(default_factory=dict)
    bulk: dict[int, int] = field(default_factory=dict)
    grown: list[tuple[Gain, Any]] = field(default_factory=list)


class PartCounter:
    """Takes partial censuses, and keeps the lengths of containers from one to the next."""

    def __init__(self, whole: CensusTaker, datasets: Callable[[], Iterable[object]] = tuple) -> None:
        """Continue from full counts.

        Args:
            whole: Takes full censuses; a count of either kind is compared with the newest of both.
            datasets: Returns the datasets that are iterated: user objects that a library holds.
        """
        self.alone = False
        """Whether there was no full count before the first partial one: their totals are not comparable."""
        self._whole, self._datasets = whole, datasets
        self._found = _Met()

    def turns(self, turn: Turn, census: Census, note: CensusComparison) -> Turns[Census]:
        """Count in turns what is reachable from names.

        Args:
            turn: Its end returns control to the training.
            census: Receives the totals; its step is the one that ended last.
            note: Compares it with the previous count.
        """
        self._found = found = _Met()
        seen = Seen(turn, self._whole.lengths or {}, {})
        done = set[Any]()
        while True:
            for key, value, part in _names(self._datasets()):
                if key in done or len(found.seen) > MOST_OBJECTS:
                    continue
                done.add(key)
                self._walk(value, part, seen, note)
                if turn.over:
                    break
            else:
                break
            del value
            yield
        for name in list(sys.modules):
            self._note_tables(name, seen)
            if turn.over:
                yield
        census.counted, census.objects = "in part", len(found.seen)
        self._add_up(census)
        yield from note.end_in_part(seen, found.grown)
        self._whole.lengths, self._found = (self._whole.lengths or {}) | found.lengths, _Met()
        census.seconds = turn.spent
        return census

    def _add_up(self, census: Census) -> None:
        """Totals: those of the first count, and what was gained since, because only a part is ever visited."""
        found = self._found
        if self._whole.lengths is None:
            self.alone = True
            self._whole.totals = (host_bytes(found.storages), sum(found.bulk.values()))
        tensors, bulk = self._whole.totals
        for gain, _ in found.grown:
            census.gained.add(gain.weight)
            tensors += gain.weight.tensors
        self._whole.totals = census.tensors, census.bulk = tensors, bulk

    def _walk(self, root: Any, part: PathPart, seen: Seen, note: CensusComparison) -> None:  # noqa: ANN401 - any object
        """Visit what is reachable from one name."""
        found, instances, of_libraries = self._found, [], cache_kinds()
        waiting: deque[Held] = deque([(root, (part,), 0)])
        most = len(found.seen) + MOST_BELOW
        while waiting and len(found.seen) < most:
            item, path, level = waiting.popleft()
            if id(item) in found.seen or is_a(item, _LEAVES) or not is_ordinary(item):
                continue
            found.seen.add(id(item))
            if self._is_plain(item):
                continue
            if is_container(item):
                self._note_container(item, path, seen)
            if is_users(file_of(module_of(type(item))) or ""):
                instances.append(item)
            elif type(item) in of_libraries:
                instances.append(item)
                note.known_paths[id(item)] = path
            if level < DEEPEST:
                waiting.extend(_children(item, path, level + 1))
        note.visit(instances, set(map(type, instances)))

    def _note_tables(self, name: str, seen: Seen) -> None:
        """Record the lengths of a library's tables, such as `sys.modules`; what they hold is not visited."""
        module = sys.modules.get(name)
        names = namespace_of(module) if is_a(module, types.ModuleType) else {}
        if type(file := names.get("__file__")) is str and is_users(file):
            return
        for key, value in list(names.items()):
            if type(value) in CONTAINERS and key != "__builtins__" and id(value) not in self._found.seen:
                self._found.seen.add(id(value))
                self._note_container(value, (PathPart("global", key, name, file),), seen)

    def _is_plain(self, item: Any) -> bool:  # noqa: ANN401 - any object
        """Record a tensor, an array or a string; return whether it was one."""
        array = class_of("numpy", "ndarray")
        if is_a(item, class_of("torch", "Tensor")):
            note_storage(item, self._found.storages)
            return True
        if is_a(item, array_class()):
            return True
        if type(item) in _TEXTS or is_a(item, array):
            owner, size = owner_of(item, array)
            if size >= LEAST_BULK:
                self._found.bulk[id(owner)] = size
            return True
        return False

    def _note_container(self, item: Any, path: tuple[PathPart, ...], seen: Seen) -> None:  # noqa: ANN401 - a container
        """Record a container's length, and measure what it has gained."""
        length, before = length_of(item), seen.before.get(id(item))
        self._found.lengths[id(item)] = length
        if before is not None and length > before:
            gain = in_container(item, length - before, seen)
            if gain is not None:
                gain.path = path
                self._found.grown.append((gain, item))


def _names(datasets: Iterable[object]) -> Iterator[tuple[Any, Any, PathPart]]:
    """What names hold, each with a key: datasets, a manager's, variables of functions, globals of the program."""
    for dataset in datasets:
        yield ("dataset", id(dataset)), dataset, DATASET
    for kept, part in kept_by_manager():
        yield ("manager", id(kept)), kept, part
    for frame in running_frames():
        code = frame.f_code
        if is_users(code.co_filename):
            for name, value in local_items(frame):
                part = PathPart("local", name, code.co_name, code.co_filename, code.co_firstlineno)
                yield (code, name), value, part
    for module in users_modules():
        for name, value in reversed(list(module.names.items())):
            yield (module.name, name), value, PathPart("global", name, module.name, module.file)


def _children(item: Any, path: tuple[PathPart, ...], level: int) -> Iterator[Held]:  # noqa: ANN401 - any object
    """What an object holds, the newest first, and under which names."""
    kind = type(item)
    if is_a(item, dict):
        for key, value in islice(reversed(dict.items(item)), NEWEST):
            yield value, (*path, PathPart("element", key if type(key) is str else None, "dict")), level
    elif is_container(item) or kind is tuple:
        element = PathPart("element", None, name_of(kind))
        yield from ((value, (*path, element), level) for value in newest(item, NEWEST))
    elif is_a(item, type):
        yield from _class_attributes(item, path, level)
    elif kind is types.FunctionType:
        yield from _of_function(item, path, level)
    else:
        yield from _attributes(item, path, level)


def _class_attributes(item: type, path: tuple[PathPart, ...], level: int) -> Iterator[Held]:
    """The attributes of a class of the user's own."""
    file = file_of(module_of(item))
    if is_users(file or ""):
        for name, value in members_of(item):
            yield value, (*path, PathPart("class attribute", name, qualname_of(item), file)), level


def _of_function(function: types.FunctionType, path: tuple[PathPart, ...], level: int) -> Iterator[Held]:
    """What a function's closure and defaults hold."""
    where = (function.__qualname__, function.__code__.co_filename)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        yield from ((held, (*path, PathPart("closure", name, *where)), level) for held in gc.get_referents(cell))
    for value in function.__defaults__ or ():
        yield value, (*path, PathPart("default", None, *where)), level
    for name, value in (function.__kwdefaults__ or {}).items():
        yield value, (*path, PathPart("default", name, *where)), level


def _attributes(item: Any, path: tuple[PathPart, ...], level: int) -> Iterator[Held]:  # noqa: ANN401 - any object
    """The attributes of an instance; for one without any, and for a cache, the containers that it refers to."""
    kind = type(item)
    named = attributes(item)
    where = (full_name_of(kind), file_of(module_of(kind)))
    for name, value in reversed(named):
        yield value, (*path, PathPart("attribute", name, *where)), level
    if not named or is_a(item, class_of("functools", "_lru_cache_wrapper")):
        held = gc.get_referents(item)
        part = PathPart("element", None, name_of(kind))
        for value in only(ordinary(held), CONTAINERS):
            yield value, (*path, part), level
