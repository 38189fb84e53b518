"""Read the local variables of running functions without making a snapshot.

`frame.f_locals` of Python 3.12 and older makes a dictionary that the frame keeps: it would keep old values alive,
and change what a program got from `locals()`. So the variables are read in place.

Sources: Python documentation, C API, `PyFrame_GetVar` (3.12); PEP 667 (3.13, `f_locals` without a snapshot);
CPython 3.11, Include/internal/pycore_frame.h, whose layout does not change within 3.11 and is checked before use.
"""

import ctypes
import sys
import threading
from types import CellType, FrameType
from typing import Any

from holdwater.attribution.user_code import is_ours
from holdwater.signal_errors import not_the_scripts

_OPTIMIZED = 0x1
"""The flag of code whose variables are in slots: functions, not modules or classes."""
_FRAME_AT, _CODE_AT, _SLOTS_AT = 24, 32, 72
"""Offsets in CPython 3.11, 64 bits: of the inner frame's address, and in it of its code and of its variables."""


def running_frames() -> list[FrameType]:
    """The frames of all threads, each thread's innermost first, without those of holdwater."""
    found = []
    for top in sys._current_frames().values():  # noqa: SLF001 - the documented function for all threads' frames
        frame: FrameType | None = top
        while frame is not None:
            if not is_ours(frame.f_code.co_filename):
                found.append(frame)
            frame = frame.f_back
    del top  # it may be this very frame: that would be a cycle
    return found


def local_values(frame: FrameType) -> list[Any]:
    """The values of a function's local variables; none for a module, or if they cannot be read safely."""
    return [value for _, value in local_items(frame)]


def local_items(frame: FrameType) -> list[tuple[str, Any]]:
    """A function's local variables that have a value, by name; as `local_values`."""
    code = frame.f_code
    if not code.co_flags & _OPTIMIZED or sys.implementation.name != "cpython":
        return []
    if sys.version_info >= (3, 13):
        return list(frame.f_locals.items())
    if sys.version_info >= (3, 12):
        return _by_name(frame, (*code.co_varnames, *code.co_cellvars, *code.co_freevars))
    return _by_slot(frame)


def _by_name(frame: FrameType, names: tuple[str, ...]) -> list[tuple[str, Any]]:
    """Read each variable; one without a value is left out."""
    get = ctypes.pythonapi.PyFrame_GetVar
    get.restype, get.argtypes = ctypes.py_object, (ctypes.py_object, ctypes.py_object)
    values = []
    for name in names:
        try:
            values.append((name, get(frame, name)))
        except NameError:
            continue
    return values


def _by_slot(frame: FrameType) -> list[tuple[str, Any]]:
    """Read the slots of a frame of CPython 3.11; nothing if its layout is not the expected one."""
    if ctypes.sizeof(ctypes.c_void_p) != 8 or not hasattr(sys, "getrefcount"):
        return []
    if _runs_elsewhere(frame):
        return []  # its thread may return from it during the read, which frees its variables
    inner = ctypes.c_void_p.from_address(id(frame) + _FRAME_AT).value
    if not inner or ctypes.c_void_p.from_address(inner + _CODE_AT).value != id(frame.f_code):
        return []
    code = frame.f_code
    cells = (*(name for name in code.co_cellvars if name not in code.co_varnames), *code.co_freevars)
    names = (*code.co_varnames, *cells)
    slots = (ctypes.c_void_p * len(names)).from_address(inner + _SLOTS_AT)
    pairs = zip(names, slots, strict=True)
    found = [(name, ctypes.cast(slot, ctypes.py_object).value) for name, slot in pairs if slot]
    return [(name, _content(value) if name in {*cells, *code.co_cellvars} else value) for name, value in found]


def _runs_elsewhere(frame: FrameType) -> bool:
    """Whether a function runs in another thread; this thread's own frames do not change meanwhile."""
    others = sys._current_frames()  # noqa: SLF001 - as above
    others.pop(threading.get_ident())  # which would hold this very frame: a cycle
    for top in others.values():
        at: FrameType | None = top
        while at is not None:
            if at is frame:
                return True
            at = at.f_back
    return False


def _content(value: Any) -> Any:  # noqa: ANN401 - any object
    """The value of a closure's variable; the cell itself if it is empty."""
    try:
        return value.cell_contents if type(value) is CellType else value
    except not_the_scripts(ValueError):
        return value
