"""Recognise out-of-memory errors, and release unused memory."""

import gc
import subprocess

from holdwater.actions.frameworks import clear_caches, synchronise
from holdwater.probes.devices import loaded

_MESSAGES = (
    "DefaultCPUAllocator: can't allocate memory",  # torch on a CPU raises a plain RuntimeError
    "DefaultCPUAllocator: not enough memory",
    "MPS backend out of memory",
    "[malloc_or_wait] Unable to allocate",  # MLX
    "[malloc] Unable to allocate",
    "[metal::malloc] Attempting to allocate",
    "[metal::malloc] Resource limit (",  # of buffers
    "kIOGPUCommandBufferCallbackErrorOutOfMemory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
)
"""Messages of frameworks without an exception type for it."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an exception means out of memory: by its type, or by the message of frameworks without one.

    Args:
        error: The exception; those that it was raised from count too.
    """
    return shortage_of(error) is not None


def shortage_of(error: BaseException | None) -> str | None:
    """Which memory an exception says was short: `device memory` or `host memory`; None if it does not say so.

    Args:
        error: The exception; those that it was raised from count too.
    """
    seen = 0
    while error is not None and seen < 8:
        if _says_so(error):
            torch = loaded("torch")
            by_type = torch is not None and issubclass(type(error), torch.OutOfMemoryError)
            on_device = by_type or any(words in said_by(error) for words in ("CUDA", "CUBLAS", "MPS", "metal"))
            return "device memory" if on_device else "host memory"
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None


def release() -> None:
    """Release unused memory: garbage in cycles, and the frameworks' caches."""
    gc.collect()
    synchronise()
    clear_caches()


def _says_so(error: BaseException) -> bool:
    """Whether this one exception does."""
    torch = loaded("torch")
    if issubclass(type(error), MemoryError if torch is None else (MemoryError, torch.OutOfMemoryError)):
        return True
    return type(error) is RuntimeError and any(words in said_by(error) for words in _MESSAGES)


def said_by(error: BaseException) -> str:
    """The message of an exception, by its arguments: no method of the user's is called.

    Args:
        error: The exception.
    """
    arguments = BaseException.__dict__["args"].__get__(error)
    plain = [str(one) for one in arguments if type(one) in {str, int, float}]
    if type(error) is subprocess.CalledProcessError:
        return f"a command died with exit code {plain[0]}"
    if issubclass(type(error), OSError) and len(plain) > 1:
        return f"[Errno {plain[0]}] {plain[1]}"
    return ", ".join(plain)
