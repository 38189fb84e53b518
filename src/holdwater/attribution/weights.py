"""What objects weigh: their own bytes, the storages of tensors, what graphs keep, the pixels of images.

Nodes of autograd graphs are followed from the tensors that Python holds: what only a graph keeps is found there.
Storages are counted once however many tensors share them.
"""

import gc
import sys
import types
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

MOST_NODES = 30_000
"""Graph nodes that one census follows."""
MOST_WALKED = 20_000
"""Objects that one census weighs in what containers have gained."""
LEAST_BULK = 1024
"""Arrays, texts and byte strings from this size on are counted one by one."""
NODE_BYTES = 400
"""A graph node and its links, about: measured 350 to 500 bytes with torch 2.13."""


@dataclass(slots=True)
class Weight:
    """Bytes by what they belong to."""

    tensors: int = 0
    """Tensor storages on the host, those kept by graphs included."""
    python: int = 0
    """Python objects and numpy arrays."""
    native: int = 0
    """Images and graph nodes."""
    device: int = 0
    """Tensor storages on a device."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.tensors + self.python + self.native + self.device


def note_storage(tensor: Any, storages: dict[int, int]) -> None:  # noqa: ANN401 - a tensor
    """Note a tensor's storage by its address, a device's by the address below zero; fake ones have none."""
    try:
        kind = tensor.device.type
        if kind != "meta":
            storage = tensor.untyped_storage()
            address = storage.data_ptr()
            storages[address if kind == "cpu" else -1 - address] = storage.nbytes()
    except (RuntimeError, NotImplementedError, AttributeError):
        return


def _note_new_storage(tensor: Any, storages: dict[int, int]) -> None:  # noqa: ANN401 - a tensor
    """Note a storage unless it is known."""
    found: dict[int, int] = {}
    note_storage(tensor, found)
    for address, size in found.items():
        storages.setdefault(address, size)


def follow_graphs(functions: list[Any], storages: dict[int, int], most: int = MOST_NODES) -> int:
    """Walk the graphs behind tensors, note the storages that they keep, and count their nodes.

    Args:
        functions: Where to begin.
        storages: Sizes of storages by address; what the nodes have saved is added.
        most: Nodes that are walked at most.
    """
    seen: set[Any] = set()
    saved_names: dict[type, list[str]] = {}
    waiting = list(functions)
    while waiting and len(seen) < most:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        kind = type(node)
        names = saved_names.get(kind)
        if names is None:
            names = saved_names[kind] = [name for name in dir(node) if name.startswith("_saved_")]
        for name in names:
            _note_saved(node, name, storages)
        waiting.extend(function for function, _ in node.next_functions if function is not None)
    return len(seen)


def _note_saved(node: Any, name: str, storages: dict[int, int]) -> None:  # noqa: ANN401 - a node of a graph
    """Note what one attribute of a node keeps; after backward it has been given back."""
    try:
        value = getattr(node, name)
    except (RuntimeError, NotImplementedError, AttributeError):
        return
    for item in value if isinstance(value, tuple | list) else (value,):
        if hasattr(item, "untyped_storage"):
            note_storage(item, storages)


def _image_bytes(image: Any) -> int:  # noqa: ANN401 - a PIL image
    """The pixels of a decoded image; 0 while it is only a file."""
    if getattr(image, "_im", None) is None and image.__dict__.get("im") is None:
        return 0
    try:
        width, height = image.size
        return int(width * height * (1 if image.mode in {"1", "L", "P"} else 4))
    except (TypeError, ValueError, AttributeError):
        return 0


def owner_of(item: Any, array: Any) -> tuple[Any, int]:  # noqa: ANN401 - an array, a text, bytes
    """What holds the memory of an object, and how much; an array may be a view of another, or of a tensor."""
    if not isinstance(item, array):
        return item, sys.getsizeof(item)
    while isinstance(item.base, array):
        item = item.base
    if item.base is None:
        return item, item.nbytes
    return item, sys.getsizeof(item.base) if isinstance(item.base, bytes | bytearray) else 0


def newest(item: Any, gain: int) -> list[Any]:  # noqa: ANN401 - a container
    """The elements that a container has gained, as far as its order tells."""
    gain = min(gain, MOST_WALKED)
    try:
        if isinstance(item, dict):
            return [part for key in islice(reversed(item), gain) for part in (key, item[key])]
        if isinstance(item, set):
            return list(islice(item, gain))
        return list(islice(reversed(item), gain))
    except (RuntimeError, KeyError, TypeError):  # another thread changes it
        return []


def weigh(
    roots: Iterable[Any],
    skip: Iterable[int] = (),
    known: Iterable[int] = (),
    *,
    bulk: bool = True,
    most: int = 5 * MOST_WALKED,
) -> Weight:
    """Add up what objects weigh, with all that they lead to: modules, classes and code are left out.

    Args:
        roots: Where to begin.
        skip: Identities of objects that are not gone into.
        known: Addresses of storages that are not counted.
        bulk: Count arrays, texts and bytes of a kilobyte or more too.
        most: Objects that are walked at most.
    """
    weight = Weight()
    storages: dict[int, int] = dict.fromkeys(known, 0)
    functions: list[Any] = []
    seen, owners, waiting = set(skip), set[int](), deque(roots)
    tensor, array = class_of("torch", "Tensor"), class_of("numpy", "ndarray")
    most += len(seen)
    while waiting and len(seen) < most:
        item = waiting.popleft()
        if id(item) in seen or isinstance(item, _NOT_FOLLOWED):
            continue
        seen.add(id(item))
        if isinstance(item, types.FunctionType):
            waiting.extend((*(item.__closure__ or ()), *(item.__defaults__ or ())))
        elif isinstance(item, tensor):
            _note_new_storage(item, storages)
            functions += [] if item.grad_fn is None else [item.grad_fn]
            weight.python += 100
        elif isinstance(item, array):
            owner, size = owner_of(item, array)
            weight.python += 0 if id(owner) in owners or not (bulk or size < LEAST_BULK) else size
            owners.add(id(owner))
        else:
            _weigh_plain(item, weight, bulk=bulk)
            waiting.extend(gc.get_referents(item))
    return _with_graphs(weight, functions, storages)


def _with_graphs(weight: Weight, functions: list[Any], storages: dict[int, int]) -> Weight:
    """Add the graphs behind tensors, and all storages but those that are known, whose size is set to 0."""
    kept: dict[int, int] = {}
    weight.native += NODE_BYTES * follow_graphs(functions, kept)
    found = kept | storages
    weight.tensors = host_bytes(found)
    weight.device = sum(found.values()) - weight.tensors
    return weight


def host_bytes(storages: dict[int, int]) -> int:
    """Bytes of the storages that lie on the host."""
    return sum(size for address, size in storages.items() if address >= 0)


def _weigh_plain(item: Any, weight: Weight, *, bulk: bool) -> None:  # noqa: ANN401 - any object
    """Add one object that is neither tensor nor array."""
    if isinstance(item, class_of("PIL.Image", "Image")):
        weight.native += _image_bytes(item)
    size = sys.getsizeof(item, 64)
    large = size >= LEAST_BULK and isinstance(item, bytes | bytearray | str)
    weight.python += size if bulk or not large else 0


def class_of(module: str, name: str) -> Any:  # noqa: ANN401 - a class
    """A class of a module, if that is loaded; else one that nothing is an instance of."""
    return getattr(sys.modules.get(module), name, _Nothing)


class _Nothing:
    """Stands for a class that is not loaded: nothing is an instance of it."""


_NOT_FOLLOWED = (type, types.ModuleType, types.CodeType, types.BuiltinFunctionType)
"""Classes, modules, functions, code: shared, and not what grows."""
