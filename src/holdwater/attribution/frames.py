"""What running functions hold in their local variables, read without making a snapshot.

`frame.f_locals` of Python 3.12 and older makes a dictionary that the frame keeps: it would hold on to old
values, and change what a program got from `locals()`. So the variables are read where they lie.

Sources: Python documentation, C API, `PyFrame_GetVar` (3.12); PEP 667 (3.13, `f_locals` without a snapshot);
CPython 3.11, Include/internal/pycore_frame.h, whose layout does not change within 3.11 and is checked before use.
"""

import ctypes
import sys
from types import FrameType
from typing import Any

_OPTIMIZED = 0x1
"""The flag of code whose variables lie in slots: functions, not modules or classes."""
_FRAME_AT, _CODE_AT, _SLOTS_AT = 24, 32, 72
"""Offsets in CPython 3.11, 64 bits: of the inner frame's address, and in it of its code and of its variables."""


def local_values(frame: FrameType) -> list[Any]:
    """The values of a function's local variables; none for a module, or where they cannot be read safely."""
    code = frame.f_code
    if not code.co_flags & _OPTIMIZED or sys.implementation.name != "cpython":
        return []
    if sys.version_info >= (3, 13):
        return list(frame.f_locals.values())
    if sys.version_info >= (3, 12):
        return _by_name(frame, code.co_varnames)
    return _by_slot(frame, len(code.co_varnames))


def _by_name(frame: FrameType, names: tuple[str, ...]) -> list[Any]:
    """Ask for each variable; one without a value is left out."""
    get = ctypes.pythonapi.PyFrame_GetVar
    get.restype, get.argtypes = ctypes.py_object, (ctypes.py_object, ctypes.py_object)
    values = []
    for name in names:
        try:
            values.append(get(frame, name))
        except NameError:
            continue
    return values


def _by_slot(frame: FrameType, count: int) -> list[Any]:
    """Read the slots of a frame of CPython 3.11; nothing where its layout is not the expected one."""
    if ctypes.sizeof(ctypes.c_void_p) != 8 or not hasattr(sys, "getrefcount"):
        return []
    inner = ctypes.c_void_p.from_address(id(frame) + _FRAME_AT).value
    if not inner or ctypes.c_void_p.from_address(inner + _CODE_AT).value != id(frame.f_code):
        return []
    slots = (ctypes.c_void_p * count).from_address(inner + _SLOTS_AT)
    return [ctypes.cast(slot, ctypes.py_object).value for slot in slots if slot]
