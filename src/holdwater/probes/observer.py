"""Take one sample of memory at the end of a step: cheap readings always, expensive ones when they are due."""

from collections.abc import Callable, Iterable

from holdwater.budget import InUse
from holdwater.probes.devices import CudaDriver, DevicePeak, Pinned, find_device
from holdwater.probes.heap import Heap
from holdwater.probes.host import Available, PressureProbe, ProcessParts, Resident
from holdwater.probes.metal import MetalBuffers, MetalProcess
from holdwater.probes.probe import Probe
from holdwater.probes.processes import Children, Handles, SharedMemoryFiles
from holdwater.probes.sample import NO_LOOK, DeviceMemory, Look, Sample, in_use_by_pool
from holdwater.signal_errors import not_the_scripts
from holdwater.units import Step

PROBES: tuple[type[Probe], ...] = (
    Available,
    ProcessParts,
    Heap,
    Handles,
    PressureProbe,
    Children,
    SharedMemoryFiles,
    CudaDriver,
    DevicePeak,
    Pinned,
    MetalProcess,
    MetalBuffers,
)
"""The more expensive probes, in the order in which they are read."""

SHARE_OF_TIME = 0.0005
"""An expensive probe takes at most this share of the time: one that costs 1 ms is read every 2 s at most."""


LOOK_EVERY = 1.0
"""Least seconds between two readings of expensive probes; what is due meanwhile is read together."""


class Observer:
    """Reads the memory of this process, and spaces each probe by its cost."""

    def __init__(self, elapsed: Callable[[], float], probes: Iterable[Probe] | None = None) -> None:
        """Set up the probes that work here.

        Args:
            elapsed: Seconds on a clock that never goes backwards.
            probes: The more expensive probes; None takes all of `PROBES`.
        """
        chosen = [make() for make in PROBES] if probes is None else list(probes)
        self.failures: dict[str, str] = {}
        """Why a probe is not read any more, by its name."""
        self._elapsed = elapsed
        self._began = elapsed()
        self._resident = Resident()
        self._device = find_device()
        self._due: dict[Probe, float] = dict.fromkeys(
            (probe for probe in chosen if probe.unavailable() is None), 0.0
        )
        self._next_due = 0.0
        self._seen: dict[str, int | float] = {}
        self._fields: dict[Probe, tuple[str, ...]] = {}
        """The fields that each probe has read."""

    def replace(self, probe: Probe) -> None:
        """Replace the probe of the same name by a stand-in, for rehearsals and tests."""
        self._due = {old: due for old, due in self._due.items() if old.name != probe.name} | {probe: 0.0}
        self._next_due = 0.0

    def sample(self, step: Step, *, loss: float | None = None, everything: bool = False) -> Sample:
        """Read the memory that is in use now.

        Args:
            step: The number of the step that has just ended.
            loss: What the training loop reported with it.
            everything: Read the expensive probes too, whether they are due or not.
        """
        seconds = self._elapsed() - self._began
        look = None
        if everything or seconds >= self._next_due:
            look = self._look(seconds, everything=everything)
        return Sample(step, seconds, self._resident.read(), self._read_device(), look, loss)

    def in_use(self) -> InUse:
        """Resident memory and memory reserved on the device, now: what a release can lower."""
        return in_use_by_pool(self._resident.read(), self._read_device())

    def device(self) -> str:
        """The device that is in use now, by the name of its probe; `cpu` if none is."""
        return "cpu" if self._device is None or self._device.read() is None else self._device.name

    def close(self) -> None:
        """Close what the probes hold open."""
        self._resident.close()

    def _read_device(self) -> DeviceMemory | None:
        """Read the accelerator; None if there is none or it is not in use yet."""
        return None if self._device is None else self._device.read()

    def _look(self, seconds: float, *, everything: bool) -> Look:
        """Read the expensive probes that are due; the others keep their last values."""
        if self._device is None or self._device.name == "mps":  # a program may use MLX only after the guard began
            self._device = find_device()
        for probe, due in list(self._due.items()):
            if everything or seconds >= due:
                self._read_probe(probe, seconds)
        self._next_due = max(min(self._due.values(), default=float("inf")), seconds + LOOK_EVERY)
        return Look(**self._seen) if self._seen else NO_LOOK  # type: ignore[arg-type] # named as Look's fields

    def _read_probe(self, probe: Probe, seconds: float) -> None:
        """Read one probe and measure its cost; remove it for good if it fails."""
        began = self._elapsed()
        try:
            reading = probe.read()
        except not_the_scripts(Exception) as error:  # whatever a driver or a framework raises
            self.failures[probe.name] = str(error) or type(error).__name__
            del self._due[probe]
            for name in self._fields.pop(probe, ()):  # its last values are outdated
                self._seen.pop(name, None)
            return
        self._seen.update(reading)
        self._fields[probe] = tuple(reading)
        cost = self._elapsed() - began
        self._due[probe] = seconds + max(probe.every, cost / SHARE_OF_TIME)
