"""What an object written in C holds, as a value to compare: no attribute leads to its content.

Buffers, decimals, positions in files, caches of functions, databases and hashes.
"""

import array
import ctypes
import functools
import io
import types
import zlib
from decimal import Decimal
from typing import Any

from holdwater.signal_errors import not_the_scripts

BUFFERS = (bytearray, memoryview, array.array, ctypes._SimpleCData.__mro__[1])  # noqa: SLF001 - it has no public name
CACHED = type(functools.lru_cache(len))


def native_state(value: Any) -> object:  # noqa: ANN401 - anything
    """What an object written in C holds; None for any other, one that equals nothing if that cannot be read.

    Args:
        value: Anything.
    """
    kind = type(value)
    try:
        if issubclass(kind, BUFFERS):
            return zlib.crc32(memoryview(value))
        if kind is Decimal:
            return str(value)
        if issubclass(kind, io.IOBase):
            return _file_state(value)
        if kind is CACHED:
            return value.cache_info().misses
        return _named_state(value)
    except not_the_scripts(Exception):  # closed, released, of another thread
        return object()


def _file_state(file: Any) -> object:  # noqa: ANN401 - a file of any kind
    """The position in a file that is read, and what a file in memory holds; None for any other."""
    kind = type(file)
    if kind is io.StringIO or kind is io.BytesIO:
        content = file.getvalue()
        return (file.tell(), zlib.crc32(content.encode() if kind is io.StringIO else content))
    if kind.__module__ != "_io" or file.closed or not file.readable():
        return None
    return file.tell()


def _named_state(value: Any) -> object:  # noqa: ANN401 - anything
    """Of the kinds whose modules a script may not have imported."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__name__}"
    if name == "sqlite3.Connection":
        return value.total_changes
    if name == "_hashlib.HASH":
        return value.digest()
    if name == "_queue.SimpleQueue":
        return 0 if value.empty() else object()
    return None


def is_native_iterator(kind: type) -> bool:
    """Whether it is an iterator written in C, such as that of a list, whose position cannot be read.

    Args:
        kind: Any type.
    """
    found = next((vars(base)["__next__"] for base in kind.__mro__ if "__next__" in vars(base)), None)
    return type(found) is types.WrapperDescriptorType and not issubclass(kind, io.IOBase)
