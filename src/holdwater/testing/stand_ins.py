"""Stand-ins for the clock, for the machine's available memory, and for samples."""

from collections.abc import Callable

from holdwater.probes.probe import Reading
from holdwater.probes.sample import DeviceMemory, Look, Sample
from holdwater.units import Bytes, Step


class ManualClock:
    """A clock that moves only when it is advanced."""

    def __init__(self) -> None:
        self.now = 0.0

    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return self.now

    def wall(self) -> float:
        """Seconds since 1970, if the clock had been made in September 2001."""
        return 1e9 + self.now

    def advance(self, seconds: float) -> None:
        """Move on."""
        self.now += seconds


class StandInMemory:
    """Replaces the machine's available memory: rehearse what a run does when it is short.

    Give it to `guard.observer.replace`, in a `--callback` or in a test.
    """

    name = "available"
    measures = "a stand-in for available memory"

    def __init__(self, available: Callable[[], int], *, every: float = 0.0) -> None:
        """Set up the stand-in.

        Args:
            available: Returns the bytes to report as available.
            every: Least seconds between two readings.
        """
        self.every = every
        self._available = available

    def unavailable(self) -> str | None:
        """Return None: it works everywhere."""
        return None

    def read(self) -> Reading:
        """Return the bytes reported as available."""
        return {"available": self._available()}


def make_sample(
    step: int,
    resident: float,
    *,
    seconds: float | None = None,
    available: int | None = None,
    device_reserved: int | None = None,
) -> Sample:
    """Make a sample.

    Args:
        step: Its step.
        resident: Bytes.
        seconds: Time since the guard began; None takes a tenth of a second a step.
        available: Bytes available on the machine; None leaves the readings out.
        device_reserved: Bytes reserved on the device; None has no device.
    """
    return Sample(
        Step(step),
        0.1 * step if seconds is None else seconds,
        Bytes(int(resident)),
        None if device_reserved is None else DeviceMemory(Bytes(device_reserved), Bytes(device_reserved)),
        None if available is None else Look(available=Bytes(available)),
    )
