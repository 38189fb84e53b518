"""Find how one object holds another: as an attribute, entry, default, cached result, or generator's variable.

Attributes are read without calling the object's own code, so that reading changes nothing.
"""

import gc
import sys
import types
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

from holdwater.attribution.frames import local_items
from holdwater.attribution.weights import is_a

_Cached = type(lru_cache(len))
Role = Literal["global", "local", "attribute", "class attribute", "closure", "default", "cache", "element"]
MOST_KEYS = 20_000
"""Entries of a dictionary that are searched for a value."""


@dataclass(frozen=True, slots=True)
class PathPart:
    """One step of a path: how an object is held by the previous one."""

    role: Role
    name: str | None
    """The name or key; None for an element."""
    owner: str
    """What holds it: a module's name, a function's, or a type's."""
    file: str | None = None
    """The file of the owner's code."""
    line: int | None = None
    most: int | None = None
    """A cache's maximum length; None if it has none."""


Link = tuple[Any, PathPart]
"""What is held, and how."""


def link(holder: Any, level: list[Any]) -> Link:  # noqa: ANN401 - any object
    """How a holder holds one of some objects.

    Args:
        holder: Refers to at least one of them.
        level: The objects.
    """
    for kind, find in _FINDERS:
        if is_a(holder, kind):
            found = find(holder, level)
            return found if found is not None else (_first(holder, level), _element(holder))
    found = _in_instance(holder, level)
    return found if found is not None else (_first(holder, level), _element(holder))


def root_of(item: object) -> PathPart | None:
    """A class, a function or a cache, which is known by its own name wherever it is kept; None for the rest."""
    if type(item) is type or (is_a(item, type) and isinstance(item, type)):
        return PathPart("global", item.__qualname__, module_of(item), file_of(module_of(item)))
    if type(item) is types.FunctionType:
        code = item.__code__
        return PathPart("global", item.__name__, module_of(item), code.co_filename, code.co_firstlineno)
    if type(item) is _Cached:
        return _cache(item)
    return None


def key_of(table: dict[Any, Any], held: object) -> Any:  # noqa: ANN401 - a key
    """The key of a value in a dictionary; None if it is not there, or the dictionary is very large."""
    if len(table) > MOST_KEYS:
        return None
    try:
        return next((key for key, value in dict.items(table) if value is held), None)
    except RuntimeError:  # another thread changes it
        return None


def attributes(item: Any) -> list[tuple[str, Any]]:  # noqa: ANN401 - any object
    """The attributes of an instance, slots included, by name."""
    try:
        found = list(object.__getattribute__(item, "__dict__").items())
    except Exception:  # noqa: BLE001 - a slot's or property's own code; what raises is skipped
        found = []
    for kind in type(item).__mro__:
        for name, member in list(type.__dict__["__dict__"].__get__(kind).items()):
            if type(member) is types.MemberDescriptorType:
                try:
                    found.append((name, member.__get__(item)))
                except (AttributeError, TypeError):
                    continue
    return found


def module_of(item: Any) -> str:  # noqa: ANN401 - a class or a function
    """The `__module__` of a class or a function; empty if that is not a string."""
    try:
        name = item.__module__
    except Exception:  # noqa: BLE001 - what raises is skipped
        return ""
    return name if type(name) is str else ""


def file_of(module: str) -> str | None:
    """A module's source file."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return file if type(file) is str else None


def _in_dict(table: dict[Any, Any], level: list[Any]) -> Link | None:
    """An entry of a dictionary, with its key if that is a string."""
    for held in level:
        key = key_of(table, held)
        if key is not None:
            return held, PathPart("element", key if type(key) is str else None, "dict")
    return None


def _in_class(holder: type, level: list[Any]) -> Link | None:
    """A class's own namespace."""
    for held in level:
        if type(held) is dict and held.get("__module__") == holder.__module__ and "__dict__" in held:
            return held, PathPart("class attribute", None, _name_of(holder), file_of(module_of(holder)))
    return None


def _in_function(function: types.FunctionType, level: list[Any]) -> Link | None:
    """A default or a closure of a function."""
    code = function.__code__
    where = (function.__qualname__, code.co_filename, code.co_firstlineno)
    for held in level:
        if held is function.__closure__:
            return held, PathPart("closure", None, *where)
        if held is function.__defaults__ or held is function.__kwdefaults__:
            return held, PathPart("default", None, *where)
    return None


def _in_generator(generator: Any, level: list[Any]) -> Link | None:  # noqa: ANN401 - or a coroutine
    """A local variable of a waiting generator."""
    frame = getattr(generator, "gi_frame", None) or getattr(generator, "cr_frame", None)
    if frame is None:
        return None
    code = frame.f_code
    for name, value in local_items(frame):
        if any(value is held for held in level):
            return value, PathPart("local", name, code.co_name, code.co_filename, code.co_firstlineno)
    return None


def _in_instance(holder: Any, level: list[Any]) -> Link | None:  # noqa: ANN401 - any object
    """An attribute of an instance, or its namespace."""
    owner = type(holder)
    where = (_name_of(owner), file_of(module_of(owner)))
    for name, value in attributes(holder):
        if any(value is held for held in level):
            return value, PathPart("attribute", name, *where)
    try:
        namespace = object.__getattribute__(holder, "__dict__")
    except (AttributeError, TypeError):
        return None
    if type(namespace) is dict and any(namespace is held for held in level):
        return namespace, PathPart("attribute", None, *where)
    return None


def _first(holder: Any, level: list[Any]) -> Any:  # noqa: ANN401 - any object
    """The object of a level that a holder refers to."""
    held = {id(value) for value in gc.get_referents(holder)}
    return next((value for value in level if id(value) in held), level[0])


def _element(holder: Any) -> PathPart:  # noqa: ANN401 - any object
    """An element without a name."""
    return PathPart("element", None, _name_of(type(holder)).removeprefix("builtins."))


def _name_of(kind: type) -> str:
    """A class by its module and name."""
    return f"{module_of(kind)}.{kind.__qualname__}"


def _cache(wrapper: Any) -> PathPart:  # noqa: ANN401 - an lru_cache has no public type
    """A function's cache."""
    function = wrapper
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    if isinstance(function, partial):
        function = function.func
    code = getattr(function, "__code__", None)
    name, module = getattr(wrapper, "__name__", "cache"), module_of(wrapper)
    most = type(wrapper).cache_info(wrapper).maxsize
    if code is None:
        return PathPart("cache", name, module, most=most)
    return PathPart("cache", name, module, code.co_filename, code.co_firstlineno, most)


_FINDERS: tuple[tuple[Any, Any], ...] = (
    (dict, _in_dict),
    (type, _in_class),
    (types.FunctionType, _in_function),
    ((types.GeneratorType, types.CoroutineType), _in_generator),
)
