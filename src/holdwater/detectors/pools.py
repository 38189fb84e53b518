"""What is held against each pool's budget: resident memory of the host's, what is reserved of the device's.

It imports no numpy: a supervisor decides before it holds back signals, and numpy starts threads.
"""

from typing import NamedTuple

from holdwater.budget import Budgets, Pool
from holdwater.detectors.verdict import Component
from holdwater.probes.sample import Sample


class Use(NamedTuple):
    """What one sample holds of one pool."""

    pool: Pool
    used: int
    """Bytes."""
    limit: int
    """The pool's budget, in bytes."""
    whose: str
    """What it is, for people."""
    component: Component
    """What a finding about it is booked under."""


def uses(sample: Sample, budgets: Budgets) -> tuple[Use, ...]:
    """What a sample holds of each pool that has a budget; nothing is added across pools.

    Args:
        sample: Of one step.
        budgets: Of the run.
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
