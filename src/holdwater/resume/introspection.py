"""Read a user's objects without calling them: attributes, what a function closes over, whose a class is."""

import functools
import logging
import sys
import types

import torch

from holdwater.signal_errors import not_the_scripts

PLAIN = (bool, int, float, complex, str, bytes, type(None), range, slice, torch.dtype, torch.device, torch.Size)


def isinstance_exactly(value: object, kinds: tuple[type, ...]) -> bool:
    """Whether a value has exactly one of these types: `isinstance` asks the object itself, which may raise.

    Args:
        value: Anything.
        kinds: The types.
    """
    return any(type(value) is kind for kind in kinds)


def attributes_of(value: object) -> dict[str, object]:
    """The `__dict__` of an object, without calling anything of its class.

    Args:
        value: Anything.
    """
    try:
        found = object.__getattribute__(value, "__dict__")
    except not_the_scripts(AttributeError, TypeError):
        return {}
    return dict(found) if type(found) is dict else {}


def in_cell(cell: types.CellType) -> tuple[object, ...]:
    """What a variable holds that several functions share; nothing if it is not set.

    Args:
        cell: The variable.
    """
    try:
        return (cell.cell_contents,)
    except not_the_scripts(ValueError):
        return ()


def is_users(thing: type | types.FunctionType) -> bool:
    """Whether a class or a function is the user's own: its module is not an installed one.

    Args:
        thing: The class or the function.
    """
    module = sys.modules.get(thing.__module__ or "")
    file = getattr(module, "__file__", None)
    return thing.__module__ == "__main__" or (isinstance(file, str) and is_users_file(file))


@functools.lru_cache(maxsize=4096)
def is_users_file(file: str) -> bool:
    """Whether a file is the user's own: not installed, and not of Python or of holdwater.

    Args:
        file: Its path.
    """
    ours, standard = __file__.rpartition("/resume/")[0], logging.__file__.rpartition("/logging/")[0]
    installed = any(part in file for part in ("site-packages", "dist-packages"))
    return not (installed or file.startswith((ours + "/", standard + "/", "<frozen")))
