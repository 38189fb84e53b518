"""Turn a state into JSON and tensors, and back, without losing a bit; what cannot be kept exactly is refused.

No pickle: a checkpoint that is loaded runs no code.
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
    """Write a value as JSON; its tensors are put aside.

    Args:
        value: Numbers, texts, tensors, arrays, and lists, tuples and dictionaries of them.
        place: Where it stands, for messages and as the tensors' name.
        tensors: Takes the tensors, by name.

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
        "let its state_dict hold numbers, texts, tensors, arrays, and lists and dictionaries of them"
    )


def decode(stored: object, tensors: Mapping[str, Tensor]) -> Any:  # noqa: ANN401 - what was encoded
    """Read what `encode` has written.

    Args:
        stored: JSON.
        tensors: By name.
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
        thing: With `state_dict`, or a random generator of Python, NumPy or PyTorch, or a dictionary.
        name: For messages.

    Raises:
        ConfigError: It has no state that is known how to keep.
    """
    return _ways(thing, name)[0]()


def set_state(thing: Any, name: str, state: Any) -> None:  # noqa: ANN401 - a user's object
    """Put a state back into an object.

    Args:
        thing: As for `state_of`.
        name: For messages.
        state: What `state_of` returned, in this process or another.
    """
    _ways(thing, name)[1](state)


def _ways(thing: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:  # noqa: ANN401
    """How an object's state is read and put back."""
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
        more = "; go through it with `for batch in holdwater.batches(loader, steps=...)`"
    raise ConfigError(
        f"holdwater.resumable({name!r}, ...) was given a {type(thing).__module__}.{type(thing).__qualname__}, "
        f"which has no state_dict and load_state_dict, so it cannot be gone on with exactly{more}"
    )


def _refill(thing: dict[Any, Any], state: dict[Any, Any]) -> None:
    """Put a dictionary's content back in place."""
    thing.clear()
    thing.update(state)


def _put(tensor: Tensor, place: str, tensors: Tensors) -> str:
    """Put a tensor aside under a name of its own; one that shares its memory with another is copied."""
    name, number = place, 1
    while name in tensors:
        number += 1
        name = f"{place}#{number}"
    tensors[name] = tensor.detach().to("cpu", copy=True).contiguous()
    return name
