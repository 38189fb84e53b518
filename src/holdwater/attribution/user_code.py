"""Decide which files are the user's own: not the standard library, an installed package or holdwater."""

import os
import sys
import sysconfig
from functools import lru_cache
from types import FrameType, ModuleType
from typing import Any, NamedTuple

from holdwater.attribution.cells import cells, is_cell
from holdwater.attribution.kinds import is_a, namespace_of
from holdwater.signal_errors import not_the_scripts

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep  # noqa: PTH120, PTH100 - light
_OBSERVERS = tuple(f"{_HERE}{name}{os.sep}" for name in ("attribution", "observe", "probes", "process"))
_LIBRARIES = tuple({
    os.path.realpath(folder) + os.sep
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
    if (folder := sysconfig.get_path(name))
})
_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


@lru_cache(maxsize=4096)
def is_users(file: str) -> bool:
    """Whether a source file is the user's own.

    Args:
        file: As in a code object; code compiled from a string (`<string>`) is not, a notebook's cell is.
    """
    if is_cell(file):
        return True
    if not file or file.startswith("<"):
        return False
    if _is_librarys(file):  # most are, and following links takes 30 µs: a process has two thousand modules
        return False
    try:
        return not _is_librarys(os.path.realpath(file, strict=True))
    except not_the_scripts(OSError):  # a file that is gone, or within an archive
        return not _is_librarys(os.path.realpath(file))


def is_ours(file: str) -> bool:
    """Whether a source file is holdwater's.

    Args:
        file: As in a code object.
    """
    return file.startswith(_HERE)


def is_observers(file: str) -> bool:
    """Whether a source file is of what observes here; `frameworks` also calls libraries for the program.

    Args:
        file: As in a code object.
    """
    return file.startswith(_OBSERVERS)


def _is_librarys(path: str) -> bool:
    """Whether a path is in a library's folder, without resolving links."""
    return path.startswith((_HERE, *_LIBRARIES)) or any(folder in path for folder in _PACKAGES)


def users_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of the user's own code; None if there is none on the stack."""
    while frame is not None and not is_users(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


class UsersModule(NamedTuple):
    """A module of the user's own."""

    name: str
    file: str
    names: dict[str, Any]
    """Its globals."""


_librarys: dict[str, int] = {}
"""Modules that are not the user's own, by name, with their identities: a process has two thousand."""


def users_modules() -> list[UsersModule]:
    """The loaded modules that are the user's own, the script first."""
    found = []
    for key, module in list(sys.modules.items()):
        if _librarys.get(key) == id(module):
            continue
        names = namespace_of(module) if is_a(module, ModuleType) else {}
        file, name = names.get("__file__"), names.get("__name__")
        if type(file) is str and type(name) is str and is_users(file) and key != "__mp_main__":
            found.append(UsersModule(name, file, names))
        elif type(file) is str and type(name) is str:
            _librarys[key] = id(module)
        elif key == "__main__" and "get_ipython" in names:
            found += _notebook(names)
    return sorted(found, key=lambda module: module.name != "__main__")


def _notebook(names: dict[str, Any]) -> list[UsersModule]:
    """A notebook: its names belong to the newest cell; the other cells are files without names."""
    files = cells()
    return [UsersModule("__main__", file, {} if number else names) for number, file in enumerate(files)]
