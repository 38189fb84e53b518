"""Decide which files are the user's own: not the standard library, an installed package or holdwater."""

import os
import sys
import sysconfig
from functools import lru_cache
from types import FrameType
from typing import Any

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep  # noqa: PTH120, PTH100 - light
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
        file: As in a code object; code compiled from a string (`<string>`) is not.
    """
    if not file or file.startswith("<"):
        return False
    if _is_librarys(file):  # most are, and following links takes 30 µs: a process has two thousand modules
        return False
    return not _is_librarys(os.path.realpath(file))


def _is_librarys(path: str) -> bool:
    """Whether a path is in a library's folder, without resolving links."""
    return path.startswith((_HERE, *_LIBRARIES)) or any(folder in path for folder in _PACKAGES)


def users_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of the user's own code; None if there is none on the stack."""
    while frame is not None and not is_users(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def users_modules() -> list[Any]:
    """The loaded modules that are the user's own, the script first."""
    found = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if type(file) is str and is_users(file) and name != "__mp_main__":
            found.append(module)
    return sorted(found, key=lambda module: module.__name__ != "__main__")
