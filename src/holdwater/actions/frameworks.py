"""Wait for accelerators and empty frameworks' caches: PyTorch (CUDA, MPS) and MLX.

Only a framework that the program has loaded is touched.
"""

from holdwater.probes.devices import loaded


def uses_accelerator() -> bool:
    """Whether the program has started CUDA, or has loaded a framework that works on Apple's GPU."""
    torch = loaded("torch")
    cuda = torch is not None and torch.cuda.is_initialized()
    return cuda or loaded("mlx.core") is not None or (torch is not None and torch.backends.mps.is_available())


def synchronise() -> None:
    """Wait until the accelerators have finished their queued work."""
    torch = loaded("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    if torch is not None and torch.backends.mps.is_available():
        torch.mps.synchronize()
    mlx = loaded("mlx.core")
    if mlx is not None:
        mlx.synchronize()


def clear_caches() -> None:
    """Return the frameworks' cached memory to the driver."""
    torch = loaded("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch is not None and torch.backends.mps.is_available():
        torch.mps.empty_cache()
    mlx = loaded("mlx.core")
    if mlx is not None:
        mlx.clear_cache()
