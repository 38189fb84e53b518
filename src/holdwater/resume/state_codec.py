"""Encode a state as JSON and tensors, and decode it, exactly; what cannot be kept exactly is refused.

No pickle: loading a checkpoint runs no code.
"""

import random
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holdwater.errors import ConfigError
from holdwater.resume import mlx_states

Tensors = dict[str, Tensor]
PLAIN = (bool, int, float, str, type(None))
FACTORIES: dict[str, Callable[[], Any]] = {
    kind.__name__: kind for kind in (int, float, str, list, dict, tuple, set, Counter, deque)
}
"""What a defaultdict may make, by name."""


def encode(value: object, place: str, tensors: Tensors) -> Any:  # noqa: ANN401 - JSON
    """Encode a value as JSON, with its tensors apart.

    Args:
        value: Numbers, strings, tensors, arrays, and lists, tuples and dictionaries of them.
        place: Its path in the state, for messages and as the tensors' name.
        tensors: Receives the tensors, by name.

    Raises:
        ConfigError: A part cannot be kept exactly; the message names it.
    """
    kind = type(value)
    if kind in PLAIN:
        return value
    if isinstance(value, Tensor) or mlx_states.is_array(value):
        return _encode_tensor(value, place, tensors)
    if kind is np.ndarray or isinstance(value, np.generic):
        if value.dtype.kind in "biufc":  # type: ignore[attr-defined]
            return _encode_array(value, place, tensors)
    elif isinstance(value, dict) and kind in {dict, OrderedDict, Counter, defaultdict}:
        return _encode_dict(value, place, tensors)
    elif isinstance(value, list | tuple | deque):
        about = _sequence(value)
        if about is not None:
            parts = [encode(part, f"{place}.{index}", tensors) for index, part in enumerate(value)]
            return {about[0]: parts} | about[1]
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
        return _decode_tensor(stored, tensors[content])
    if kind == "mlx":
        return mlx_states.decode_array(stored, tensors[content])
    if kind in {"array", "scalar"}:
        array = np.frombuffer(tensors[content].numpy().tobytes(), dtype=stored["dtype"])
        array = array.reshape(stored["shape"], order=stored.get("order", "C"))
        return array.copy(order="K") if kind == "array" else array[()]
    if kind in {"dict", "ordered", "counter", "default"}:
        pairs = [(decode(key, tensors), decode(part, tensors)) for key, part in content]
        return _decode_dict(kind, pairs, stored.get("factory"))
    parts = [decode(part, tensors) for part in content]
    return _decode_sequence(kind, parts, stored)


def _encode_tensor(tensor: Any, place: str, tensors: Tensors) -> dict[str, Any]:  # noqa: ANN401 - or of MLX
    """A tensor, with the order of its dimensions in memory where it is not the usual one."""
    if not isinstance(tensor, Tensor):
        raw, about = mlx_states.encode_array(tensor)
        return {"mlx": _put(raw, place, tensors)} | about
    found: dict[str, Any] = {"tensor": _put(tensor, place, tensors), "device": str(tensor.device)}
    if tensor.layout == torch.strided and not tensor.is_contiguous() and 0 not in tensor.stride():
        found["stride"] = list(tensor.stride())
    if tensor.requires_grad and tensor.is_leaf:
        found["requires_grad"] = True
    return found


def _decode_tensor(stored: Mapping[str, Any], tensor: Tensor) -> Tensor:
    """A tensor as it was, in memory of its own: the last bit of a sum depends on how its memory is aligned."""
    found = tensor.to(stored["device"], copy=True)
    if "stride" in stored:
        found = torch.empty_strided(found.shape, stored["stride"], dtype=found.dtype, device=found.device)
        found.copy_(tensor)
    return found.requires_grad_(stored.get("requires_grad", False))


def _encode_array(array: Any, place: str, tensors: Tensors) -> dict[str, Any]:  # noqa: ANN401 - or a number
    """An array or a number of NumPy, with its order in memory."""
    order = "F" if array.ndim > 1 and array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    raw = torch.from_numpy(np.frombuffer(array.tobytes(order=order), dtype=np.uint8).copy())
    kind = "array" if isinstance(array, np.ndarray) else "scalar"
    found = {kind: _put(raw, place, tensors), "dtype": array.dtype.str, "shape": list(array.shape)}
    return found | ({"order": order} if order == "F" else {})


