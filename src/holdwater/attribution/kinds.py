"""What an object is, read without calling the program's code: by its type, and by Python's own descriptors.

`isinstance`, the hash of a class, `vars(module)` and a plain attribute may each call a method of the program's: a
proxy's `__class__`, a metaclass's `__hash__`, a module that is loaded when it is first read.
"""

import contextlib
import io
import sys
import types
from collections.abc import Container, Iterable, Iterator
from itertools import compress
from typing import Any

from holdwater.signal_errors import not_the_scripts

_MRO, _NAME, _QUALNAME, _MODULE, _FLAGS, _CLASS_DICT = (
    type.__dict__[name] for name in ("__mro__", "__name__", "__qualname__", "__module__", "__flags__", "__dict__")
)
_MODULE_DICT: Any = vars(types.ModuleType)["__dict__"]
UNREADABLE = (RuntimeError, AttributeError, TypeError, ValueError, LookupError)
"""What Python, torch and C libraries raise for an object that cannot be read."""
_ON_THE_HEAP = 1 << 9
"""The flag of a class that was created at run time (`Py_TPFLAGS_HEAPTYPE`)."""


def is_a(item: object, kind: type | tuple[type, ...]) -> bool:
    """Whether an object is of a kind, by its type alone.

    Args:
        item: Any object.
        kind: A class without a metaclass of the program's own, or several.
    """
    return issubclass(type(item), kind)


def ids_of(*kinds: type) -> frozenset[int]:
    """The identities of classes that live as long as the process.

    Args:
        kinds: The classes.
    """
    return frozenset(map(id, kinds))


def is_one_of(item: object, kinds: Container[int]) -> bool:
    """Whether an object is exactly of one of some classes.

    Args:
        item: Any object.
        kinds: The identities of the classes.
    """
    return id(type(item)) in kinds


def only(items: list[Any], kinds: Container[type]) -> Iterator[Any]:
    """The items that are exactly of some classes; a loop in C, for there are millions.

    Args:
        items: Ordinary objects.
        kinds: The classes.
    """
    return compress(items, map(kinds.__contains__, map(type, items)))


def ordinary(items: list[Any]) -> list[Any]:
    """The objects whose classes can be put into sets: not those whose metaclass has its own hash or comparison.

    Args:
        items: Any objects.
    """
    return items if are_ordinary(items) else list(filter(is_ordinary, items))


def are_ordinary(items: Iterable[Any]) -> bool:
    """Whether the classes of all objects can be put into sets, as `ordinary`."""
    return _odd.isdisjoint(map(type, map(type, items)))


def is_ordinary(item: object) -> bool:
    """Whether the class of an object can be put into sets, as `ordinary`."""
    return type(type(item)) not in _odd


def note_metaclasses() -> None:
    """Find the metaclasses that `ordinary` refers to; the program may define another at any time."""
    _odd.clear()
    waiting: list[Any] = type.__subclasses__(type)
    while waiting:
        kind = waiting.pop()
        own = [base for base in mro_of(kind) if base is not object and base is not type]
        if any(not _OWN.isdisjoint(_CLASS_DICT.__get__(base)) for base in own):
            _odd.add(kind)
        waiting += type.__subclasses__(kind)


_OWN = frozenset(("__hash__", "__eq__"))
_odd: set[type] = set()


def with_subclasses(base: type) -> set[type]:
    """A class and all that are derived from it, if they can be put into sets.

    Args:
        base: The class.
    """
    found: set[type] = {base}
    waiting: list[type] = [base]
    while waiting:
        below: list[type] = type.__subclasses__(waiting.pop())
        fresh = [kind for kind in below if type(kind) not in _odd and kind not in found]
        found.update(fresh)
        waiting += fresh
    return found


def mro_of(kind: type) -> tuple[type, ...]:
    """A class and those that it is derived from."""
    found: tuple[type, ...] = _MRO.__get__(kind)
    return found


def name_of(kind: type) -> str:
    """The name of a class, without its module."""
    return str(_NAME.__get__(kind))


def qualname_of(kind: type) -> str:
    """The name of a class within its module."""
    return str(_QUALNAME.__get__(kind))


def full_name_of(kind: type) -> str:
    """A class by its module and name."""
    return f"{module_of(kind)}.{qualname_of(kind)}"


