"""The protocol of a probe, which reads one kind of memory and changes nothing."""

from collections.abc import Mapping
from typing import Protocol

Reading = Mapping[str, int | float]
"""Values by the name of their field in `Look`."""


class Probe(Protocol):
    """One more expensive reading, taken by the clock."""

    name: str
    """Its name in tables."""
    measures: str
    """What is read, as text."""
    every: float
    """Least seconds between two readings."""

    def unavailable(self) -> str | None:
        """Return why this probe cannot read here; None if it can."""
        ...

    def read(self) -> Reading:
        """Read, without changing anything.

        Raises:
            ProbeError: The reading failed.
        """
        ...
