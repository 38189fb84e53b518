"""Record what variables hold, leaf by leaf, to say later which part has changed.

Only reads: no method of a user's object is called. Numbers, containers, tensors, arrays, random generators, the
attributes of objects and the variables that functions close over are followed.
"""

import functools
import gc
import io
import logging
import random
import struct
import types
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holdwater.resume import mlx_states
from holdwater.resume.attached import is_of_the_users, on_tensor
from holdwater.resume.introspection import PLAIN, attributes_of, in_cell, is_users, isinstance_exactly
from holdwater.resume.live_variables import global_names, without_added_to
from holdwater.resume.native_objects import CACHED, hidden_parts, is_native_iterator, native_state
from holdwater.signal_errors import not_the_scripts

MOST = 200_000
"""Objects that are followed at most, those near the variables first."""
WHOLE = 64 << 20
"""Bytes of all tensors and arrays together that are read in whole; of the others a sample is read."""
SAMPLED = 1 << 16
"""Items of a tensor or an array of which a sample is read."""
MAPPED = 1 << 10
"""Items of an array in a mapped file of which a sample is read: each brings a page into memory."""
LONG = 10_000
"""Items of a container that are followed; of all of them only the identities are compared."""
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Functions of a module, called before and after it."""
MODULE_PARTS = frozenset(vars(torch.nn.Module())) - {"training"}
"""What every module has; its parameters, buffers and children are followed apart."""
LAYERS = "torch.nn.modules."
"""Modules set by numbers, such as the share of a dropout; whole ones are sizes, which lazy modules find out."""
GLOBAL = "::"
"""Precedes the path of a global variable that a function reads."""
WITHOUT_STATE = frozenset((
    "tqdm", "logging", "rich", "wandb", "tensorboard", "matplotlib", "threading", "_thread", "multiprocessing",
    "concurrent", "asyncio", "socket", "subprocess", "weakref", "tempfile", "pathlib", "argparse", "holdwater",
    "pprint", "datetime", "re", "typing", "abc",
))  # fmt: skip
"""Packages whose objects hold nothing that a result follows from: progress bars, loggers, locks, paths."""
WITH_ITEMS = frozenset(("dict", "list", "tuple", "deque", "OrderedDict", "defaultdict", "Counter"))
"""Containers whose items are recorded apart."""
ITERATORS = (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType)

Leaves = dict[str, object]
"""A comparable value for each path, such as `stats['n']`."""


class Fingerprint:
    """Follows what variables hold, without what is excluded."""

    def __init__(self, excluded: Iterable[object]) -> None:
        """Prepare.

        Args:
            excluded: Objects that are kept otherwise; nothing that only they lead to is followed.
        """
        self._alive = list(excluded)
        self._seen = {id(one) for one in self._alive}
        self._bytes = 0

    def take(self, roots: Mapping[str, object]) -> Leaves:
        """Follow variables.

        Args:
            roots: By their names.
        """
        leaves: Leaves = {}
        waiting = deque(roots.items())
        for _ in range(MOST):
            if not waiting:
                break
            path, value = waiting.popleft()
            if isinstance_exactly(value, PLAIN) or issubclass(type(value), np.generic):
                leaves[path] = compared(value)
                continue
            if id(value) in self._seen:
                continue
            self._seen.add(id(value))
            self._alive.append(value)  # an identity is that of one object only as long as it lives
            leaf, parts = self._look(value)
            leaves[path] = (type(value).__qualname__, leaf)
            waiting.extend((_joined(path, suffix), part) for suffix, part in parts)
        self._alive.clear()
        return leaves

    def _look(self, value: Any) -> tuple[object, Iterable[tuple[str, object]]]:  # noqa: ANN401 - anything
        """What an object is by itself, and its parts."""
        kind = type(value)
        if issubclass(kind, Tensor):
            return self._tensor(value), on_tensor(value)
        if issubclass(kind, np.ndarray):
            return self._array(value), ()
        if mlx_states.is_array(value):
            return self._mlx_array(value), ()
        if issubclass(kind, dict | list | tuple | set | frozenset | deque):
            return _container(value)
        if issubclass(kind, types.GeneratorType):
            return _moved(value), _suspended(value)
        state = generator_state(value)
        if state is None and (issubclass(kind, ITERATORS) or is_native_iterator(kind)):
            state = object()  # where it is cannot be known
        if state is None and (kind is not CACHED or is_users(value.__wrapped__)):
            state = native_state(value)
        return state, () if state is not None else _parts(value)

    def _tensor(self, tensor: Tensor) -> object:
        """Type, shape and content of a tensor; `_version` counts its changes in place."""
        about = (str(tensor.dtype), tuple(tensor.shape), str(tensor.device), tensor.requires_grad)
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            return (*about, tensor._version)  # noqa: SLF001 - it has no public name
        flat = tensor.detach()
        if self._is_too_much(flat.numel() * flat.element_size()):
            flat = flat.reshape(-1)[:: max(flat.numel() // SAMPLED, 1)]
        if not flat.numel():
            return about
        plain: Any = flat.contiguous().reshape(-1).view(torch.uint8).numpy()
        return (*about, zlib.crc32(plain))

    def _array(self, array: Any) -> object:  # noqa: ANN401 - an array of any kind
        """Type, shape and content of an array; a mapped file that is only read is not."""
        about = (array.dtype.str, array.shape)
        mapped = issubclass(type(array), np.memmap)
        if mapped and not array.flags.writeable:
            return about
        if array.dtype.hasobject:
            return (*about, hash(tuple(map(id, array.flat[:SAMPLED]))))
        if self._is_too_much(array.nbytes):
            array = array.reshape(-1)[:: max(array.size // (MAPPED if mapped else SAMPLED), 1)]
        return (*about, zlib.crc32(np.ascontiguousarray(array).tobytes()))

    def _mlx_array(self, array: Any) -> object:  # noqa: ANN401 - MLX may be missing
        """Type, shape and content of an array of MLX."""
        about = (str(array.dtype), tuple(array.shape))
        if self._is_too_much(array.nbytes):
            array = array.reshape(-1)[:: max(array.size // SAMPLED, 1)]
        return (*about, zlib.crc32(mlx_states.bytes_of(array)))

    def _is_too_much(self, size: int) -> bool:
        """Whether so many more bytes are more than is read in whole."""
        self._bytes += size
        return self._bytes > WHOLE


def _joined(path: str, suffix: str) -> str:
    """The path of a part; a global variable has a path of its own."""
    return suffix.removeprefix(GLOBAL) if suffix.startswith(GLOBAL) else path + suffix


def inputs_of(leaves: Leaves) -> dict[str, int]:
    """The tensors, arrays and databases that were recorded, as checksums: what a script makes before its loop.

    Args:
        leaves: As recorded.
    """
    arrays, database = {"Tensor", "Parameter", "ndarray", "array"}, "Connection"
    found = {}
    for path, leaf in leaves.items():
        if isinstance(leaf, tuple) and leaf[0] in arrays:
            found[path] = zlib.crc32(repr(leaf).encode())
        elif isinstance(leaf, tuple) and leaf[0] == database and isinstance(leaf[1], tuple):
            found[path] = zlib.crc32(repr(leaf[1][-1]).encode())  # what it holds, whoever has written it
    return found


def other_input(before: Mapping[str, int], leaves: Leaves) -> str | None:
    """The first of these that differs from that of an earlier process; None if all agree.

    Args:
        before: As checksums.
        leaves: As recorded in this process.
    """
    now = inputs_of(leaves)
    return next((path for path in before if path in now and now[path] != before[path]), None)


def generator_state(value: object) -> object:
    """The state of a random generator of Python, NumPy or PyTorch, to be compared; None for anything else.

    Args:
        value: Anything.
    """
    kind = type(value)
    if issubclass(kind, torch.Generator):
        return zlib.crc32(value.get_state().numpy())  # type: ignore[attr-defined]
    if issubclass(kind, np.random.Generator):
        return _with_spawned(value.bit_generator)  # type: ignore[attr-defined]
    if issubclass(kind, np.random.BitGenerator):
        return _with_spawned(value)
    if issubclass(kind, np.random.RandomState):
        return repr(value.get_state(legacy=False))  # type: ignore[attr-defined]
    own = issubclass(kind, random.Random) and not issubclass(kind, random.SystemRandom)  # noqa: S311 - no secret
    if own:
        return hash(value.getstate())  # type: ignore[attr-defined]
    return None


def _with_spawned(bits: Any) -> object:  # noqa: ANN401 - a bit generator
    """The state of a generator of NumPy, and how many others it has spawned, if it has."""
    spawned = spawned_by(bits)
    return (spawned, repr(bits.state)) if spawned else repr(bits.state)


def spawned_by(bits: Any) -> int:  # noqa: ANN401 - a bit generator
    """How many generators have been spawned from one of NumPy's: its state does not say so.

    Args:
        bits: The bit generator.
    """
    return int(getattr(getattr(bits, "seed_seq", None), "n_children_spawned", 0))


def _parts(value: Any) -> Iterable[tuple[str, object]]:  # noqa: ANN401 - anything
    """What an object leads to."""
    hidden = hidden_parts(value)
    return _by_kind(value) if hidden is None else hidden


def _by_kind(value: Any) -> Iterable[tuple[str, object]]:  # noqa: ANN401 - anything
    """What an object leads to, by its type."""
    kind = type(value)
    if issubclass(kind, types.FunctionType):
        return _closure(value)
    if issubclass(kind, types.MethodType):
        return ((".__self__", value.__self__),)
    if issubclass(kind, functools.partial):
        return (".func", value.func), (".args", value.args), (".keywords", value.keywords)
    if issubclass(kind, torch.nn.Module):
        return _module(value)
    if issubclass(kind, type):
        return _class_parts(value) if is_users(value) else ()
    return () if _is_without_state(value) else _attributes(value)


def compared(value: Any) -> object:  # noqa: ANN401 - a number or a text
    """A number or a text, to be compared by its bits.

    Args:
        value: The number or the text.
    """
    if type(value) is float:
        return struct.pack("<d", value) if value != value else value  # noqa: PLR0124 - NaN
    return repr(value) if issubclass(type(value), np.generic | slice | complex) else value


def _container(value: Any) -> tuple[object, Iterable[tuple[str, object]]]:  # noqa: ANN401 - any container
    """The length and the items of a container."""
    kind = type(value)
    if issubclass(kind, dict):
        items, named = list(dict.values(value)), _named(dict.keys(value))
    elif issubclass(kind, set | frozenset):
        return in_any_order(value), ()
    else:
        items = list(value)
        named = [f"[{index}]" for index in range(min(len(items), LONG))]
    whole = hash(tuple(map(id, items))) if len(items) > LONG else 0
    return (len(items), whole), zip(named[:LONG], items, strict=False)


def _named(keys: Iterable[object]) -> list[str]:
    """The keys of a dictionary, for a path: an object by its type and its place."""
    plain = ((key, isinstance_exactly(key, PLAIN)) for key in keys)
    return [_short(key) if short else f"[{_short(key)[1:-1]}, {at}]" for at, (key, short) in enumerate(plain)]


def in_any_order(items: Any) -> tuple[int, int]:  # noqa: ANN401 - any container
    """The number of items, and what they are in any order.

    Args:
        items: Of a set, or of what it was kept in.
    """
    return (len(items), hash(tuple(sorted(map(_short, items)))))


def _short(key: object) -> str:
    """A key, for a path."""
    return f"[{key!r}]" if isinstance_exactly(key, PLAIN) else f"[a {type(key).__qualname__}]"


def _closure(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    """What a function closes over, and its defaults; of a user's also attributes and the globals that it reads."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        yield from ((f".{name}", part) for part in in_cell(cell))
    yield ".__defaults__", function.__defaults__
    yield ".__kwdefaults__", function.__kwdefaults__
    if is_users(function):
        yield from ((f".{name}", part) for name, part in attributes_of(function).items())
        home = "" if function.__module__ == "__main__" else f"{function.__module__}."
        names = without_added_to(global_names(function.__code__), function.__globals__)
        known = sorted(names & function.__globals__.keys())
        yield from ((f"{GLOBAL}{home}{name}", function.__globals__[name]) for name in known)


