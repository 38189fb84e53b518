"""The memory budget of a run: given by the user, or found from what the machine can spare."""

from dataclasses import dataclass
from typing import Literal

from holdwater.errors import ConfigError
from holdwater.units import Bytes, format_size

SHARE = 0.8
"""How much of the available memory a run takes when no budget is given."""
LEAST = Bytes(16_000_000_000)
"""A found budget is at least this, where the machine has that much."""
MOST = Bytes(120_000_000_000)
"""A found budget is at most this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineMemory:
    """The memory that a run could use, read once before it starts."""

    total: Bytes
    """Physical memory of the machine."""
    available: Bytes
    """What new work could take without swapping."""
    cgroup_limit: Bytes | None = None
    """The smallest limit of the process's control groups; None where there is none."""
    device_size: Bytes | None = None
    """Memory of the accelerator that the run uses; None on a CPU."""

    def ceiling(self) -> tuple[Bytes, str] | None:
        """The smallest hard limit and its name; None where neither cgroup nor device has one."""
        limits = [
            (limit, name)
            for limit, name in ((self.cgroup_limit, "the cgroup limit"), (self.device_size, "the device"))
            if limit is not None
        ]
        return min(limits) if limits else None

    def usable(self) -> Bytes:
        """The size that scales the waiting and stopping levels: the machine, or a smaller cgroup."""
        return min(self.total, self.cgroup_limit or self.total)


@dataclass(frozen=True, slots=True)
class Budget:
    """The memory that a run may use, and where that number comes from."""

    limit: Bytes
    origin: Literal["given", "found"]
    reason: str
    """One line for people: where the limit comes from."""

    def __str__(self) -> str:
        return f"budget {format_size(self.limit)}: {self.reason}"


def give_budget(limit: Bytes, machine: MachineMemory, *, in_use: int = 0) -> Budget:
    """Take the budget that the user gave, never above a cgroup's or a device's limit.

    Args:
        limit: What the user asked for.
        machine: The memory that is there.
        in_use: What the process occupies already, before the run has begun.

    Returns:
        The budget, lowered to the cgroup or device limit where that is smaller.

    Raises:
        ConfigError: The process occupies the budget already.
    """
    reason = f"given ({format_size(limit)})"
    ceiling = machine.ceiling()
    if ceiling is not None and ceiling[0] < limit:
        limit, reason = ceiling[0], f"{reason}, lowered to {ceiling[1]} of {format_size(ceiling[0])}"
    if limit <= in_use:
        raise ConfigError(
            f"max_memory is {format_size(limit)}, but the process occupies {format_size(in_use)} before "
            f"the first step; set max_memory above {format_size(in_use * 1.25)}"
        )
    return Budget(limit, "given", reason)


def find_budget(machine: MachineMemory) -> Budget:
    """Find a budget from what is available when the user gave none.

    The rule: 80 % of the available memory, at least 16 GB where that much is available, at most
    120 GB, and never above a cgroup's or a device's limit.
    """
    candidates = [
        (
            max(Bytes(int(SHARE * machine.available)), min(LEAST, machine.available)),
            f"found, {SHARE:.0%} of the {format_size(machine.available)} available",
        ),
        (MOST, f"found, the most that is taken unasked with {format_size(machine.available)} available"),
    ]
    if candidates[0][0] > SHARE * machine.available:
        candidates[0] = (
            candidates[0][0],
            f"found, the least of {format_size(LEAST)} within the {format_size(machine.available)} available",
        )
    ceiling = machine.ceiling()
    if ceiling is not None:
        candidates.append((ceiling[0], f"found, {ceiling[1]} of {format_size(ceiling[0])}"))
    limit, reason = min(candidates)
    return Budget(limit, "found", reason)


def waiting_level(machine: MachineMemory) -> Bytes:
    """Available memory under which a run waits and releases caches: 15 GB, or 20 % of a small machine."""
    return min(Bytes(15_000_000_000), Bytes(int(0.20 * machine.usable())))


def stopping_level(machine: MachineMemory) -> Bytes:
    """Available memory under which a run stops with a checkpoint: 10 GB, or 13 % of a small machine."""
    return min(Bytes(10_000_000_000), Bytes(int(0.13 * machine.usable())))
