"""Find values that grow under a name, without a container: a sum with its graph, an extended tensor or string."""

import array
import functools
import gc
import io
import itertools
import weakref
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

from holdwater.attribution.census import LEAST_GAIN, LEAST_LENGTH
from holdwater.attribution.frames import local_items, running_frames
from holdwater.attribution.kinds import (
    attributes,
    class_of,
    full_name_of,
    ids_of,
    is_a,
    is_one_of,
    members_of,
    module_of,
    name_of,
    namespace_of,
    only,
    size_of,
    with_subclasses,
)
from holdwater.attribution.links import PathPart
from holdwater.attribution.mlx_arrays import (
    MOST_PARTS,
    is_module,
    leaves,
    library_kinds,
    part_in_use,
    size_of_array,
)
from holdwater.attribution.user_code import users_modules
from holdwater.attribution.weights import (
    Border,
    ObjectWeights,
    follow_graphs,
    graph_of,
    note_storage,
    sequence_of,
)
from holdwater.probes.devices import loaded

_SEQUENCES, _TEXTS = ids_of(list, tuple), ids_of(str, bytes, bytearray)
_TEE: type = type(itertools.tee(())[0])
_LINK: type = vars(itertools)["_tee_dataobject"]
_CACHED: type = type(functools.lru_cache(len))
_BUFFERS = ids_of(io.StringIO, io.BytesIO, array.array, _TEE)
_TABLES = frozenset(("pandas", "scipy"))
"""Libraries whose objects are data that a program makes anew to add to it, as `pandas.concat` does."""
MOST_OF_A_TABLE = 300
"""Objects that are measured of such an object."""
MOST_NAMED_NODES = 15_000
"""Graph nodes that are counted under names."""
MOST_INSTANCES = 2000
"""Instances of the user's own classes whose attributes are read."""
MOST_AT_A_TIME = 300
"""Instances that are read at once."""
LEAST_VALUE = 1024
"""Smaller arrays and strings under a name are ignored."""
SHORT = 64
"""A list of at most this many tensors counts as one value."""
FEW = 16
"""The values of a dictionary of at most this many entries are read one by one."""
MOST_ARRAYS = 512
"""MLX arrays of a tree that are measured."""
MOST_LINKS, MEASURED_LINKS = 20_000, 4
"""Of what a branch of `itertools.tee` has still to give, 57 values each: how many are counted, and measured."""
MANY = MOST_NAMED_NODES // 2
"""A graph of this many nodes is not walked again: only what was added to it is."""


class Sizes(NamedTuple):
    """What a name holds."""

    nodes: int
    """Of graphs."""
    bytes: int
    newest: int = 0
    """The number of the newest node."""
    arrays: int = 0
    """MLX arrays, of which no graph can be counted."""


Named = tuple[Sizes, PathPart, str, bool]
"""What a name holds, how it is held, the value's type, and whether it has the shapes of weights."""