def _module(module: torch.nn.Module) -> Iterator[tuple[str, object]]:
    """Parameters, buffers, children, hooks and attributes of a module; of torch's own only the plain ones."""
    parts = vars(module)
    for group in HOOKS:
        for number, hook in enumerate(parts.get(group, {}).values()):
            if is_of_the_users(hook):
                yield f".{group}[{number}]", hook
    for group in ("_parameters", "_buffers", "_modules"):
        yield from ((f".{name}", part) for name, part in parts.get(group, {}).items())
    home = type(module).__module__
    layer, library = home.startswith(LAYERS), home.startswith("torch.")
    for name, part in parts.items():
        setting = layer and type(part) in {float, bool} and name != "training"  # modes are kept with the weights
        if name not in MODULE_PARTS and (setting or not library):
            yield f".{name}", part


def _moved(generator: Any) -> object:  # noqa: ANN401 - mypy knows no attribute of a generator's
    """Where a generator is; that of our own loop has a position that is kept."""
    frame = generator.gi_frame
    return None if frame is None or _is_ours(generator) else (frame.f_lasti, frame.f_lineno)


def _suspended(generator: Any) -> Iterator[tuple[str, object]]:  # noqa: ANN401 - as above
    """What a generator that waits holds: its variables, and the iterators that it is in."""
    if generator.gi_running or _is_ours(generator):
        return  # those of a frame that is executed are recorded apart
    for number, part in enumerate(gc.get_referents(generator)):
        if type(part) is not types.CodeType:
            parts = in_cell(part) if type(part) is types.CellType else (part,)
            yield from ((f".gi_frame[{number}]", one) for one in parts)


