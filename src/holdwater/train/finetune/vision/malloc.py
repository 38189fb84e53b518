"""Let freed pictures go back to the kernel at once.

glibc maps a large piece for itself alone and unmaps it when it is freed, but raises the size from which on it does
so to that of the largest piece that was freed, up to 32 MB. From then on decoded pictures come out of the arena of
the thread that decodes them, and an arena keeps what it once had. Source: glibc, mallopt(3), `M_MMAP_THRESHOLD`.
"""

import ctypes
from contextlib import suppress

M_MMAP_THRESHOLD = -3
"""As malloc.h numbers it."""
LARGE = 1 << 20
"""Bytes of a piece that is mapped for itself alone."""


def map_large_pieces() -> None:
    """Fix the size from which on pieces are mapped; nothing follows where the C library has no such setting.

    For runs that train on a device: their large pieces on the host are pictures. Tensors of a run on the CPU would
    be mapped anew in each step.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)
