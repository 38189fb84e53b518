"""Trees of MLX arrays: nested dictionaries and lists, such as the parameters of a model."""

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten


def flat(tree: Any) -> dict[str, mx.array]:  # noqa: ANN401 - any tree
    """The arrays of a tree by their dotted names.

    Args:
        tree: Of arrays only.
    """
    pairs: Any = tree_flatten(tree)
    return dict(pairs)


def leaves(tree: Any) -> Iterator[tuple[Any, Any, mx.array]]:  # noqa: ANN401
    """Each array of a tree, with the dictionary or list that holds it and its place there.

    Args:
        tree: May hold more than arrays.
    """
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for name, value in pairs:
        if isinstance(value, mx.array):
            yield tree, name, value
        elif isinstance(value, dict | list):
            yield from leaves(value)
