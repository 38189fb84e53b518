"""The record of one reading of a process's memory, which the script's process writes and the watcher reads.

Its fields have the names of those of `Look` and `Sample`. The module imports only the standard library, so that an
observed script starts as fast as without.
"""

import math
from typing import NamedTuple

NOT_READ = math.nan
"""The value of a reading that was not due."""


class LookRecord(NamedTuple):
    """One record; sizes in bytes, times in seconds. Each reading has its own pace: NaN if it was not due."""

    step: float
    seconds: float
    """Since the process began to be observed."""
    cost: float
    """What the previous record took."""
    resident: float
    file_and_shared: float
    """The part of resident memory that is file-backed or shared."""
    virtual: float
    """Address space that the process has mapped, touched or not."""
    heap_in_use: float = NOT_READ
    heap_kept: float = NOT_READ
    python_blocks: float = NOT_READ
    open_files: float = NOT_READ
    threads: float = NOT_READ
    device_allocated: float = NOT_READ
    device_reserved: float = NOT_READ
    device_used: float = NOT_READ
    pinned: float = NOT_READ
    samples_seen: float = 0
    epochs: float = 0
    evaluations: float = 0
    checkpoints: float = 0
    shapes: float = 0
    compiles: float = 0
    garbage: float = 0
    """Bytes that collections made by the guard have freed so far."""
    worker_visits: float = 0

    def readings(self, names: frozenset[str]) -> dict[str, int]:
        """The fields of these names that were read, as whole numbers."""
        return {
            name: int(value)
            for name, value in zip(self._fields, self, strict=True)
            if name in names and not math.isnan(value)
        }