def _encode_dict(value: dict[Any, Any], place: str, tensors: Tensors) -> dict[str, Any]:
    """A dictionary of one of the usual kinds, whose keys are found by their values."""
    by_identity = next((key for key in value if _is_found_by_identity(key)), None)
    if by_identity is not None:
        raise ConfigError(
            f"{place} has a {type(by_identity).__qualname__} as a key, and a fresh process would find nothing "
            "under its own one; use names or numbers as keys"
        )
    pairs = [
        [encode(key, f"{place}.key", tensors), encode(part, f"{place}.{key}", tensors)]
        for key, part in value.items()
    ]
    if not isinstance(value, defaultdict):
        return {{OrderedDict: "ordered", Counter: "counter"}.get(type(value), "dict"): pairs}
    factory = value.default_factory
    name = None if factory is None else getattr(factory, "__name__", "")
    if name is not None and FACTORIES.get(name) is not factory:
        raise ConfigError(
            f"{place} is a defaultdict of {factory!r}, which cannot be kept exactly; "
            f"use one of {', '.join(FACTORIES)}"
        )
    return {"default": pairs, "factory": name}


def _is_found_by_identity(key: object) -> bool:
    """Whether a key, or a part of it, is equal to nothing but itself: tensors are."""
    if type(key) in PLAIN:
        return False
    if isinstance(key, tuple):
        return any(map(_is_found_by_identity, key))
    return type(key).__hash__ is object.__hash__ or isinstance(key, Tensor)


def _decode_dict(kind: str, pairs: list[tuple[Any, Any]], factory: str | None) -> dict[Any, Any]:
    """A dictionary of its kind."""
    if kind == "default":
        return defaultdict(FACTORIES[factory] if factory else None, pairs)
    if kind == "ordered":
        return OrderedDict(pairs)
    return Counter(dict(pairs)) if kind == "counter" else dict(pairs)


def _sequence(value: Any) -> tuple[str, dict[str, Any]] | None:  # noqa: ANN401 - a list, tuple or deque
    """The kind of a sequence, and what more is needed to make it again; None if it cannot be."""
    kind = type(value)
    if kind in {list, tuple}:
        return kind.__name__, {}
    if kind is torch.Size:
        return "size", {}
    if kind is deque:
        return "deque", {"maxlen": value.maxlen}
    name = f"{kind.__module__}:{kind.__qualname__}"
    return ("named", {"type": name}) if hasattr(kind, "_make") and _named(name) is kind else None


