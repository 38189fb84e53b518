"""Classes and states of a container's new elements: evidence for a known cause, besides their number.

Only attributes of the standard library's classes are read; none of the program's code is called.
"""

import functools
import gc
import os
import sys
import threading
import types
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from holdwater.attribution.kinds import (
    UNREADABLE,
    attributes,
    class_of,
    full_name_of,
    ids_of,
    is_a,
    is_one_of,
    mro_of,
    namespace_of,
)
from holdwater.attribution.weights import graph_of
from holdwater.signal_errors import not_the_scripts

_CLOSING = ids_of(types.MethodType, functools.partial)
_TRACEBACK: Any = BaseException.__dict__["__traceback__"]
MOST_PARTS = 8
"""Parts of a tuple that are read if it is an element."""
MOST_BASES = 24
"""Classes that are reported."""
LIBRARIES = ("torch", "mlx", "matplotlib", "PIL")
"""Libraries that known causes refer to."""


def loaded_libraries() -> list[str]:
    """Those of `LIBRARIES` that this process has imported."""
    return [name for name in LIBRARIES if name in sys.modules]


def bases_of(fresh: list[Any], *, pairs: bool) -> dict[str, float]:
    """The classes that elements are instances of, with the share of the elements.

    Args:
        fresh: Elements; the parts of a tuple are read too.
        pairs: Whether they alternate between keys and values of a dictionary.
    """
    found: Counter[str] = Counter()
    for item in fresh:
        found.update({name for part in _parts(item) for name in _bases(type(part))})
    most = max(len(fresh) / (2 if pairs else 1), 1.0)
    return {name: round(min(count / most, 1.0), 3) for name, count in found.most_common(MOST_BASES)}


def traits_of(fresh: list[Any], *, pairs: bool) -> list[str]:
    """What holds of at least half of the elements: see `_TRAITS`; `own keys` if a value keeps its weak key.

    Args:
        fresh: As for `bases_of`.
        pairs: As for `bases_of`.
    """
    items = [part for item in fresh for part in _parts(item)]
    least = max(len(fresh) / (4 if pairs else 2), 1.0)
    found = [name for name, holds in _TRAITS if sum(_safely(holds, part) for part in items) >= least]
    if pairs and sum(_keeps(value, key) for key, value in zip(fresh[::2], fresh[1::2], strict=False)) >= least:
        found.append("own keys")
    return found


def _parts(item: Any) -> Iterable[Any]:  # noqa: ANN401 - any element
    """An element, and the parts of a tuple."""
    return (item, *item[:MOST_PARTS]) if type(item) is tuple else (item,)


def _bases(kind: type) -> list[str]:
    """The qualified names of a class and of those that it is derived from."""
    return [full_name_of(base) for base in mro_of(kind) if base is not object]


def _safely(holds: Callable[[Any], bool], item: Any) -> bool:  # noqa: ANN401 - any element
    """Whether a trait holds; False if reading the object raises."""
    try:
        return holds(item)
    except not_the_scripts(*UNREADABLE):
        return False


def _has_traceback(item: Any) -> bool:  # noqa: ANN401 - any element
    """Whether it is an exception that keeps the frames of its traceback."""
    return is_a(item, BaseException) and _TRACEBACK.__get__(item) is not None


def _is_suspended(item: Any) -> bool:  # noqa: ANN401 - any element
    """Whether it is a generator that waits."""
    return type(item) is types.GeneratorType and item.gi_frame is not None


def _runs(item: Any) -> bool:  # noqa: ANN401 - any element
    """Whether it is a thread or a process that still runs."""
    state = namespace_of(item)
    if is_a(item, threading.Thread):
        return state.get("_ident") in sys._current_frames()  # noqa: SLF001 - the documented function for all threads
    pid = state.get("pid") or namespace_of(state.get("_popen")).get("pid")
    is_process = is_a(item, (class_of("subprocess", "Popen"), _process()))
    return is_process and pid is not None and not _has_ended(int(pid))


def _process() -> Any:  # noqa: ANN401 - a class
    """The base class of multiprocessing's processes."""
    return class_of("multiprocessing.process", "BaseProcess")


def _has_ended(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2][1] in "ZX"
        )
    except not_the_scripts(OSError):
        return True


def _is_linked(item: Any) -> bool:  # noqa: ANN401 - any element
    """Whether it is a block of shared memory that has not been unlinked."""
    kind = class_of("multiprocessing.shared_memory", "SharedMemory")
    name = dict(attributes(item)).get("_name") if is_a(item, kind) else None
    return type(name) is str and os.access(f"/dev/shm/{name.lstrip('/')}", os.F_OK)  # noqa: S108 - its location


def _closes_over(item: Any) -> bool:  # noqa: ANN401 - any element
    """Whether it is a function with a closure or defaults."""
    if type(item) is types.FunctionType:
        return bool(item.__closure__ or item.__defaults__ or item.__kwdefaults__)
    return is_one_of(item, _CLOSING)


def _keeps(value: object, key: object) -> bool:
    """Whether a value refers to what a weak key stands for, directly or by its attributes or elements."""
    if type(key) is not weakref.ref:
        return False
    target = key()
    near = [value, *_referents(value)]
    return target is not None and any(item is target for item in [*near, *_referents(*near[:MOST_PARTS])])


def _referents(*items: object) -> list[Any]:
    """What objects refer to."""
    return gc.get_referents(*(item for item in items if not is_a(item, (type, types.ModuleType))))


_TRAITS: tuple[tuple[str, Callable[[Any], bool]], ...] = (
    ("tracebacks", _has_traceback),
    ("suspended", _is_suspended),
    ("running", _runs),
    ("linked", _is_linked),
    ("closures", _closes_over),
)


def has_graph(item: object) -> bool:
    """Whether an element is a tensor with a graph behind it."""
    return is_a(item, class_of("torch", "Tensor")) and graph_of(item) is not None


def is_small_view(item: Any) -> bool:  # noqa: ANN401 - any element
    """Whether an element keeps four times what it shows."""
    tensor, array = class_of("torch", "Tensor"), class_of("numpy", "ndarray")
    try:
        if is_a(item, tensor):
            whole, shown = tensor.untyped_storage(item).nbytes(), tensor.nbytes.__get__(item)
            return bool(whole > 4 * max(shown, 64))
        if is_a(item, array):
            base = array.base.__get__(item)
            return bool(is_a(base, array) and array.nbytes.__get__(base) > 4 * max(array.nbytes.__get__(item), 64))
    except not_the_scripts(*UNREADABLE):
        return False
    return False
