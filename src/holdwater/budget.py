"""The memory budget of a run: given by the user, or found from what the machine can spare."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from holdwater.errors import ConfigError
from holdwater.units import Bytes, format_size

SHARE = 0.8
"""How much of the available memory a run takes when no budget is given."""
LEAST = Bytes(16_000_000_000)
"""A found budget is at least this, where the machine has that much."""
MOST = Bytes(120_000_000_000)
"""A found budget is at most this."""

Pool = Literal["host", "device", "unified", "buffers"]
"""What runs out by itself: *unified* is the memory of host and device in one (Apple silicon), *buffers* the number
of Metal buffers."""


class InUse(NamedTuple):
    """What a process holds, by pool; the difference of two is what a release has freed."""

    host: int = 0
    """Bytes resident."""
    device: int = 0
    """Bytes reserved on the device, with what a weight server holds there for this run."""

    def since(self, before: "InUse") -> "InUse":
        """What was freed since then; negative where more is in use."""
        return InUse(before.host - self.host, before.device - self.device)


NOTHING_IN_USE = InUse()


@dataclass(frozen=True, slots=True)
class PoolMemory:
    """One pool of memory at the start of a run."""

    available: Bytes
    """What the run could take: what is free, and what it holds already."""
    limit: Bytes | None = None
    """What the pool can never exceed; None if unknown."""
    limited_by: str = ""
    """The limit's name, for messages."""


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
    """Memory of the accelerator that the run uses; None on a CPU, and if it shares the machine's."""
    device_available: Bytes | None = None
    """What is free on it; None if it was not read, and all of it is assumed free."""
    unified: bool = False
    """The device that the run uses shares the machine's memory."""
    working_set: Bytes | None = None
    """The most that a device with the machine's memory recommends to hold; None if it does not tell."""
    buffers: int | None = None
    """The most buffers that the device permits; None where there is no such limit."""

    def usable(self) -> Bytes:
        """The size that scales the waiting and stopping levels: the machine, or a smaller cgroup."""
        return min(self.total, self.cgroup_limit or self.total)

    def host(self, held: int = 0) -> PoolMemory:
        """The host's memory, or that of host and device in one.

        Args:
            held: Bytes that the run holds already.
        """
        available = Bytes(min(self.available + held, self.usable()))
        if self.unified and self.working_set is not None and self.working_set < self.usable():
            return PoolMemory(available, self.working_set, "the device's recommended working set")
        return PoolMemory(available, self.cgroup_limit, "the cgroup limit")

    def device(self, held: int = 0) -> PoolMemory | None:
        """The device's memory; None where there is no device with memory of its own.

        Args:
            held: Bytes that the run holds there already.
        """
        if self.device_size is None:
            return None
        free = self.device_size if self.device_available is None else self.device_available
        return PoolMemory(Bytes(min(free + held, self.device_size)), self.device_size, "the device")


