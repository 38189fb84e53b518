"""Measure MLX's arrays without evaluating one: their sizes when evaluated, and what MLX's allocator holds for all.

No public call tells whether an array was evaluated, so `surplus` infers it.

Source: MLX documentation, "Lazy Evaluation" and "Memory Management".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from holdwater.attribution.kinds import (
    UNREADABLE,
    class_of,
    ids_of,
    is_a,
    is_one_of,
    namespace_of,
    with_subclasses,
)
from holdwater.probes.devices import loaded, mlx_is_on_the_host
from holdwater.signal_errors import not_the_scripts

ARRAY_BYTES = 500
"""The size of an array's description beside its elements: measured 500 to 520 bytes with MLX 0.32."""
MOST_PARTS = 64
"""Parts of a list, a tuple or a dictionary that is read as a tree of arrays."""
MOST_LEVELS = 6
TOKENS_AT = 2
"""The dimension of a prompt cache's arrays that counts tokens, from the last."""
_SEQUENCES = ids_of(list, tuple)


@dataclass(frozen=True, slots=True)
class Held:
    """What MLX holds at a count."""

    active: int
    """Bytes of evaluated arrays, including those that only graphs keep."""
    cache: int
    """Bytes of freed buffers that are kept for reuse."""

    def since(self, before: "Held") -> "Held":
        """The differences from an earlier count.

        Args:
            before: At that count.
        """
        return Held(self.active - before.active, self.cache - before.cache)


def held_now() -> Held | None:
    """What MLX holds now; None if the program has not loaded it, or it cannot be asked."""
    mlx = loaded("mlx.core")
    if mlx is None:
        return None
    try:
        return Held(int(mlx.get_active_memory()), int(mlx.get_cache_memory()))
    except not_the_scripts(*UNREADABLE):
        return None


def active_on_the_host() -> int:
    """Bytes of MLX's arrays that are in host memory; 0 if MLX uses a device, or is not loaded."""
    held = held_now() if mlx_is_on_the_host() else None
    return 0 if held is None else held.active


def array_class() -> Any:  # noqa: ANN401 - a class
    """The class of MLX's arrays; a class without instances if it is not loaded."""
    return class_of("mlx.core", "array")


def size_of_array(array: Any) -> int:  # noqa: ANN401 - an MLX array
    """Bytes of an array's elements when it has been evaluated: by its shape, for nothing is computed.

    Args:
        array: The array.
    """
    try:
        return int(array_class().nbytes.__get__(array))
    except not_the_scripts(*UNREADABLE):
        return 0


def leaves(tree: Any, level: int = 0) -> Iterator[Any]:  # noqa: ANN401 - any value
    """The arrays of a tree of lists, tuples and dictionaries, such as gradients or a module.

    Args:
        tree: An array, or a tree of them; anything else has none.
        level: How deep it is within the whole.
    """
    if is_a(tree, array_class()):
        yield tree
    elif level < MOST_LEVELS:
        for part in _parts(tree):
            yield from leaves(part, level + 1)


def is_module(item: Any) -> bool:  # noqa: ANN401 - any object
    """Whether an object is a module of `mlx.nn`: a dictionary of its arrays and modules by attribute."""
    return is_a(item, class_of("mlx.nn.layers.base", "Module"))


def library_kinds() -> set[type]:
    """Classes of MLX's libraries whose attributes may hold arrays that grow: prompt caches."""
    known = loaded("mlx_lm.models.cache") is not None
    return with_subclasses(class_of("mlx_lm.models.cache", "_BaseCache")) if known else set()


def part_in_use(cache: Any) -> float:  # noqa: ANN401 - a prompt cache
    """The part of a prompt cache's arrays that holds tokens: they grow by many tokens at a time.

    Args:
        cache: The cache of one layer; one that only keeps the newest tokens is full from its maximum on.
    """
    names = namespace_of(cache)
    so_far, first = names.get("offset"), next(leaves(names.get("keys")), None)
    shape: list[int] = [] if first is None else list(array_class().shape.__get__(first))
    if type(so_far) is not int or len(shape) < TOKENS_AT or shape[-TOKENS_AT] == 0:
        return 1.0
    return min(so_far / shape[-TOKENS_AT], 1.0)


def _parts(tree: Any) -> list[Any]:  # noqa: ANN401 - any value
    """The elements of a short list, tuple or dictionary; none of anything else."""
    if is_one_of(tree, _SEQUENCES):
        return list(tree) if len(tree) <= MOST_PARTS else []
    if type(tree) is dict or is_module(tree):
        return list(dict.values(tree)) if len(tree) <= MOST_PARTS else []
    return []
