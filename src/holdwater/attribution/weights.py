"""Measure the sizes of objects: their own bytes, storages of tensors, what graphs keep, pixels of images.

Nodes of autograd graphs are followed from the tensors that Python holds: what only a graph keeps is found there.
Storages are counted once however many tensors share them.
"""

import gc
import sys
from collections import deque
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any

from holdwater.attribution.kinds import (
    DEFINING,
    UNREADABLE,
    attributes,
    class_of,
    defined_by,
    ids_of,
    is_a,
    is_one_of,
    size_of,
)
from holdwater.attribution.mapped import bytes_of_files
from holdwater.attribution.mlx_arrays import ARRAY_BYTES, size_of_array
from holdwater.attribution.roles import HANDLES, Role, loaded_roles, role_of
from holdwater.probes.devices import graph_pools, mlx_is_on_the_host
from holdwater.signal_errors import not_the_scripts

MOST_NODES = 20_000
"""Graph nodes that one census follows: 25 ms, for it is done between two steps."""
MOST_WALKED = 20_000
"""Objects that one census measures in what containers have gained."""
LEAST_BULK = 1024
"""Arrays, strings and byte strings of this size or more are counted one by one."""
_NO_NUMBER = 1 << 63
"""Nodes that accumulate gradients have a number above all others: they belong to parameters, and are old."""
_PLAIN, _BYTES = ids_of(tuple, list), ids_of(bytes, bytearray)
NODE_BYTES = 400
"""The approximate size of a graph node and its links: measured 350 to 500 bytes with torch 2.13."""