@dataclass(frozen=True, slots=True)
class Budget:
    """The memory that a run may use, and where that number comes from."""

    limit: Bytes
    origin: Literal["given", "found"]
    reason: str
    """Where the limit comes from, as one line of text."""

    def __str__(self) -> str:
        return f"budget {format_size(self.limit)}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Budgets:
    """The budget of each pool of memory that a run uses: pools run out separately."""

    host: Budget
    """Of the host's memory, or of host and device where they are one pool."""
    device: Budget | None = None
    """None as long as no device with memory of its own is used."""
    unified: bool = False
    """Host and device are one pool."""
    buffers: int | None = None
    """The most buffers that the device permits, beside their bytes; None where there is no such limit."""

    @property
    def main(self) -> Budget:
        """The budget of the pool in which the training's tensors live."""
        return self.device or self.host

    def of(self, component: str) -> Budget:
        """The budget that a component of memory counts against.

        Args:
            component: Of a finding, such as `device.active`.
        """
        return self.main if component.startswith("device.") else self.host

    def by_name(self) -> dict[str, Budget]:
        """The budget of each pool, by its name in the JSON verdict."""
        if self.unified:
            return {"unified": self.host}
        return {"host": self.host} | ({} if self.device is None else {"device:0": self.device})

    def __str__(self) -> str:
        if self.device is None:
            return str(self.host)
        return f"device {self.device}; host {self.host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The inputs of a run's budgets: the machine, and the limits that the user gave."""

    machine: MachineMemory
    max_memory: Bytes | None = None
    """For the pool in which the training's tensors live; None finds one."""
    max_host_memory: Bytes | None = None
    """For the host's memory when a device is used; None finds one."""

    def budgets(self, in_use: InUse = NOTHING_IN_USE) -> Budgets:
        """Give or find the budget of each pool.

        Args:
            in_use: What the run occupies already; a given budget must be larger, pool by pool.

        Returns:
            With the device's budget if the machine has one.

        Raises:
            ConfigError: A pool's budget is spent before the first step.
        """
        machine = self.machine
        device = machine.device(in_use.device)
        if device is None:
            asked = [limit for limit in (self.max_memory, self.max_host_memory) if limit is not None]
            held = sum(in_use) if machine.unified else in_use.host
            key = "max_memory" if self.max_memory is not None else "max_host_memory"
            host = _settle(min(asked, default=None), machine.host(held), held, key)
            return Budgets(host, unified=machine.unified, buffers=machine.buffers)
        return Budgets(
            host=_settle(self.max_host_memory, machine.host(in_use.host), in_use.host, "max_host_memory"),
            device=_settle(self.max_memory, device, in_use.device, "max_memory"),
        )

    def later(self, in_use: InUse) -> Budgets:
        """Give or find the budgets of a running run: none is refused any more.

        Args:
            in_use: What the run occupies already; it belongs to what the run could take.
        """
        machine, free = self.machine, self.machine.device_available
        machine = replace(
            machine,
            available=Bytes(machine.available + (sum(in_use) if machine.unified else in_use.host)),
            device_available=None if free is None else Bytes(free + in_use.device),
        )
        return replace(self, machine=machine).budgets()

    def with_device(self, size: int, available: int | None = None) -> "Terms":
        """The same terms with a device that the run has begun to use.

        Args:
            size: Bytes of its memory.
            available: Bytes of it that the run could take; None takes all.
        """
        free = None if available is None else Bytes(available)
        machine = replace(self.machine, device_size=Bytes(size), device_available=free, unified=False)
        return replace(self, machine=machine)

    def with_one_pool(self) -> "Terms":
        """The same terms on a device that shares the machine's memory."""
        one = replace(self.machine, device_size=None, device_available=None, unified=True)
        return replace(self, machine=one)


def _settle(limit: Bytes | None, pool: PoolMemory, in_use: int, key: str) -> Budget:
    """Use the budget that was given for a pool, or find one."""
    return find_budget(pool) if limit is None else give_budget(limit, pool, in_use=in_use, key=key)


def give_budget(limit: Bytes, pool: PoolMemory, *, in_use: int = 0, key: str = "max_memory") -> Budget:
    """Take the budget that the user gave for a pool, never above a cgroup's or a device's limit.

    Args:
        limit: What the user asked for.
        pool: The pool.
        in_use: What the run occupies of this pool already, before it has begun.
        key: The configuration key, for messages.

    Returns:
        The budget, lowered to the cgroup or device limit where that is smaller.

    Raises:
        ConfigError: The run occupies the budget already.
    """
    reason = f"given ({format_size(limit)})"
    if pool.limit is not None and pool.limit < limit:
        limit, reason = pool.limit, f"{reason}, lowered to {pool.limited_by} of {format_size(pool.limit)}"
    if limit <= in_use:
        raise ConfigError(
            f"{key} is {format_size(limit)}, but the process occupies {format_size(in_use)} of that memory before "
            f"the first step; set {key} above {format_size(in_use * 1.25)}"
        )
    return Budget(limit, "given", reason)


def find_budget(pool: PoolMemory) -> Budget:
    """Find a pool's budget from what is available when the user gave none.

    The rule: 80 % of the available memory, at least 16 GB where that much is available, at most
    120 GB, and never above a cgroup's or a device's limit.
    """
    available = pool.available
    least = min(LEAST, available)
    why = f"found, {SHARE:.0%} of the {format_size(available)} available"
    if least > SHARE * available:
        why = f"found, the least of {format_size(LEAST)} within the {format_size(available)} available"
    candidates = [
        (max(Bytes(int(SHARE * available)), least), why),
        (MOST, f"found, the most that is taken unasked with {format_size(available)} available"),
    ]
    if pool.limit is not None:
        candidates.append((pool.limit, f"found, {pool.limited_by} of {format_size(pool.limit)}"))
    limit, reason = min(candidates)
    return Budget(limit, "found", reason)


def waiting_level(machine: MachineMemory) -> Bytes:
    """Available memory under which a run waits and releases caches: 15 GB, or 20 % of a small machine."""
    return min(Bytes(15_000_000_000), Bytes(int(0.20 * machine.usable())))


def stopping_level(machine: MachineMemory) -> Bytes:
    """Available memory under which a run stops with a checkpoint: 10 GB, or 13 % of a small machine."""
    return min(Bytes(10_000_000_000), Bytes(int(0.13 * machine.usable())))
