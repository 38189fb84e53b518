"""The C heap of this process: memory that malloc has handed out, and free memory that it keeps.

Source: glibc manual, "Statistics for Memory Allocation with malloc" (`mallinfo2`, glibc 2.33).
"""

import ctypes
from collections.abc import Callable
from pathlib import Path

from holdwater.probes.probe import Reading
from holdwater.signal_errors import not_the_scripts

_FIELDS = (
    "arena",
    "ordblks",
    "smblks",
    "hblks",
    "hblkhd",
    "usmblks",
    "fsmblks",
    "uordblks",
    "fordblks",
    "keepcost",
)


class _Mallinfo2(ctypes.Structure):
    """`struct mallinfo2` of <malloc.h>."""

    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]


def _find_mallinfo2() -> Callable[[], _Mallinfo2] | None:
    """Find glibc's mallinfo2 in this process; None if the C library has none."""
    try:
        function = ctypes.CDLL(None).mallinfo2
    except not_the_scripts(OSError, AttributeError):
        return None
    function.restype = _Mallinfo2
    function.argtypes = ()
    return function


def replaced_allocator(maps: Path = Path("/proc/self/maps")) -> str | None:
    """Name the allocator that replaces malloc (mallinfo2 does not see it); None if it is malloc."""
    try:
        text = maps.read_text(encoding="utf-8", errors="replace")
    except not_the_scripts(OSError):
        return None
    return next((name for name in ("jemalloc", "mimalloc", "tcmalloc") if f"lib{name}" in text), None)


class Heap:
    """malloc's own counters, over all its arenas."""

    name = "heap"
    measures = "heap in use, and heap that malloc keeps free"
    every = 1.0

    def __init__(self) -> None:
        self._mallinfo2 = _find_mallinfo2()
        self._replaced = replaced_allocator()

    def unavailable(self) -> str | None:
        """Return why this probe cannot read here; None if it can."""
        if self._mallinfo2 is None:
            return "the C library has no mallinfo2 (it needs glibc 2.33 or newer)"
        if self._replaced is not None:
            return f"{self._replaced} replaces malloc, and mallinfo2 does not see it"
        return None

    def read(self) -> Reading:
        """Return heap in use (blocks in arenas and mapped ones) and heap kept free."""
        if self._mallinfo2 is None:
            return {}
        in_use, kept = self.read_pair()
        return {"heap_in_use": in_use, "heap_kept": kept}

    def read_pair(self) -> tuple[int, int]:
        """Return heap in use and heap kept free, in bytes; only if `unavailable` is None."""
        info = self._mallinfo2()  # type: ignore[misc]
        return info.uordblks + info.hblkhd, info.fordblks