@dataclass(slots=True)
class Weight:
    """Bytes by kind of object."""

    tensors: int = 0
    """Tensor storages on the host, including those kept by graphs."""
    python: int = 0
    """Python objects and numpy arrays."""
    native: int = 0
    """Images and graph nodes."""
    device: int = 0
    """Tensor storages on a device."""
    files: int = 0
    """Bytes of mapped files and shared memory: pages of another kind, not part of the total."""
    handles: int = 0
    """Open files, sockets, threads and processes: a number."""
    arrays: int = 0
    """MLX arrays: a number."""
    array_bytes: int = 0
    """Bytes of MLX arrays, which are part of the tensors."""

    @property
    def total(self) -> int:
        """All of it that is this process's own."""
        return self.tensors + self.python + self.native + self.device

    def add(self, other: "Weight", times: float = 1.0) -> None:
        """Add the size of some objects, times a factor."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + int(times * getattr(other, name)))


def graph_of(tensor: Any) -> Any:  # noqa: ANN401 - a node of a graph
    """The graph of a tensor, even if its class redefines `grad_fn`; None if there is none."""
    try:
        return class_of("torch", "Tensor").grad_fn.__get__(tensor)
    except not_the_scripts(*UNREADABLE):
        return None


def note_storage(tensor: Any, storages: dict[int, int]) -> None:  # noqa: ANN401 - a tensor
    """Record a tensor's storage by its address, a device's by the negative address; fake tensors have none."""
    base = class_of("torch", "Tensor")
    try:
        kind = base.device.__get__(tensor).type
        if kind != "meta":
            storage = base.untyped_storage(tensor)
            address = storage.data_ptr()
            storages[address if kind == "cpu" else -1 - address] = storage.nbytes()
    except not_the_scripts(*UNREADABLE):
        return


def follow_graphs(
    functions: list[Any], storages: dict[int, int], most: int = MOST_NODES, *, border: "Border | None" = None
) -> int:
    """Walk the graphs of tensors, record the storages that they keep, and count their nodes.

    Args:
        functions: Where to begin.
        storages: Sizes of storages by address; what the nodes have saved is added.
        most: The most nodes that are walked.
        border: Older nodes are not walked; None walks all.
    """
    seen: set[Any] = set()
    saved_names: dict[int, list[str]] = {}
    waiting = list(functions)
    while waiting and len(seen) < most:
        node = waiting.pop()
        if node in seen or (border is not None and border.is_reached(node)):
            continue
        seen.add(node)
        kind = type(node)
        names = saved_names.get(id(kind))
        if names is None:  # `_saved_self` itself may call the program's own function that restores it
            names = [f"_raw{name}" for name in dir(kind) if name.startswith("_saved_")]
            names = saved_names[id(kind)] = [name for name in names if hasattr(kind, name)]
        for name in names:
            _note_saved(node, name, storages)
        waiting.extend(function for function, _ in node.next_functions if function is not None)
    return len(seen)


@dataclass(slots=True)
class Border:
    """Where the older part of a graph begins."""

    newest: int
    """The number of its newest node."""
    met: bool = False
    """Whether a walk has reached it: a new graph has no older part."""

    def is_reached(self, node: Any) -> bool:  # noqa: ANN401 - a node of a graph
        """Whether a node is not to be walked: it belongs to the older part, or accumulates a gradient."""
        number = sequence_of(node)
        self.met |= number <= self.newest
        return number <= self.newest or number >= _NO_NUMBER


def sequence_of(node: Any) -> int:  # noqa: ANN401 - a node of a graph
    """The sequence number of a node in its thread; 0 if it has none."""
    try:
        return int(node._sequence_nr())  # noqa: SLF001 - there is no public API
    except not_the_scripts(*UNREADABLE):
        return 0


def _note_saved(node: Any, name: str, storages: dict[int, int]) -> None:  # noqa: ANN401 - a node of a graph
    """Record what one attribute of a node keeps; after backward it has been freed.

    A tensor that hooks have packed is not restored: recomputing an activation would run the program's code.
    """
    try:
        found = getattr(node, name)
        saved = [each.data for each in (found if is_one_of(found, _PLAIN) else (found,))]
    except not_the_scripts(*UNREADABLE):
        return
    tensor = class_of("torch", "Tensor")
    for value in saved:
        for item in value if is_one_of(value, _PLAIN) else (value,):
            if is_a(item, tensor):
                note_storage(item, storages)


def _image_bytes(image: Any) -> int:  # noqa: ANN401 - a PIL image
    """The pixels of a decoded image; 0 while it is only a file."""
    try:
        parts = dict(attributes(image))
        if parts.get("_im") is None and parts.get("im") is None:
            return 0
        width, height = parts.get("_size") or (0, 0)
        return int(width * height * (1 if (parts.get("_mode") or parts.get("mode")) in {"1", "L", "P"} else 4))
    except not_the_scripts(*UNREADABLE):
        return 0


def owner_of(item: Any, array: Any) -> tuple[Any, int]:  # noqa: ANN401 - an array, a text, bytes
    """The owner of an object's memory, and its size; an array may be a view of another, or of a tensor."""
    if not is_a(item, array):
        return item, size_of(item)
    base = array.base.__get__(item)
    while is_a(base, array):
        item, base = base, array.base.__get__(base)
    if base is None:
        return item, array.nbytes.__get__(item)
    return item, sys.getsizeof(base) if is_one_of(base, _BYTES) else 0


def _base_of(item: Any, array: Any) -> Any:  # noqa: ANN401 - an array and its class
    """The owner of an array's memory; None if it is the array's own."""
    base = array.base.__get__(item)
    while is_a(base, array):
        base = array.base.__get__(base)
    return base.obj if type(base) is memoryview else base


def _mapping_of(item: Any) -> tuple[int, int]:  # noqa: ANN401 - any object
    """The identity of a mapping of a file or of shared memory, and its bytes; 0 for anything else."""
    try:
        kind = class_of("mmap", "mmap")
        return id(item), kind.__len__(item) if is_a(item, kind) else 0
    except not_the_scripts(*UNREADABLE):
        return id(item), 0


