"""Encode a state as JSON and tensors, and decode it, exactly; what cannot be kept exactly is refused.

No pickle: loading a checkpoint runs no code.
"""

import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holdwater.errors import ConfigError

Tensors = dict[str, Tensor]
PLAIN = (bool, int, float, str, type(None))


def encode(value: object, place: str, tensors: Tensors) -> Any:  # noqa: ANN401 - JSON
    """Encode a value as JSON, with its tensors apart.

    Args:
        value: Numbers, strings, tensors, arrays, and lists, tuples and dictionaries of them.
        place: Its path in the state, for messages and as the tensors' name.
        tensors: Receives the tensors, by name.

    Raises:
        ConfigError: A part cannot be kept exactly; the message names it.
    """
    if type(value) in PLAIN:
        return value
    if isinstance(value, Tensor):
        return {"tensor": _put(value, place, tensors), "device": str(value.device)}
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
        raw = torch.from_numpy(np.frombuffer(value.tobytes(), dtype=np.uint8).copy())
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        return {kind: _put(raw, place, tensors), "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, Mapping):
        kind = "ordered" if isinstance(value, OrderedDict) else "dict"
        pairs = [
            [encode(key, f"{place}.key", tensors), encode(part, f"{place}.{key}", tensors)]
            for key, part in value.items()
        ]
        return {kind: pairs}
    if isinstance(value, list | tuple):
        parts = [encode(part, f"{place}.{index}", tensors) for index, part in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": parts}
    raise ConfigError(
        f"{place} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be kept exactly; "
        "let its state_dict hold numbers, strings, tensors, arrays, and lists and dictionaries of them"
    )


def decode(stored: object, tensors: Mapping[str, Tensor]) -> Any:  # noqa: ANN401 - what was encoded
    """Decode what `encode` has written.

    Args:
        stored: JSON.
        tensors: The tensors, by name.
    """
    if not isinstance(stored, dict):
        return stored
    kind, content = next(iter(stored.items()))
    if kind == "tensor":
        return tensors[content].to(stored["device"])
    if kind in {"array", "scalar"}:
        array = np.frombuffer(tensors[content].numpy().tobytes(), dtype=stored["dtype"]).reshape(stored["shape"])
        return array.copy() if kind == "array" else array[()]
    if kind in {"dict", "ordered"}:
        pairs = [(decode(key, tensors), decode(part, tensors)) for key, part in content]
        return OrderedDict(pairs) if kind == "ordered" else dict(pairs)
    parts = [decode(part, tensors) for part in content]
    return parts if kind == "list" else tuple(parts)


def state_of(thing: Any, name: str) -> Any:  # noqa: ANN401 - a user's object
    """The state of an object.

    Args:
        thing: An object with `state_dict`, or a random generator of Python, NumPy or PyTorch, or a dictionary.
        name: For messages.

    Raises:
        ConfigError: It has no state of a known kind.
    """
    return _ways(thing, name)[0]()


def set_state(thing: Any, name: str, state: Any) -> None:  # noqa: ANN401 - a user's object
    """Restore an object's state.

    Args:
        thing: As for `state_of`.
        name: For messages.
        state: What `state_of` returned, in this process or another.
    """
    _ways(thing, name)[1](state)


def _ways(thing: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:  # noqa: ANN401
    """The functions that read and restore an object's state."""
    if hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict"):
        return thing.state_dict, thing.load_state_dict
    if isinstance(thing, torch.Generator):
        return thing.get_state, thing.set_state
    if isinstance(thing, np.random.Generator):
        return lambda: thing.bit_generator.state, lambda state: setattr(thing.bit_generator, "state", state)
    if isinstance(thing, random.Random):  # noqa: S311 - no secret
        return thing.getstate, thing.setstate
    if isinstance(thing, dict):
        return lambda: thing, lambda state: _refill(thing, state)
    more = ""
    if type(thing).__name__ == "DataLoader":
        more = "; iterate over it with `for batch in holdwater.batches(loader, steps=...)`"
    raise ConfigError(
        f"holdwater.resumable({name!r}, ...) was given a {type(thing).__module__}.{type(thing).__qualname__}, "
        f"which has no state_dict and load_state_dict, so it cannot be resumed exactly{more}"
    )


def _refill(thing: dict[Any, Any], state: dict[Any, Any]) -> None:
    """Restore a dictionary's content in place."""
    thing.clear()
    thing.update(state)


def _put(tensor: Tensor, place: str, tensors: Tensors) -> str:
    """Store a tensor under a unique name; one that shares its memory with another is copied."""
    name, number = place, 1
    while name in tensors:
        number += 1
        name = f"{place}#{number}"
    tensors[name] = tensor.detach().to("cpu", copy=True).contiguous()
    return name