class Names:
    """Graph nodes and bytes under each name of the user's own code."""

    def __init__(self, short: dict[int, int], before: Mapping[tuple[Any, str], Sizes]) -> None:
        """Start empty.

        Args:
            short: Lengths of short dictionaries at the previous count, by identity.
            before: What names held then.
        """
        self.found: dict[tuple[Any, str], Named] = {}
        """What was found, by the name's owner and the name."""
        self.short: dict[int, int] = {}
        """Lengths of dictionaries that are too short for a census to keep, by identity."""
        self.lengthened: dict[int, tuple[int, Any]] = {}
        """Dictionaries that were short before and are longer now, with their gains."""
        self._short_before, self._before = short, before
        self.holders: dict[tuple[Any, str], weakref.ref[Any]] = {}
        """Objects of a library that hold what grows as an attribute: who holds them is of interest."""
        self._weights: set[tuple[int, ...]] = set()
        self._places: dict[int, int] = {}
        self._left = MOST_NAMED_NODES
        self._instances = MOST_INSTANCES

    @cached_property
    def _owners(self) -> dict[str, str]:
        """The user's modules, with their files; made when it is needed: a count's turns may each prepare one."""
        return {module.name: module.file for module in users_modules()}

    def visit(self, chunk: list[Any], kinds: set[type]) -> Iterator[Any]:
        """Read the attributes of instances of the user's own classes, and return the instances.

        Args:
            chunk: Some objects.
            kinds: Their types.
        """
        of_libraries = kinds & cache_kinds()
        owned = {kind for kind in kinds if module_of(kind) in self._owners} | of_libraries
        instances = list(only(chunk, owned)) if owned else []
        count = min(self._instances, MOST_AT_A_TIME)
        for item in instances[-count:] if count else ():
            kind = type(item)
            where = (full_name_of(kind), self._owners.get(module_of(kind)))
            for name, value in self._attributes_of(item):
                self._note((id(item), name), value, PathPart("attribute", name, *where))
                if kind in of_libraries and (id(item), name) in self.found:
                    self._note_cache((id(item), name), item)
        self._instances -= min(len(instances), count)
        if type in kinds:
            self._visit_classes([kind for kind in only(chunk, {type}) if module_of(kind) in self._owners])
        return iter(instances)

    def _visit_classes(self, kinds: list[type]) -> None:
        """Read what the user's classes hold themselves: a cache that all instances share."""
        for kind in kinds[:MOST_AT_A_TIME]:
            where = (full_name_of(kind), self._owners.get(module_of(kind)))
            for name, value in members_of(kind):
                self._note((id(kind), name), value, PathPart("class attribute", name, *where))

    def _note_cache(self, key: tuple[Any, str], cache: Any) -> None:  # noqa: ANN401 - a prompt cache
        """Correct the size of a prompt cache's arrays: only the part that holds tokens grows steadily.

        Tensors of Transformers' cache are made anew for each token, and are as large as what is used.
        """
        sizes, part, kind, like = self.found[key]
        part_used = part_in_use(cache) if sizes.arrays else 1.0
        used = sizes._replace(bytes=int(sizes.bytes * part_used))
        self.found[key] = (used, part, kind, like)
        self.holders[key] = weakref.ref(cache)

    def _attributes_of(self, item: Any) -> list[tuple[str, Any]]:  # noqa: ANN401 - any object
        """The attributes of an instance; those of a module of MLX are its entries."""
        if not is_module(item):
            named = attributes(item)
            self._note_dict(namespace_of(item), at_most=MOST_PARTS)  # a census knows it from now on
            return named
        self._note_dict(item, at_most=MOST_PARTS)
        entries = list(dict.items(item)) if len(item) <= MOST_PARTS else []
        return [*attributes(item), *(pair for pair in entries if not is_module(pair[1]))]

    def note_weights(self, tensors: list[Any]) -> None:
        """Record the shapes and addresses of what optimizers train.

        Args:
            tensors: All live tensors.
        """
        for item in tensors:
            shape = _weights_shape(item)
            if shape is not None:
                self._weights.add(shape)
                note_storage(item, self._places)

    def visit_names(self) -> None:
        """Read the names of the user's modules and of running functions."""
        for module in users_modules():
            for name, value in list(module.names.items()):
                self._note((module.name, name), value, PathPart("global", name, module.name, module.file))
        for owner, name, value, part in local_names():
            self._note((owner, name), value, part)

    def _note(self, key: tuple[Any, str], value: Any, part: PathPart) -> None:  # noqa: ANN401 - any value
        """Record what one name holds."""
        if type(value) is _CACHED:
            for table in only(gc.get_referents(value), {dict}):
                self._note_dict(table)
        elif type(value) is dict:
            self._note_entries(key, value, part)
        elif not self._note_tree(key, value, part):
            sizes = self._measure(value, self._before.get(key))
            if sizes is not None:
                like = is_one_of(value, _SEQUENCES) and all(_plain_shape(item) in self._weights for item in value)
                self.found[key] = (sizes, part, name_of(type(value)), like)

    def _note_entries(self, key: tuple[Any, str], value: dict[Any, Any], part: PathPart) -> None:
        """Record a dictionary, and what a short one holds, such as totals by name."""
        self._note_dict(value)
        if self._note_tree(key, value, part):
            return
        few = list(dict.items(value)) if len(value) <= FEW else ()
        for inside, item in few:
            if type(inside) is str and type(item) is not dict:
                self._note((key, inside), item, part)

    def _note_tree(self, key: tuple[Any, str], value: Any, part: PathPart) -> bool:  # noqa: ANN401 - any value
        """Record a name that holds MLX arrays, alone or in a tree; return whether it does."""
        arrays = [] if is_module(value) else list(islice(leaves(value), MOST_ARRAYS))
        if arrays:
            sizes = Sizes(0, sum(map(size_of_array, arrays)), arrays=len(arrays))
            self.found[key] = (sizes, part, name_of(type(value)), False)
        return bool(arrays)

    def _note_dict(self, value: dict[Any, Any], *, at_most: int = LEAST_LENGTH - 1) -> None:
        """Record a dictionary that is short, or was."""
        before = self._short_before.get(id(value))
        if len(value) <= at_most:
            self.short[id(value)] = len(value)
        if before is not None and len(value) - before >= LEAST_GAIN:
            self.lengthened[id(value)] = (len(value) - before, value)

    def _measure(self, value: Any, before: Sizes | None) -> Sizes | None:  # noqa: ANN401 - any value
        """What a value holds; None if it is of a kind that does not grow under its name."""
        tensor, ndarray = class_of("torch", "Tensor"), class_of("numpy", "ndarray")
        if is_a(value, tensor):
            return self._measure_tensors([value], before)
        if is_one_of(value, _SEQUENCES) and 0 < len(value) <= SHORT and all(is_a(part, tensor) for part in value):
            return self._measure_tensors(list(value), before)
        if is_one_of(value, _TEXTS):
            return Sizes(0, len(value)) if len(value) >= LEAST_VALUE else None
        if is_one_of(value, _BUFFERS) or is_a(value, ndarray):
            is_array = is_a(value, ndarray)
            size = int(ndarray.nbytes.__get__(value)) if is_array else _size_of_buffer(value)
            return Sizes(0, size) if size >= LEAST_VALUE else None
        if module_of(type(value)).partition(".")[0] in _TABLES and not is_a(value, type):
            size = ObjectWeights().weigh([value], MOST_OF_A_TABLE).total
            return Sizes(0, size) if size >= LEAST_VALUE else None
        return None

    def _measure_tensors(self, tensors: list[Any], before: Sizes | None) -> Sizes:
        """Graph nodes, and bytes of storages: their own and those that the graphs have saved."""
        storages: dict[int, int] = {}
        functions = [graph for graph in map(graph_of, tensors) if graph is not None]
        newest = max(map(sequence_of, functions), default=0)
        known = before if before is not None and before.nodes >= MANY and before.newest else None
        border = None if known is None else Border(known.newest)
        nodes = follow_graphs(functions, storages, max(self._left, 0), border=border) if functions else 0
        self._left -= nodes
        if known is not None and border is not None and border.met:
            added = sum(size for place, size in storages.items() if place not in self._places)
            return Sizes(known.nodes + nodes, known.bytes + added, newest)
        for tensor in tensors:
            note_storage(tensor, storages)
        return Sizes(nodes, sum(storages.values()), newest)


