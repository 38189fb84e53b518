"""Find how one object holds another: as an attribute, entry, default, cached result, or generator's variable.

Attributes are read without calling the object's own code, so that reading changes nothing.
"""

import gc
import types
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

from holdwater.attribution.frames import local_items
from holdwater.attribution.kinds import (
    attributes,
    file_of,
    full_name_of,
    is_a,
    module_of,
    namespace_of,
    qualname_of,
)
from holdwater.attribution.mlx_arrays import is_module
from holdwater.signal_errors import not_the_scripts

_Cached = type(lru_cache(len))
Role = Literal["global", "local", "attribute", "class attribute", "closure", "default", "cache", "element"]
MOST_WRAPPED = 16
"""Decorators of a cached function that are looked through."""
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
    if is_a(item, type) and isinstance(item, type):
        return PathPart("global", qualname_of(item), module_of(item), file_of(module_of(item)))
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
    except not_the_scripts(RuntimeError):  # another thread changes it
        return None


def _in_dict(table: dict[Any, Any], level: list[Any]) -> Link | None:
    """An entry of a dictionary, with its key if that is a string."""
    owner = type(table)
    for held in level:
        key = key_of(table, held)
        if key is not None and is_module(table):
            return held, PathPart("attribute", str(key), full_name_of(owner), file_of(module_of(owner)))
        if key is not None:
            return held, PathPart("element", key if type(key) is str else None, "dict")
    return None


def _in_class(holder: type, level: list[Any]) -> Link | None:
    """A class's own namespace."""
    for held in level:
        if type(held) is dict and held.get("__module__") == module_of(holder) and "__dict__" in held:
            return held, PathPart("class attribute", None, full_name_of(holder), file_of(module_of(holder)))
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
    frame = generator.gi_frame if is_a(generator, types.GeneratorType) else generator.cr_frame
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
    where = (full_name_of(owner), file_of(module_of(owner)))
    for name, value in attributes(holder):
        if any(value is held for held in level):
            return value, PathPart("attribute", name, *where)
    namespace = namespace_of(holder)
    if any(namespace is held for held in level):
        return namespace, PathPart("attribute", None, *where)
    return None


def _first(holder: Any, level: list[Any]) -> Any:  # noqa: ANN401 - any object
    """The object of a level that a holder refers to."""
    held = {id(value) for value in gc.get_referents(holder)}
    return next((value for value in level if id(value) in held), level[0])


def _element(holder: Any) -> PathPart:  # noqa: ANN401 - any object
    """An element without a name."""
    return PathPart("element", None, full_name_of(type(holder)).removeprefix("builtins."))


def _cache(wrapper: Any) -> PathPart:  # noqa: ANN401 - an lru_cache has no public type
    """A function's cache."""
    function, names = wrapper, namespace_of(wrapper)
    for _ in range(MOST_WRAPPED):
        inner = namespace_of(function).get("__wrapped__")
        function = function if inner is None else inner
    if is_a(function, partial):
        function = partial.func.__get__(function)
    name, module = names.get("__name__"), names.get("__module__")
    name, module = name if type(name) is str else "cache", module if type(module) is str else ""
    most = type(wrapper).cache_info(wrapper).maxsize
    if type(function) is not types.FunctionType:
        return PathPart("cache", name, module, most=most)
    code = function.__code__
    return PathPart("cache", name, module, code.co_filename, code.co_firstlineno, most)


_FINDERS: tuple[tuple[Any, Any], ...] = (
    (dict, _in_dict),
    (type, _in_class),
    (types.FunctionType, _in_function),
    ((types.GeneratorType, types.CoroutineType), _in_generator),
)