def _decode_sequence(kind: str, parts: list[Any], stored: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """A list, tuple or deque of its kind."""
    if kind == "deque":
        return deque(parts, maxlen=stored["maxlen"])
    if kind == "named":
        return _named(stored["type"])._make(parts)
    return {"list": list, "size": torch.Size}.get(kind, tuple)(parts)


def _named(name: str) -> Any:  # noqa: ANN401 - a class
    """The class of a named tuple, which the script has defined already; None if it cannot be found."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def state_of(thing: Any, name: str) -> Any:  # noqa: ANN401 - a user's object
    """The state of an object.

    Args:
        thing: An object with `state_dict`, a module or an optimizer of MLX, a random generator of Python, NumPy or
            PyTorch, or a dictionary.
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
    if mlx_states.is_module(thing):
        return lambda: mlx_states.module_state(thing), lambda state: mlx_states.set_module_state(thing, state)
    if mlx_states.is_optimizer(thing):
        return lambda: thing.state, lambda state: _refill(thing.state, state)
    if hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict"):
        return thing.state_dict, thing.load_state_dict
    of_generator = _ways_of_generator(thing)
    if of_generator is not None:
        return of_generator
    if isinstance(thing, dict):
        return lambda: _checked(thing, name), lambda state: _refill(thing, state)
    more = ""
    if type(thing).__name__ == "DataLoader":
        more = "; iterate over it with `for batch in holdwater.batches(loader, steps=...)`"
    raise ConfigError(
        f"holdwater.resumable({name!r}, ...) was given a {type(thing).__module__}.{type(thing).__qualname__}, "
        f"which has no state_dict and load_state_dict, so it cannot be resumed exactly{more}"
    )


def _ways_of_generator(thing: Any) -> tuple[Callable[[], Any], Callable[[Any], Any]] | None:  # noqa: ANN401
    """The functions that read and restore a random generator's state; None for anything else."""
    if isinstance(thing, torch.Generator):
        return thing.get_state, thing.set_state
    if isinstance(thing, np.random.Generator):
        return lambda: thing.bit_generator.state, lambda state: setattr(thing.bit_generator, "state", state)
    if isinstance(thing, np.random.RandomState):
        return lambda: thing.get_state(legacy=True), thing.set_state
    if isinstance(thing, random.Random):  # noqa: S311 - no secret
        return thing.getstate, thing.setstate
    return None


def _checked(thing: dict[Any, Any], name: str) -> dict[Any, Any]:
    """A dictionary in which nothing is held twice."""
    _check_shared(thing, name)
    return thing


def _refill(thing: dict[Any, Any], state: dict[Any, Any]) -> None:
    """Restore a dictionary's content in place, and that of the lists, tensors and arrays in it."""
    _put_back(thing, state, set())


def _put_back(old: Any, new: Any, seen: set[int]) -> Any:  # noqa: ANN401 - any state
    """Restore an object in place, since the script may hold it elsewhere too; else return the new one.

    Args:
        old: What the script has made.
        new: What it is to be.
        seen: The identities of what was restored already.
    """
    if type(old) is not type(new) or id(old) in seen:
        return new
    seen.add(id(old))
    if isinstance(old, dict):
        content = {key: _put_back(old[key], part, seen) if key in old else part for key, part in new.items()}
        old.clear()
        for key, part in content.items():  # `update` would add to what a Counter holds
            old[key] = part
        return old
    if isinstance(old, list) or (isinstance(old, deque) and old.maxlen == new.maxlen):
        parts = [_put_back(one, other, seen) for one, other in zip(old, new, strict=False)]
        parts += list(new)[len(parts) :]
        old.clear()
        old.extend(parts)
        return old
    return old if _copied(old, new) else new


def _copied(old: Any, new: Any) -> bool:  # noqa: ANN401 - any state
    """Whether a tensor or an array could be overwritten by another one."""
    if not isinstance(old, Tensor | np.ndarray) or (old.shape, old.dtype) != (new.shape, new.dtype):
        return False
    if isinstance(old, np.ndarray):
        if not old.flags.writeable:
            return False
        old[...] = new
        return True
    if old.device != new.device or old.requires_grad != new.requires_grad or not old.is_leaf or 0 in old.stride():
        return False
    with torch.no_grad():
        old.copy_(new)
    return True


def _check_shared(thing: dict[Any, Any], name: str) -> None:
    """Refuse a dictionary in which one object is held twice: it would become two.

    Args:
        thing: The dictionary.
        name: For messages.

    Raises:
        ConfigError: An object is held twice.
    """
    seen: dict[int, str] = {}
    waiting: deque[tuple[str, Any]] = deque([(name, thing)])
    while waiting:
        path, one = waiting.popleft()
        if not isinstance(one, dict | list | tuple | deque | Tensor | np.ndarray):
            continue
        if id(one) in seen and not isinstance(one, tuple):
            raise ConfigError(
                f"{path} and {seen[id(one)]} are the same object, which cannot be kept exactly; "
                "keep it once, or a copy"
            )
        seen[id(one)] = path
        if isinstance(one, dict):
            waiting.extend((f"{path}.{key}", part) for key, part in one.items())
        elif not isinstance(one, Tensor | np.ndarray):
            waiting.extend((f"{path}.{index}", part) for index, part in enumerate(one))


def _put(tensor: Tensor, place: str, tensors: Tensors) -> str:
    """Store a tensor under a unique name; one that shares its memory with another is copied."""
    name, number = place, 1
    while name in tensors:
        number += 1
        name = f"{place}#{number}"
    tensors[name] = tensor.detach().to("cpu", copy=True).contiguous()
    return name