def cache_kinds() -> set[type]:
    """Classes of libraries whose attributes hold keys and values: MLX's prompt caches, layers of Transformers'."""
    layer = class_of("transformers.cache_utils", "CacheLayerMixin")
    known = loaded("transformers.cache_utils") is not None
    return library_kinds() | (with_subclasses(layer) if known else set())


def _size_of_buffer(value: object) -> int:
    """Bytes of a stream in memory, or of an array of numbers; what a branch of `itertools.tee` has yet to give.

    That is a linked list, whose first links are measured.
    """
    if type(value) is not _TEE:
        return size_of(value)
    links, size, measured = 0, 0, 0
    link = next((part for part in gc.get_referents(value) if type(part) is _LINK), None)
    while link is not None and links < MOST_LINKS:
        inside, links = gc.get_referents(link), links + 1
        link = next((part for part in inside if type(part) is _LINK), None)
        if measured < MEASURED_LINKS:
            size += ObjectWeights().weigh([part for part in inside if type(part) is not _LINK], MOST_PARTS).total
            measured += 1
    return size * links // max(measured, 1)


def _plain_shape(item: Any) -> tuple[int, ...] | None:  # noqa: ANN401 - a tensor
    """The shape of a plain tensor; None for a subclass, whose own code would be called."""
    plain = type(item) is class_of("torch", "Tensor") or type(item) is class_of("torch.nn", "Parameter")
    return tuple(item.shape) if plain else None


def _weights_shape(item: Any) -> tuple[int, ...] | None:  # noqa: ANN401 - a tensor
    """The shape of a tensor that an optimizer trains; None for other tensors."""
    return _plain_shape(item) if type(item) is class_of("torch.nn", "Parameter") else None


def local_names() -> Iterator[tuple[Any, str, Any, PathPart]]:
    """Variables of all running functions except our own."""
    for frame in running_frames():
        code = frame.f_code
        for name, value in local_items(frame):
            yield code, name, value, PathPart("local", name, code.co_name, code.co_filename, code.co_firstlineno)
