"""Set the frameworks' own memory limits to the budget, so that they fail inside it and not beyond.

MLX's wired limit is left alone unless the user gives one: wired memory cannot be compressed or swapped, and too
much of it makes the kernel panic (mlx#3186).

Sources: PyTorch documentation, `torch.cuda.set_per_process_memory_fraction`,
`torch.mps.set_per_process_memory_fraction`; MLX documentation, `set_memory_limit`, `set_cache_limit`,
`set_wired_limit`.
"""

from dataclasses import dataclass

from holdwater.budget import Budget
from holdwater.errors import ConfigError
from holdwater.probes.devices import EXTERNAL, loaded
from holdwater.probes.metal import metal
from holdwater.units import Bytes, format_size

MLX_CACHE_SHARE = 0.25
"""The part of the budget that MLX may keep as cache."""


@dataclass(frozen=True, slots=True)
class LimitChange:
    """A framework's limit, before and after."""

    name: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.name}: {self.old} -> {self.new}"


def set_framework_limits(budget: Budget, *, wired: Bytes | None = None) -> tuple[LimitChange, ...]:
    """Set the limits of every framework that the program has loaded; a limit is never raised.

    Args:
        budget: Of the pool in which the training's tensors live.
        wired: How much memory MLX may wire; None leaves its limit alone.

    Raises:
        ConfigError: More is to be wired than the device recommends.
    """
    return (*_limit_cuda(budget), *_limit_mps(budget), *_limit_mlx(budget), *_limit_wired(wired))


def _limit_cuda(budget: Budget) -> tuple[LimitChange, ...]:
    """Lower the fraction of the current CUDA device that this process may take."""
    torch = loaded("torch")
    if torch is None or not torch.cuda.is_initialized():
        return ()  # a guard never initialises a device: workers forked later could not use it
    size = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    old = torch.cuda.get_per_process_memory_fraction()
    new = min(old, max(budget.limit - EXTERNAL.held, 0) / size)
    if new < old:
        torch.cuda.set_per_process_memory_fraction(new)
    return (LimitChange("CUDA memory of this process", _fraction(old, size), _fraction(new, size)),)


def _limit_mps(budget: Budget) -> tuple[LimitChange, ...]:
    """Set the share of Metal's recommended working set that PyTorch may take."""
    torch = loaded("torch")
    if torch is None or not torch.backends.mps.is_available():
        return ()
    size = torch.mps.recommended_max_memory()
    new = min(1.0, budget.limit / size)
    torch.mps.set_per_process_memory_fraction(new)
    return (LimitChange("MPS memory of this process", "PyTorch's default", _fraction(new, size)),)


def _limit_mlx(budget: Budget) -> tuple[LimitChange, ...]:
    """Lower MLX's limits on memory and on its cache."""
    mlx = loaded("mlx.core")
    if mlx is None:
        return ()
    changes = []
    for name, setter, new in (
        ("MLX memory", mlx.set_memory_limit, int(budget.limit)),
        ("MLX cache", mlx.set_cache_limit, int(MLX_CACHE_SHARE * budget.limit)),
    ):
        old = setter(new)
        if old < new:
            setter(old)
        changes.append(LimitChange(name, format_size(old), format_size(min(old, new))))
    return tuple(changes)


def _limit_wired(wired: Bytes | None) -> tuple[LimitChange, ...]:
    """Set how much memory MLX may wire, if the user gave a limit."""
    mlx, source = loaded("mlx.core"), metal()
    if mlx is None or wired is None:
        return ()
    most = None if source is None else source.limits().working_set
    if most is not None and wired > most:
        raise ConfigError(
            f"wired_limit is {format_size(wired)}, but the device recommends to hold {format_size(most)} at most; "
            "set it lower, or leave it out"
        )
    old = mlx.set_wired_limit(int(wired))
    return (LimitChange("MLX wired memory", format_size(old), format_size(wired)),)


def _fraction(fraction: float, size: int) -> str:
    """Format a share of a device."""
    return f"{fraction:.1%} of {format_size(size)}"