def _shared_storage(item: Any) -> tuple[int, int]:  # noqa: ANN401 - a tensor
    """The address of a tensor's storage, and its bytes if it is in shared memory; else 0."""
    base = class_of("torch", "Tensor")
    try:
        if base.device.__get__(item).type != "cpu":
            return 0, 0
        storage = base.untyped_storage(item)
        return (storage.data_ptr(), storage.nbytes()) if storage.is_shared() else (0, 0)
    except not_the_scripts(*UNREADABLE):
        return 0, 0


class ObjectWeights:
    """Measures objects with all that they lead to, each once; modules, classes and code are left out."""

    def __init__(self, skip: Container[int] = (), known: Iterable[int] = (), *, bulk: bool = True) -> None:
        """Prepare to measure.

        Args:
            skip: Identities of objects that are not visited.
            known: Addresses of storages that are not counted.
            bulk: Count arrays, strings and bytes of a kilobyte or more too.
        """
        self._skip, self._bulk = skip, bulk
        self._storages: dict[int, int] = dict.fromkeys(known, 0)
        self._owners = set[int]()
        self._pools: dict[tuple[int, ...], int] | None = None
        self.seen = set[int]()
        """Identities of measured objects."""

    def weigh(self, roots: Iterable[Any], most: int = 5 * MOST_WALKED) -> Weight:
        """Add up the sizes of objects that were not measured before.

        Args:
            roots: Where to begin.
            most: The most objects that are walked.
        """
        weight, functions, storages = Weight(), list[Any](), dict[int, int]()
        waiting, roles, loaded = self._opened(roots, weight), dict[int, Role](), loaded_roles()
        most += len(self.seen)
        while waiting and len(self.seen) < most:
            item = waiting.popleft()
            if id(item) in self.seen or id(item) in self._skip:
                continue
            kind = type(item)
            role = roles.get(id(kind)) or roles.setdefault(id(kind), role_of(kind, loaded))
            if role == "not followed":
                continue
            self.seen.add(id(item))
            if role == "function":
                waiting.extend(_of_function(item))
            elif role == "tensor":
                note_storage(item, storages)
                functions.append(graph_of(item))
                weight.python += 100
                self._weigh_shared(item, weight)
            else:
                self._weigh_other(item, role, weight)
                waiting.extend(_referents(item) if role != "array" else ())
        self._add_storages(weight, functions, storages)
        return weight

    def _opened(self, roots: Iterable[Any], weight: Weight) -> deque[Any]:
        """The roots, with what classes and modules among them define: those are new, others are shared."""
        opened = deque(roots)
        for item in [one for one in opened if is_a(one, DEFINING) and id(one) not in self.seen]:
            self.seen.add(id(item))
            weight.python += type.__sizeof__(item) if is_a(item, type) else 0
            opened.extend(defined_by(item))
        return opened

    def weigh_some(self, roots: list[Any], most: int, *, unit: int = 1) -> tuple[Weight, int]:
        """Measure as many objects as possible, each with all that it leads to.

        Args:
            roots: The objects.
            most: Approximately how many objects are walked; the first root is walked whole up to 20,000.
            unit: Number of roots that belong together.

        Returns:
            The size of some of the roots, and how many these are.
        """
        before = len(self.seen)
        weight = self.weigh(roots[:unit], MOST_WALKED)
        each = max(len(self.seen) - before, 1)
        number = min(max(most // each, 1) * unit, len(roots))
        if number > unit:
            weight.add(self.weigh(roots[unit:number], max(most - each, each)))
        return weight, number

    def _array(self, item: Any, array: Any) -> int:  # noqa: ANN401 - an array and its class
        """Bytes of an array whose memory was not measured before."""
        owner, size = owner_of(item, array)
        fresh = id(owner) not in self._owners and (self._bulk or size < LEAST_BULK)
        self._owners.add(id(owner))
        return size if fresh else 0

    def _weigh_shared(self, item: Any, weight: Weight) -> None:  # noqa: ANN401 - a tensor
        """Add the shared memory of a tensor, if it has some: a process that received it keeps its descriptor."""
        size = self._mapping(*_shared_storage(item))
        weight.files += size
        weight.handles += size > 0

    def _weigh_other(self, item: Any, role: Role, weight: Weight) -> None:  # noqa: ANN401 - any object
        """Add one object that is neither a tensor of torch nor a function."""
        if role == "array":
            array = class_of("numpy", "ndarray")
            weight.python += self._array(item, array)
            weight.files += self._mapping(*_mapping_of(_base_of(item, array)))
            return
        if role == "MLX array":
            _weigh_mlx_array(item, weight)
            return
        size = size_of(item)
        large = size >= LEAST_BULK and is_a(item, (bytes, bytearray, str))
        weight.python += size if self._bulk or not large else 0
        if role == "with more":
            weight.native += _image_bytes(item) if is_a(item, class_of("PIL.Image", "Image")) else 0
            weight.handles += is_a(item, tuple(class_of(*name) for name in HANDLES))
            weight.device += self._graph_pool(item)
            weight.files += self._mapping(*_mapping_of(item))

    def _graph_pool(self, item: Any) -> int:  # noqa: ANN401 - any object
        """Bytes that a CUDA graph keeps in a private pool that was not measured before; 0 for anything else."""
        base = class_of("torch._C", "_CUDAGraph")
        if not is_a(item, base):
            return 0
        try:
            pool = tuple(base.pool(item))
        except not_the_scripts(*UNREADABLE):
            return 0
        if self._pools is None:
            self._pools = graph_pools()
        return self._pools.pop(pool, 0)

    def _mapping(self, key: int, size: int) -> int:
        """Bytes of a mapping that was not measured before."""
        fresh = size > 0 and key not in self._owners
        self._owners.add(key)
        return size if fresh else 0

    def _add_storages(self, weight: Weight, functions: list[Any], storages: dict[int, int]) -> None:
        """Add the graphs of tensors, and the storages that are not known."""
        graphs = [function for function in functions if function is not None]
        weight.native += NODE_BYTES * follow_graphs(graphs, storages)
        fresh = {address: size for address, size in storages.items() if address not in self._storages}
        self._storages |= fresh
        of_files = bytes_of_files(fresh)
        weight.tensors += host_bytes(fresh) - of_files
        weight.files += of_files
        weight.device += sum(fresh.values()) - host_bytes(fresh)


def _weigh_mlx_array(item: Any, weight: Weight) -> None:  # noqa: ANN401 - an array
    """Add an array as if it had been evaluated and shared its memory with no other."""
    size = size_of_array(item)
    weight.arrays += 1
    weight.array_bytes += size
    weight.python += sys.getsizeof(item)
    weight.native += ARRAY_BYTES
    if mlx_is_on_the_host():
        weight.tensors += size
    else:
        weight.device += size


def weigh(
    roots: Iterable[Any],
    skip: Container[int] = (),
    known: Iterable[int] = (),
    *,
    bulk: bool = True,
    most: int = 5 * MOST_WALKED,
) -> Weight:
    """Add up the sizes of objects with all that they lead to; the arguments are those of `ObjectWeights`."""
    return ObjectWeights(skip, known, bulk=bulk).weigh(roots, most)


def host_bytes(storages: dict[int, int]) -> int:
    """Bytes of the storages on the host."""
    return sum(size for address, size in storages.items() if address >= 0)


def _of_function(function: Any) -> list[Any]:  # noqa: ANN401 - a function
    """What a function keeps of its own: the variables of its closure, and the defaults of its parameters."""
    by_name = (function.__kwdefaults__ or {}).values()
    return [*(function.__closure__ or ()), *(function.__defaults__ or ()), *by_name]


def _referents(item: Any) -> list[Any]:  # noqa: ANN401 - any object
    """What an object refers to, including keys that are strings, which the collector does not report."""
    return [*gc.get_referents(item), *(list(dict.keys(item)) if is_a(item, dict) else ())]
