"""Find the calls by which a program's own code lets a library keep something, in the library's source.

A list of a library's object is filled by one of its methods, which others may call in turn: `Accelerator.prepare`
leads to the statement that appends to `_models`. The files beside the one that defines the object's class are read
too, for its base classes.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from holdwater.attribution.source import SourceFile, Statement, parse
from holdwater.signal_errors import suppressed

MOST_FILES = 80
"""Files of a library's folder that are read."""
MOST_LEVELS = 4
"""Calls from a function of the library that stores to the one that the program calls, with both."""
MOST_FUNCTIONS = 64
"""What more functions lead to says nothing of who called it."""


def calls_that_store(source: SourceFile, file: str, name: str) -> list[Statement]:
    """The statements of a program that call what stores under a name, the most direct calls only.

    Args:
        source: Of the program.
        file: Of the library, where the class of the object is defined.
        name: The attribute of the object, such as `_models`.
    """
    return next((found for names in storing_functions(file, name) if (found := source.calls_of(names))), [])


def calls_that_make(source: SourceFile, file: str | None, name: str) -> list[Statement]:
    """The statements of a program that have a library make an object of a class: `pool.imap` for its results.

    Args:
        source: Of the program.
        file: Of the library, where the class is defined.
        name: The class.
    """
    if file is None:
        return []
    made = (one.function for library in _with(_beside(file), [f"{name}("]) for one in library.calls_of([name]))
    makers = _callable(made)
    return source.calls_of(makers) if len(makers) <= MOST_FUNCTIONS else []


def storing_functions(file: str, name: str) -> Iterator[frozenset[str]]:
    """Functions of a library that store under a name, then those that call these, and so on.

    Args:
        file: Of the library.
        name: The attribute.

    Yields:
        The names of each level; none if nothing stores there, or too many functions do.
    """
    files = _beside(file)
    stores = (one.function for source in _with(files, [name]) for one in source.stores(name) if one.kind != "name")
    level, known = _callable(stores), frozenset[str]()
    for _ in range(MOST_LEVELS):
        if not 0 < len(level) <= MOST_FUNCTIONS:
            return
        yield level
        known |= level
        callers = (source.callers for source in _with(files, [f"{word}(" for word in level]))
        level = _callable(one for calls in callers for word in level for one in calls.get(word, ())) - known


def _callable(functions: Iterable[str]) -> frozenset[str]:
    """Without a module's own statements, and what Python itself calls."""
    return frozenset(name for name in functions if not name.startswith(("<", "__")))


@lru_cache(maxsize=8)
def _beside(file: str) -> tuple[tuple[str, str], ...]:
    """The paths and texts of a file and of those beside it."""
    own = Path(file)
    found = []
    for path in [own, *sorted(one for one in own.parent.glob("*.py") if one != own)][:MOST_FILES]:
        with suppressed(OSError):
            found.append((str(path), path.read_text(encoding="utf-8", errors="replace")))
    return tuple(found)


def _with(files: Iterable[tuple[str, str]], words: Sequence[str]) -> Iterator[SourceFile]:
    """Those files, parsed, whose text holds one of some words."""
    for path, text in files:
        source = parse(path) if any(word in text for word in words) else None
        if source is not None:
            yield source
