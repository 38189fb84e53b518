"""Decide when the cache of a device with the machine's memory is cleared, and notice when that does not pay.

MLX keeps freed buffers for later requests of about their size. A buffer of a size that is never asked for again
stays in the cache (mlx#3350), takes memory from the rest of the machine, and counts towards the limit of buffers.
Clearing pays only if the cache stays small afterwards: what the next steps fill again, they must allocate again.
"""

from holdwater.budget import Budgets
from holdwater.probes.sample import Sample
from holdwater.units import format_size

SHARE = 0.15
"""The cache may hold this share of the budget; MLX itself is told to keep at most 25 %."""
REFILLS_WITHIN = 32
"""A cache that is as large again after so few steps is what the steps need."""
FIRST_PATIENCE = 256
"""Steps for which such a cache is then left alone; doubled each time."""
MOST_PATIENCE = 1 << 20


class CacheClearing:
    """Remembers when the cache was cleared, and how soon it was as large again."""

    def __init__(self) -> None:
        self._cleared_at: int | None = None
        self._patience = FIRST_PATIENCE
        self._not_before = 0

    def is_over(self, sample: Sample, budgets: Budgets) -> bool:
        """Whether the cache is too large: a number is compared only where host and device are one pool.

        Args:
            sample: The newest.
            budgets: Of the run.
        """
        device = sample.device
        if device is None or not budgets.unified or sample.step < self._not_before:
            return False
        return device.reserved - device.allocated > SHARE * budgets.host.limit

    def reason(self, sample: Sample, budgets: Budgets) -> str:
        """Why the cache is to be cleared now; empty where it is not.

        Args:
            sample: The newest.
            budgets: Of the run.
        """
        if sample.device is None or not self.is_over(sample, budgets):
            return ""
        before, self._cleared_at = self._cleared_at, int(sample.step)
        if before is not None and sample.step - before <= REFILLS_WITHIN:
            self._not_before = int(sample.step) + self._patience
            self._patience = min(2 * self._patience, MOST_PATIENCE)
            return ""
        cache = sample.device.reserved - sample.device.allocated
        return f"the device's cache is {format_size(cache)}, over {SHARE:.0%} of the budget"
