"""What grows in place of its name: a sum that carries its graph, a tensor or text that is concatenated to."""

import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

from holdwater.attribution.census import LEAST_LENGTH, Seen, only
from holdwater.attribution.frames import local_items, running_frames
from holdwater.attribution.links import Part, attributes
from holdwater.attribution.user_code import users_modules
from holdwater.attribution.weights import class_of, follow_graphs, note_storage

MOST_NAMED_NODES = 20_000
"""Graph nodes that are counted behind names."""
MOST_INSTANCES = 2000
"""Instances of the user's own classes whose attributes are looked at."""
LEAST_VALUE = 1024
"""Arrays and texts under a name are looked at from this size on."""
SHORT = 64
"""A list of at most so many tensors counts as one value."""
Named = tuple[tuple[int, int], Part, str, bool]
"""Graph nodes and bytes behind a name, how it is held, the value's type, whether it is shaped as weights are."""


def named_sizes(seen: Seen) -> Iterator[tuple[tuple[Any, str], Named]]:
    """Graph nodes and bytes behind each name of the user's own code.

    Args:
        seen: What a census has found.
    """
    left = MOST_NAMED_NODES
    weights = {shape for item in seen.tensors if (shape := _weights_shape(item)) is not None}
    for owner, name, value, part in _names(seen):
        sizes = _measure(value, left)
        if sizes is not None:
            left -= sizes[0]
            like = isinstance(value, list | tuple) and all(_plain_shape(item) in weights for item in value)
            yield (owner, name), (sizes, part, type(value).__name__, like)


def short_dicts(seen: Seen) -> list[dict[Any, Any]]:
    """The dictionaries under names of the user's own code that a census takes for too short to be remembered.

    Args:
        seen: What a census has found.
    """
    found = {
        id(value): value for *_, value, _ in _names(seen) if type(value) is dict and len(value) < LEAST_LENGTH
    }
    return list(found.values())


def _plain_shape(item: Any) -> tuple[int, ...] | None:  # noqa: ANN401 - a tensor
    """The shape of a plain tensor; None of a subclass's, whose own code would be called."""
    plain = type(item) is class_of("torch", "Tensor") or type(item) is class_of("torch.nn", "Parameter")
    return tuple(item.shape) if plain else None


def _weights_shape(item: Any) -> tuple[int, ...] | None:  # noqa: ANN401 - a tensor
    """The shape of what an optimizer trains; None of other tensors."""
    return _plain_shape(item) if type(item) is class_of("torch.nn", "Parameter") else None


def _names(seen: Seen) -> Iterator[tuple[Any, str, Any, Part]]:
    """Names of the user's modules, of running functions, and attributes of instances of the user's classes."""
    modules = users_modules()
    for module in modules:
        for name, value in list(vars(module).items()):
            yield module.__name__, name, value, Part("global", name, module.__name__, module.__file__)
    yield from _local_names()
    owners = {module.__name__: module.__file__ for module in modules}
    kinds = {kind for kind in seen.kinds if kind.__module__ in owners}
    for item in deque(only(seen.objects, kinds) if kinds else (), maxlen=MOST_INSTANCES):
        kind = type(item)
        where = (f"{kind.__module__}.{kind.__qualname__}", owners[kind.__module__])
        for name, value in attributes(item):
            yield id(item), name, value, Part("attribute", name, *where)


def _measure(value: Any, left: int) -> tuple[int, int] | None:  # noqa: ANN401 - any value
    """Graph nodes and bytes behind a value; None for what does not grow in place of its name."""
    tensor = class_of("torch", "Tensor")
    if isinstance(value, tensor):
        return _measure_tensors([value], left)
    if (
        isinstance(value, list | tuple)
        and 0 < len(value) <= SHORT
        and all(isinstance(part, tensor) for part in value)
    ):
        return _measure_tensors(list(value), left)
    if isinstance(value, str | bytes | bytearray):
        return (0, len(value)) if len(value) >= LEAST_VALUE else None
    array = getattr(sys.modules.get("numpy"), "ndarray", None)
    if array is not None and isinstance(value, array):
        return (0, int(value.nbytes)) if value.nbytes >= LEAST_VALUE else None
    return None


def _measure_tensors(tensors: list[Any], left: int) -> tuple[int, int]:
    """Graph nodes, and bytes of storages, their own and those that the graphs have saved."""
    storages: dict[int, int] = {}
    functions = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    nodes = follow_graphs(functions, storages, most=max(left, 0)) if functions else 0
    for tensor in tensors:
        note_storage(tensor, storages)
    return nodes, sum(storages.values())


def _local_names() -> Iterator[tuple[Any, str, Any, Part]]:
    """Variables of all running functions but our own."""
    for frame in running_frames():
        code = frame.f_code
        for name, value in local_items(frame):
            yield code, name, value, Part("local", name, code.co_name, code.co_filename, code.co_firstlineno)
