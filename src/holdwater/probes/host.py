"""Memory of this process and of the machine, as the kernel counts it.

Source: Linux kernel documentation, filesystems/proc.rst; elsewhere psutil.
"""

from pathlib import Path

import psutil

from holdwater.errors import ProbeError
from holdwater.probes.cgroup import Cgroup
from holdwater.probes.probe import Reading
from holdwater.probes.statm import Statm
from holdwater.signal_errors import not_the_scripts
from holdwater.units import Bytes

_KIB = 1024


class Resident:
    """Resident memory of this process, cheap enough for every step (about 2 µs on Linux).

    On Linux `/proc/self/statm` is kept open and read in place; elsewhere psutil is used.
    """

    name = "resident"
    measures = "resident memory of this process"

    def __init__(self) -> None:
        self._statm = Statm()

    def read(self) -> Bytes:
        """Return the resident memory of this process."""
        return Bytes(self._statm.resident())

    def close(self) -> None:
        """Close the file descriptor."""
        self._statm.close()


def read_kib_table(path: Path) -> dict[str, int]:
    """Read a file of `Name:   123 kB` lines, such as /proc/meminfo.

    Args:
        path: The file.

    Returns:
        Bytes by name; lines of another form are left out.

    Raises:
        ProbeError: The file cannot be read.
    """
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except not_the_scripts(OSError) as error:
        raise ProbeError(f"{path} cannot be read: {error.strerror}") from error
    table = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and words[0].isdigit():
            table[name] = int(words[0]) * _KIB
    return table


class ProcessParts:
    """The kernel's split of resident memory: private, mapped files, shared memory; and its peak."""

    name = "process parts"
    measures = "private, file-backed and shared parts of resident memory, and its peak"
    every = 1.0

    def __init__(self, status: Path = Path("/proc/self/status")) -> None:
        self._status = status

    def unavailable(self) -> str | None:
        """Return why this probe cannot read here; None if it can."""
        return None if self._status.exists() else f"this system has no {self._status}"

    def read(self) -> Reading:
        """Return the parts in bytes."""
        table = read_kib_table(self._status)
        fields = {
            "anonymous": "RssAnon",
            "file": "RssFile",
            "shared_memory": "RssShmem",
            "peak_resident": "VmHWM",
            "virtual": "VmSize",
        }
        return {field: table[key] for field, key in fields.items() if key in table}


class Available:
    """Memory that new work could take: the machine's, or the cgroup's if that is less."""

    name = "available"
    measures = "memory still available on the machine and within the cgroup"
    every = 1.0

    def __init__(self, meminfo: Path = Path("/proc/meminfo"), cgroup: Cgroup | None = None) -> None:
        self._meminfo = meminfo
        self._cgroup = Cgroup.of_this_process() if cgroup is None else cgroup

    def unavailable(self) -> str | None:
        """Return why this probe cannot read here; None if it can."""
        return None

    def read(self) -> Reading:
        """Return the available memory, and the cgroup's usage if there is a limit."""
        if self._meminfo.exists():
            available = read_kib_table(self._meminfo).get("MemAvailable", 0)
        else:
            available = psutil.virtual_memory().available
        if self._cgroup.limit is None:
            return {"available": available}
        usage = self._cgroup.usage()
        return {"available": min(available, max(self._cgroup.limit - usage, 0)), "cgroup_usage": usage}


class PressureProbe:
    """Pressure stall information: how long tasks waited for memory."""

    name = "pressure"
    measures = "share of time in which some task waited for memory (PSI)"
    every = 5.0

    def __init__(self, path: Path = Path("/proc/pressure/memory")) -> None:
        self._path = path

    def unavailable(self) -> str | None:
        """Return why this probe cannot read here; None if it can."""
        try:
            self._path.read_bytes()
        except not_the_scripts(OSError) as error:
            return f"{self._path}: {error.strerror}"
        return None

    def read(self) -> Reading:
        """Return the share of the last 10 s, in percent."""
        try:
            words = self._path.read_text(encoding="ascii").split()
            return {"pressure": float(words[1].removeprefix("avg10="))}
        except not_the_scripts(OSError, IndexError, ValueError) as error:
            raise ProbeError(f"{self._path} cannot be read: {error}") from error
