"""The predicted peak of a run, by what the memory is for."""

from collections.abc import Iterable
from dataclasses import dataclass

from holdwater.train.finetune.planner.allocator import CachingAllocator
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

    @property
    def fragmentation(self) -> Bytes:
        """What is lost between blocks."""
        return Bytes(self.reserved - sum(self.roles.values()))

    @property
    def total(self) -> Bytes:
        """Everything."""
        return Bytes(self.reserved + self.context)


def predict(parts: Iterable[PeakPart], *, context: Bytes) -> Peak:
    """Predict what requests come to.

    Args:
        parts: In the order in which they are made.
        context: What the device's driver takes.
    """
    allocator, roles = CachingAllocator(), dict[str, Bytes]()
    for part in parts:
        for size in part.sizes:
            allocator.allocate(size)
        roles[part.role] = Bytes(roles.get(part.role, 0) + sum(part.sizes))
    return Peak(roles, allocator.peak, context)
