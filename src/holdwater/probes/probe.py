"""What a probe is: something that reads one kind of memory, says what that costs, and changes nothing."""

from collections.abc import Mapping
from typing import Protocol

Reading = Mapping[str, int | float]
"""Values by the name of their field in `Look`."""


class Probe(Protocol):
    """One more expensive reading, taken by the clock."""

    name: str
    """A word for tables."""
    measures: str
    """What is read, for people."""
    every: float
    """Seconds that pass at least between two readings."""

    def unavailable(self) -> str | None:
        """Say why this probe cannot read here; None if it can."""
        ...

    def read(self) -> Reading:
        """Read, without changing anything.

        Raises:
            ProbeError: The reading failed.
        """
        ...