def module_of(item: Any) -> str:  # noqa: ANN401 - a class or a function
    """The `__module__` of a class or a function; empty if that is not a string."""
    try:
        name = _MODULE.__get__(item) if is_a(item, type) else item.__module__
    except not_the_scripts(*UNREADABLE):
        return ""
    return name if type(name) is str else ""


def members_of(kind: type) -> list[tuple[str, Any]]:
    """What a class itself defines, by name."""
    return list(_CLASS_DICT.__get__(kind).items())


def built_in_base(kind: type) -> type:
    """The nearest class that was not created at run time: the class itself, or one that it is derived from."""
    return next(base for base in mro_of(kind) if not _FLAGS.__get__(base) & _ON_THE_HEAP)


def size_of(item: object) -> int:
    """An object's own bytes, as code in C of its class counts them; text in memory, which none counts, by its end.

    The class may have been made at run time, as `array.array` is.
    """
    kind = type(item)
    base = built_in_base(kind)
    if base is io.StringIO:
        return _size_of_text(item)
    if base is kind:
        return sys.getsizeof(item, 64)
    counts = (_CLASS_DICT.__get__(one).get("__sizeof__") for one in mro_of(kind))
    try:
        return next(int(count(item)) + 16 for count in counts if type(count) is types.MethodDescriptorType)
    except not_the_scripts(*UNREADABLE):
        return 64


def _size_of_text(item: Any) -> int:  # noqa: ANN401 - an `io.StringIO`
    """Where text in memory is being written, in characters: about its bytes."""
    try:
        return 64 + int(io.StringIO.tell(item))
    except not_the_scripts(ValueError):  # it is closed
        return 64


DEFINING = (type, types.ModuleType)
"""Classes and modules, which define other objects."""


def defined_by(item: Any) -> list[Any]:  # noqa: ANN401 - a class or a module
    """What a class defines, or the globals of a module but for Python's own."""
    if is_a(item, type):
        return [value for _, value in members_of(item)]
    return [value for name, value in list(dict.items(namespace_of(item))) if not name.startswith("__")]


def namespace_of(item: object) -> dict[str, Any]:
    """The attributes of an instance, or the globals of a module; empty if its class redefines `__dict__`.

    Args:
        item: Any object; a module that is loaded when it is first read is not loaded.
    """
    if is_a(item, types.ModuleType):
        found: Any = _MODULE_DICT.__get__(item)
        return found if found is not None else {}
    for kind in mro_of(type(item)):
        member = _CLASS_DICT.__get__(kind).get("__dict__")
        if member is not None:
            found = member.__get__(item) if type(member) is types.GetSetDescriptorType else {}
            return found if type(found) is dict else dict(dict.items(found)) if is_a(found, dict) else {}
    return {}


def attributes(item: Any) -> list[tuple[str, Any]]:  # noqa: ANN401 - any object
    """The attributes of an instance, slots included, by name."""
    found: list[tuple[str, Any]] = list(dict.items(namespace_of(item)))
    for kind in mro_of(type(item)):
        for name, member in members_of(kind):
            if type(member) is types.MemberDescriptorType:
                try:
                    found.append((name, member.__get__(item)))
                except not_the_scripts(AttributeError, TypeError):
                    continue
    return found


def module_named(name: str) -> dict[str, Any]:
    """The globals of a module that is in `sys.modules`; empty if it is not there.

    Args:
        name: The module's.
    """
    module = sys.modules.get(name)
    return namespace_of(module) if is_a(module, types.ModuleType) else {}


def file_of(module: str) -> str | None:
    """A module's source file; None if it has none, or is not loaded.

    Args:
        module: Its name.
    """
    file = module_named(module).get("__file__")
    return file if type(file) is str else None


def class_of(module: str, name: str) -> Any:  # noqa: ANN401 - a class
    """A class of a module, if that is loaded; else a class without instances."""
    found = module_named(module).get(name)
    return found if is_a(found, type) else _Nothing


class _Nothing:
    """Placeholder for a class that is not loaded: it has no instances."""


def no_overrides() -> Any:  # noqa: ANN401 - a context
    """A context in which reading tensors calls neither a subclass's own functions nor a mode that is on."""
    off = class_of("torch._C", "DisableTorchFunction")
    return contextlib.nullcontext() if off is _Nothing else off()
