"""States of MLX objects: arrays by their bytes, modules and optimizers in place.

MLX is used only if the script has imported it. Arrays are converted by their bytes, since NumPy has no bfloat16.

Source: MLX documentation, "Module.update", "Optimizer.state", "Compilation" (a compiled step keeps the containers
of the state that it was given, so they must stay the same objects).
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holdwater.resume.introspection import attributes_of

OF_EVERY_MODULE = frozenset(("_no_grad", "_training"))
"""Attributes that are kept with a module's state."""


def is_array(value: object) -> bool:
    """Whether something is an array of MLX.

    Args:
        value: Anything.
    """
    return _is_one(value, "mlx.core", "array")


def is_module(value: object) -> bool:
    """Whether something is a module of MLX.

    Args:
        value: Anything.
    """
    return _is_one(value, "mlx.nn", "Module")


def is_optimizer(value: object) -> bool:
    """Whether something is an optimizer of MLX.

    Args:
        value: Anything.
    """
    return _is_one(value, "mlx.optimizers", "Optimizer")


def _is_one(value: object, module: str, name: str) -> bool:
    """Whether something is an instance of a class of MLX, which the script may not have imported."""
    loaded = sys.modules.get(module)
    return loaded is not None and issubclass(type(value), getattr(loaded, name))


def bytes_of(array: Any) -> Any:  # noqa: ANN401 - MLX may be missing; NumPy's array is given to C functions
    """The bytes of an array, which is evaluated for it. Shape (bytes,).

    Args:
        array: Of MLX.
    """
    mlx = sys.modules["mlx.core"]
    return np.array(array.reshape(-1).view(mlx.uint8)) if array.size else np.zeros(0, np.uint8)


def encode_array(array: Any) -> tuple[Tensor, dict[str, Any]]:  # noqa: ANN401 - as above
    """An array's bytes as a tensor, and what more is needed to make it again.

    Args:
        array: Of MLX.
    """
    about = {"dtype": str(array.dtype).rpartition(".")[2], "shape": list(array.shape)}
    return torch.from_numpy(bytes_of(array)), about


def decode_array(stored: dict[str, Any], tensor: Tensor) -> Any:  # noqa: ANN401 - as above
    """Make an array again.

    Args:
        stored: What `encode_array` has returned.
        tensor: Its bytes.
    """
    import mlx.core as mx  # noqa: PLC0415 - only where MLX is used

    name = str(stored["dtype"])
    kind = mx.bool_ if name == "bool" else getattr(mx, name)
    if not tensor.numel():
        return mx.zeros(stored["shape"], dtype=kind)
    return mx.array(tensor.numpy()).view(kind).reshape(stored["shape"])


def module_state(module: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    """The parameters of a module, which of them are frozen, and which modules evaluate.

    Args:
        module: Of MLX.
    """
    parts = dict(_modules(module))
    return {
        "parameters": dict(parameters(module)),
        "frozen": {name: sorted(part._no_grad) for name, part in parts.items() if part._no_grad},  # noqa: SLF001
        "evaluating": [name for name, part in parts.items() if not part.training],
    }


def set_module_state(module: Any, state: dict[str, Any]) -> None:  # noqa: ANN401 - as above
    """Restore a module, in place.

    Args:
        module: Of MLX.
        state: What `module_state` has returned, in this process or another.
    """
    from mlx.utils import tree_unflatten  # noqa: PLC0415 - only where MLX is used

    module.update(tree_unflatten(list(state["parameters"].items())))
    frozen, evaluating = state["frozen"], set(state["evaluating"])
    for name, part in _modules(module):
        part._no_grad = set(frozen.get(name, ()))  # noqa: SLF001 - `freeze` cannot set it exactly
        part._training = name not in evaluating  # noqa: SLF001 - `train` sets the children too


def parameters(module: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - as above
    """The arrays of a module by name, frozen ones included.

    Args:
        module: Of MLX.
    """
    from mlx.utils import tree_flatten  # noqa: PLC0415 - only where MLX is used

    found: Any = tree_flatten(module.parameters())
    yield from found


def _modules(module: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - as above
    """A module and those in it, by name."""
    yield from module.named_modules()


def kept_parts(thing: Any) -> Iterator[object]:  # noqa: ANN401 - as above
    """The objects whose content the state of a module or an optimizer covers.

    Args:
        thing: A module or an optimizer of MLX.
    """
    yield thing
    if is_module(thing):
        yield from (part for _, part in _modules(thing))
        yield from (array for _, array in parameters(thing))
        return
    waiting: list[Any] = [thing.state, *(one.state for one in getattr(thing, "optimizers", ()))]
    while waiting:
        one = waiting.pop()
        yield one
        if isinstance(one, dict | list | tuple):
            waiting.extend(one.values() if isinstance(one, dict) else one)


def left_out(thing: Any) -> Iterator[tuple[str, object]]:  # noqa: ANN401 - as above
    """What a module holds and its state does not: attributes that are no arrays, and private arrays.

    Args:
        thing: A module of MLX.
    """
    for name, part in _modules(thing):
        path = f".{name}" if name else ""
        own = {key: value for key, value in attributes_of(part).items() if key not in OF_EVERY_MODULE}
        own |= {key: value for key, value in dict.items(part) if key.startswith("_")}
        yield from ((f"{path}.{key}", value) for key, value in own.items())
