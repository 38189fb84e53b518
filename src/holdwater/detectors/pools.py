"""Compare memory in use with each pool's budget: the host's resident memory, the device's reserved memory.

It imports no numpy: a supervisor uses it before it blocks signals, and numpy starts threads.
"""

from typing import NamedTuple

from holdwater.budget import Budgets, Pool
from holdwater.detectors.verdict import Component
from holdwater.probes.sample import DeviceMemory, Sample
from holdwater.units import format_size


class Use(NamedTuple):
    """What one sample uses of one pool."""

    pool: Pool
    used: int
    """Bytes; for the pool of buffers, their number."""
    limit: int
    """The pool's budget, in bytes; for the pool of buffers, the most that the device permits."""
    whose: str
    """What is measured, as text."""
    component: Component
    """The component of its finding."""

    def amount(self, value: float) -> str:
        """A number of this pool's unit, for people.

        Args:
            value: Bytes, or a number of buffers.
        """
        return f"{value:,.0f}" if self.pool == "buffers" else format_size(value)


def uses(sample: Sample, budgets: Budgets) -> tuple[Use, ...]:
    """What a sample uses of each pool that has a budget; nothing is added across pools.

    Args:
        sample: One step's.
        budgets: The run's.
    """
    resident, limit = int(sample.resident), int(budgets.host.limit)
    host = Use("host", resident, limit, "resident memory", "host.native")
    if sample.device is None:
        return (host._replace(pool="unified") if budgets.unified else host,)
    reserved = int(sample.device.reserved)
    if budgets.unified:
        return _unified(resident, sample.device, budgets)
    if budgets.device is None:
        return (host,)
    spent = int(budgets.device.limit)
    return host, Use("device", reserved, spent, "device memory reserved", "device.reserved")


def _unified(resident: int, device: DeviceMemory, budgets: Budgets) -> tuple[Use, ...]:
    """What is used of the one pool of host and device, and of the buffers that the device permits.

    Resident memory does not see what the device's allocator holds. Where the system counts both, its count is
    used: it includes what other libraries hold on the device.
    """
    reserved, limit = int(device.reserved), int(budgets.host.limit)
    beside = resident if device.beside is None else int(device.beside)
    component: Component = "device.reserved" if reserved > beside else "host.native"
    whose = "memory of host and device" if device.footprint is None else "the process's footprint"
    found = (Use("unified", beside + reserved, limit, whose, component),)
    if device.buffers is None or budgets.buffers is None:
        return found
    return (*found, Use("buffers", device.buffers, budgets.buffers, "the number of buffers", "device.buffers"))
