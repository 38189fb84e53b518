"""What an object holds to which no attribute leads, as a value to compare, or as parts to follow.

Buffers, decimals, positions in files, caches of functions, databases and hashes; context variables, values of a
thread, weak dictionaries, results that a thread computes, and programs that answer.
"""

import array
import concurrent.futures
import contextvars
import ctypes
import functools
import io
import subprocess
import threading
import types
import weakref
import zlib
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from holdwater.signal_errors import not_the_scripts

BUFFERS = (bytearray, memoryview, array.array, ctypes._SimpleCData.__mro__[1])  # noqa: SLF001 - it has no public name
WEAK = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary, weakref.WeakSet)
LARGEST = 64 << 20
"""Bytes of a database that is read in whole."""
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
        return object() if _answers(value) else _named_state(value)
    except not_the_scripts(Exception):  # closed, released, of another thread
        return object()


def _answers(value: Any) -> bool:  # noqa: ANN401 - anything
    """Whether another process answers through an object: what that knows cannot be seen."""
    kind = type(value)
    if issubclass(kind, subprocess.Popen):
        return value.stdout is not None and value.returncode is None
    names = {f"{base.__module__}.{base.__name__}" for base in kind.__mro__}
    if "multiprocessing.connection.Connection" in names:
        return bool(value.readable and not value.closed)
    return "multiprocessing.managers.BaseProxy" in names


def _database(connection: Any) -> object:  # noqa: ANN401 - its module may not be imported
    """How much a connection has changed, and what the database holds if it is not too large."""
    cursor = connection.cursor()
    cursor.row_factory = None  # a function of the user's
    pages, size = (cursor.execute(f"pragma {what}").fetchone()[0] for what in ("page_count", "page_size"))
    content = zlib.crc32(connection.serialize()) if pages * size <= LARGEST else None
    return (connection.total_changes, content)


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
        return _database(value)
    if name == "_hashlib.HASH":
        return value.digest()
    if name == "numpy.random.bit_generator.SeedSequence":
        return repr(value.state)
    if name == "_queue.SimpleQueue":
        return 0 if value.empty() else object()
    return None


def hidden_parts(value: Any) -> Iterable[tuple[str, object]] | None:  # noqa: ANN401 - anything
    """What an object leads to by other ways than attributes; None for any object that is not of these kinds.

    Args:
        value: Anything.
    """
    kind = type(value)
    if kind is contextvars.ContextVar:
        return ((".get()", value.get(None)),)
    if kind is threading.local:
        return [(f".{name}", part) for name, part in vars(value).items()]
    if kind in WEAK:
        return ((".data", value.data),)
    if issubclass(kind, concurrent.futures.Future):
        return ((".result()", value._result if value._state == "FINISHED" else object()),)  # noqa: SLF001
    return None


def is_native_iterator(kind: type) -> bool:
    """Whether it is an iterator written in C, such as that of a list, whose position cannot be read.

    Args:
        kind: Any type.
    """
    found = next((vars(base)["__next__"] for base in kind.__mro__ if "__next__" in vars(base)), None)
    return type(found) is types.WrapperDescriptorType and not issubclass(kind, io.IOBase)
