"""Readings of a process's regions over a run: what has become resident since each of them."""

import time
from collections.abc import Callable

from holdwater.probes.mappings import Kind, Region, Touched, read_regions, touched

MOST = 12
"""Readings that are kept, each at twice the step of the previous one."""
SHARE, ALLOWANCE = 0.01, 0.1
"""The share of the time passed that reading may take, and seconds that it may take in any run, of the watcher's
processor time."""


class RegionHistory:
    """Remembers the regions of a process at a few steps of its run."""

    def __init__(
        self,
        pid: int,
        *,
        read: Callable[[int], tuple[Region, ...]] = read_regions,
        elapsed: Callable[[], float] = time.perf_counter,
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        """Start with no reading.

        Args:
            pid: The process.
            read: Reads its regions.
            elapsed: Seconds on a clock that never goes backwards.
            spent: Processor seconds of this thread.
        """
        self._pid, self._read, self._elapsed, self._processor = pid, read, elapsed, spent
        self._began = elapsed()
        self._spent = 0.0
        self._kept: list[tuple[int, tuple[Region, ...]]] = []
        self.newest: tuple[Region, ...] = ()
        self._compared: dict[Kind, tuple[Touched, ...]] = {}

    @property
    def is_affordable(self) -> bool:
        """Whether another reading stays within its share of the time; the first two always do."""
        return len(self._kept) < 2 or self._spent < max(ALLOWANCE, SHARE * (self._elapsed() - self._began))

    def read(self, step: int, *, at_end: bool = False) -> None:
        """Read the regions now.

        Args:
            step: The newest step of the process.
            at_end: The script has ended: if its functions have released memory, the previous reading counts.
        """
        began = self._processor()
        regions = self._read(self._pid)
        self._spent += self._processor() - began
        if not regions or (at_end and _resident(regions) < _resident(self.newest)):
            return
        self.newest = regions
        self._compared.clear()
        if not self._kept or step >= 2 * self._kept[-1][0]:
            self._kept = [*self._kept, (step, regions)][-MOST:]

    def touched(self, kind: Kind) -> tuple[Touched, ...]:
        """What became resident since each kept reading except the newest, the oldest first."""
        if kind not in self._compared:
            earlier = [(step, regions) for step, regions in self._kept if regions is not self.newest]
            self._compared[kind] = tuple(
                touched(regions, self.newest, kind, since_step=step) for step, regions in earlier
            )
        return self._compared[kind]


def _resident(regions: tuple[Region, ...]) -> int:
    """Bytes that are resident in regions."""
    return sum(region.resident for region in regions)
