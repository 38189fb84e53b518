"""Tell a lack of memory from every other failure, and give back what can be given back."""

import gc

from holdwater.actions.frameworks import clear_caches, synchronise
from holdwater.probes.devices import loaded

_MESSAGES = (
    "DefaultCPUAllocator: can't allocate memory",  # torch on a CPU raises a plain RuntimeError
    "DefaultCPUAllocator: not enough memory",
    "MPS backend out of memory",
    "[malloc_or_wait] Unable to allocate",  # MLX
    "[malloc] Unable to allocate",
    "[metal::malloc] Attempting to allocate",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
)
"""What frameworks say that have no type of their own for it."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an exception says that memory is short: by its type, or by the words of frameworks without one.

    Args:
        error: What was raised; the exceptions that it was raised from count too.
    """
    seen = 0
    while error is not None and seen < 8:
        if _says_so(error):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


def release() -> None:
    """Give back what nobody uses: garbage in cycles, and what the frameworks keep."""
    gc.collect()
    synchronise()
    clear_caches()


def _says_so(error: BaseException) -> bool:
    """Whether this one exception does."""
    if isinstance(error, MemoryError):
        return True
    torch = loaded("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return type(error) is RuntimeError and any(words in str(error) for words in _MESSAGES)
