"""The predicted peak of a run, by what the memory is for."""

from collections.abc import Iterable
from dataclasses import dataclass

from holdwater.train.finetune.planner.allocator import NOTHING, CachingAllocator
from holdwater.units import Bytes


@dataclass(frozen=True, slots=True)
class PeakPart:
    """Requests for memory that stay until the end."""

    role: str
    """What it is for: `weights`, `adapters`, `gradients`, `optimizer`, `activations`, `logits`, `workspace`."""
    sizes: tuple[int, ...]
    """Bytes of each request, in the order in which they are made."""


@dataclass(frozen=True, slots=True)
class Peak:
    """What a run will take from a device, at most."""

    roles: dict[str, Bytes]
    """What is asked for, by what it is for."""
    reserved: Bytes
    """What the allocator takes for it, with what is lost between blocks."""
    context: Bytes
    """What the device's driver takes as well."""
    margin: Bytes = NOTHING
    """What a run may take beyond the plan, for plans are not exact."""

    @property
    def fragmentation(self) -> Bytes:
        """What is lost between blocks."""
        return Bytes(self.reserved - sum(self.roles.values()))

    @property
    def total(self) -> Bytes:
        """Everything that is planned."""
        return Bytes(self.reserved + self.context)

    @property
    def needed(self) -> Bytes:
        """What a budget must hold: the plan and its margin."""
        return Bytes(self.total + self.margin)


def margin_of(reserved: int, share: float) -> Bytes:
    """The margin of a plan.

    Args:
        reserved: What is planned that the allocator takes, in bytes.
        share: The most that such plans were short of what was measured, as a share of it, rounded up.
    """
    return Bytes(int(reserved * share))


def predict(parts: Iterable[PeakPart], *, context: Bytes, margin: float = 0.0) -> Peak:
    """Predict what requests come to.

    Args:
        parts: In the order in which they are made.
        context: What the device's driver takes.
        margin: As a share of what the allocator takes.
    """
    allocator, roles = CachingAllocator(), dict[str, Bytes]()
    for part in parts:
        for size in part.sizes:
            allocator.allocate(size)
        roles[part.role] = Bytes(roles.get(part.role, 0) + sum(part.sizes))
    return Peak(roles, allocator.peak, context, margin_of(allocator.peak, margin))
