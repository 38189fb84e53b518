"""The settings of a guard."""

from dataclasses import dataclass, field
from pathlib import Path

from holdwater.policy.replacement import ReplacementConfig
from holdwater.units import Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """The settings of one guarded run; each is also a key of the config file."""

    max_memory: Bytes | None = None
    """The budget of the pool in which the training's tensors live: the device's, or the host's; None finds one."""
    max_host_memory: Bytes | None = None
    """The budget of the host's memory, where training uses a device; None finds one."""
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
    replacement: ReplacementConfig = field(default_factory=ReplacementConfig)
    """When the process is replaced by a fresh one, where another is started."""
    deaths: int = 0
    """Processes of this run that were killed for want of memory; with each, remedies act earlier."""
    dry_run: bool = False
    """Decide on actions and record them, but carry none out."""
    device: str = "cpu"
    """The device whose memory counts: `cpu`, `cuda`, `mps`."""
    out: Path | None = None
    """The folder of the run; None keeps its history in memory only."""
    rank: int = 0
    """The number of this process among those of the run."""
    first_step: int = 0
    """The last step that was done, when a run goes on; 0 for a new one."""
    set_limits: bool = True
    """Set the frameworks' own memory limits to the budget."""
    wired_limit: Bytes | None = None
    """How much memory MLX may wire on macOS; None leaves its limit alone (docs/apple-silicon.md says why)."""
