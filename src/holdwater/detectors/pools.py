"""Compare memory in use with each pool's budget: the host's resident memory, the device's reserved memory.

It imports no numpy: a supervisor uses it before it blocks signals, and numpy starts threads.
"""

from typing import NamedTuple

from holdwater.budget import Budgets, Pool
from holdwater.detectors.verdict import Component
from holdwater.probes.sample import Sample


class Use(NamedTuple):
    """What one sample uses of one pool."""

    pool: Pool
    used: int
    """Bytes."""
    limit: int
    """The pool's budget, in bytes."""
    whose: str
    """What is measured, as text."""
    component: Component
    """The component of its finding."""


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
    if budgets.unified:  # resident memory does not see what the device's allocator holds
        component: Component = "device.reserved" if reserved > resident else "host.native"
        return (Use("unified", resident + reserved, limit, "memory of host and device", component),)
    if budgets.device is None:
        return (host,)
    spent = int(budgets.device.limit)
    return host, Use("device", reserved, spent, "device memory reserved", "device.reserved")
