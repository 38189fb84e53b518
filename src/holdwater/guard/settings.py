"""What a user may ask of a guard, and the checks of it."""

from dataclasses import dataclass
from pathlib import Path

from holdwater.units import Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """The settings of one guarded run; each is also a key of the config file."""

    max_memory: Bytes | None = None
    """The budget of the pool in which the training's tensors live: the device's, or the host's; None finds one."""
    max_host_memory: Bytes | None = None
    """The budget of the host's memory beside a device; None finds one."""
    leak_threshold: float = 1e6
    """Bytes per step above which remedies may act on a leak."""
    threshold: float = 0.8
    """The share of the budget above which caches are released."""
    waiting_below: Bytes | None = None
    """Available memory under which the run waits; None takes 15 GB, or 20 % of a small machine."""
    stopping_below: Bytes | None = None
    """Available memory under which the run stops; None takes 10 GB, or 13 % of a small machine."""
    cache_clear_interval: int | None = None
    """Steps between two clearings of framework caches; None clears only when memory is short."""
    reload_interval: int | None = None
    """Steps after which the process is recycled; None recycles only when memory is short."""
    reload_threshold: Bytes | None = None
    """Memory in use above which the process is recycled."""
    deaths: int = 0
    """Processes of this run that were killed for want of memory: remedies act the earlier."""
    dry_run: bool = False
    """Decide and note, but do nothing."""
    device: str = "cpu"
    """The device whose memory counts: `cpu`, `cuda`, `mps`."""
    out: Path | None = None
    """The folder of the run; None keeps its history in memory only."""
    rank: int = 0
    """The number of this process among those of the run."""
    first_step: int = 0
    """The step that was done last, when a run goes on; 0 for a new one."""
    set_limits: bool = True
    """Set the frameworks' own memory limits to the budget."""