def _is_ours(generator: Any) -> bool:  # noqa: ANN401 - as above
    """Whether it is the loop that `holdwater.steps` or `holdwater.batches` has returned."""
    file = generator.gi_code.co_filename
    return "holdwater" in file and "resume" in file


def _is_without_state(value: object) -> bool:
    """Whether nothing of an object is followed."""
    kind = type(value)
    if issubclass(kind, types.ModuleType | io.IOBase | logging.Logger):
        return True
    module = kind.__module__
    if module == "multiprocessing.sharedctypes":  # a number that processes share
        return False
    return module.partition(".")[0] in WITHOUT_STATE or module.startswith("torch.utils.tensorboard")


def _class_parts(kind: type) -> Iterator[tuple[str, object]]:
    """The attributes of a user's class, without its functions."""
    for name, part in vars(kind).items():
        if not name.startswith("__") and not isinstance_exactly(part, (types.FunctionType, property)):
            yield f".{name}", part


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    """The attributes of an object."""
    kind = type(value)
    yield from ((f".{name}", part) for name, part in attributes_of(value).items())
    for name, slot in [pair for base in kind.__mro__ for pair in base.__dict__.items()]:
        if type(slot) is types.MemberDescriptorType:
            try:
                yield f".{name}", slot.__get__(value)
            except not_the_scripts(AttributeError):  # not set
                continue
    if is_users(kind):
        yield ".__class__", kind
