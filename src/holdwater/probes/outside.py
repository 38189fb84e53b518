"""Read the memory of another process and its children from outside, without affecting them.

Source: Linux kernel documentation, filesystems/proc.rst; elsewhere psutil.
"""

import contextlib
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from holdwater.errors import ProbeError
from holdwater.probes.children import ChildProcesses
from holdwater.probes.host import read_kib_table
from holdwater.probes.processes import SharedMemoryFiles

DEAR_SHARE = 0.001
"""Listing children and their memory takes at most this part of the time, in a long run."""
LEAST_PAUSE, SPACING = 0.25, 0.04
"""At first it may take more, since a short run must be judged too: least seconds between two readings, and the
part of the time so far that may separate them before the share above applies."""
DEVICE_PAUSE, DEVICE_SPACING = 0.05, 0.01
"""The same for the memory of a device on which the process holds some: one reading, and cheaper."""


class DeviceRoom(NamedTuple):
    """A device on which a process holds memory; all in bytes."""

    held: int
    """Held by the process."""
    free: int
    """Free memory."""
    size: int


class Outside:
    """Reads a process by its number."""

    def __init__(self, pid: int, *, noted: Path | None = None, may_have_ended: bool = False) -> None:
        """Start reading a process.

        Args:
            pid: Its number.
            noted: A file in which it records the shared memory that it creates.
            may_have_ended: Whether a process that cannot be read any more is no error.

        Raises:
            ProbeError: There is no such process, or it may not be read.
        """
        self.pid = pid
        self._proc = Path(f"/proc/{pid}")
        self._family = [pid]
        """The process and its descendants, as they were last seen."""
        self._shared_memory = SharedMemoryFiles(pids=lambda: self._family, noted=noted)
        self._due = self._listed = self._device_due = 0.0
        self._began = time.perf_counter()
        self._dear: dict[str, Any] = {}
        self.seen: dict[str, Any] = {}
        """What was read last."""
        self.device: DeviceRoom | None = None
        """The device that the process uses; None as long as none was seen."""
        self._process: psutil.Process | None = None
        try:
            process = psutil.Process(pid)
            process.memory_info()
            self._process = process
        except psutil.Error as error:
            if not may_have_ended:
                raise ProbeError(f"the process {pid} cannot be read: {error}") from error
        self.children = ChildProcesses(self._process)
        """Its descendants."""

    def read(self) -> dict[str, Any] | None:
        """Return memory in bytes and counts, by the field names of `Look`; None when it has ended."""
        if self._process is None:
            return None
        try:
            status = self._read_status() if self._proc.exists() else self._read_elsewhere(self._process)
            fields: dict[str, Any] = status
        except (ProbeError, psutil.Error, OSError, KeyError):
            return None
        with contextlib.suppress(ProbeError):
            fields |= self._shared_memory.read()
        now = time.perf_counter()
        if now >= self._due:
            spent = time.thread_time()  # on a busy machine elapsed time is mostly waiting
            self._dear = self._read_dear()
            affordable = (time.thread_time() - spent) / DEAR_SHARE
            self._listed = now
            self._due = now + max(min(affordable, SPACING * (now - self._began)), LEAST_PAUSE)
            fields |= self._dear
        elif self.children.pids:
            own = self.children.read_own()
            fields |= own
            if not own:
                self._due = min(self._due, self._listed + LEAST_PAUSE)
        if self.device is not None and now >= self._device_due:
            fields |= self._read_device()
        self.seen = dict(fields)
        return fields

    def library_pages(self) -> int:
        """Private pages in mapped files and stacks, in bytes; 0 if the kernel does not report them (20 ms)."""
        total, counts = 0, False
        try:
            lines = (self._proc / "smaps").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return 0
        for line in lines:
            if line.startswith("Anonymous:"):
                total += int(line.split()[1]) * 1024 if counts else 0
            elif not line[0].isupper():
                name = line.split(None, 5)[5:]
                counts = bool(name) and name[0].startswith(("/", "[stack"))
        return total

    def command(self) -> str:
        """The command line as text; empty if it cannot be read."""
        with contextlib.suppress(psutil.Error):
            return "" if self._process is None else " ".join(self._process.cmdline())
        return ""

    def _read_status(self) -> dict[str, int]:
        """The kernel's table of the process."""
        table = read_kib_table(self._proc / "status")
        return {
            "resident": table["VmRSS"],
            "anonymous": table["RssAnon"],
            "file": table["RssFile"],
            "shared_memory": table["RssShmem"],
            "peak_resident": table["VmHWM"],
            "virtual": table["VmSize"],
        }

    def _read_elsewhere(self, process: psutil.Process) -> dict[str, int]:
        """Readings by psutil on a system without /proc."""
        return {"resident": int(process.memory_info().rss)}

    def _read_dear(self) -> dict[str, int]:
        """Children with their memory, files and threads, shared-memory files, device memory."""
        found: dict[str, Any] = {}
        found |= self.children.read()
        self._family = [self.pid, *self.children.pids]
        with contextlib.suppress(OSError):
            found["open_files"] = len(os.listdir(self._proc / "fd"))  # noqa: PTH208 - half the cost
            found["threads"] = len(os.listdir(self._proc / "task"))  # noqa: PTH208
        return found | self._read_device()

    def _read_device(self) -> dict[str, int]:
        """Device memory; it is read again when that costs little of the time so far."""
        spent, now = time.thread_time(), time.perf_counter()
        device = _device_memory(self.pid)
        affordable = (time.thread_time() - spent) / DEAR_SHARE
        self._device_due = now + max(min(affordable, DEVICE_SPACING * (now - self._began)), DEVICE_PAUSE)
        if device is None:
            return {}
        self.device = device if device.held else None
        return {"device_used": device.held}


def _device_memory(pid: int) -> DeviceRoom | None:
    """Memory of a process on the NVIDIA device where it holds most; None without the driver or the NVML package.

    Args:
        pid: The process.
    """
    try:
        import pynvml  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        found = [DeviceRoom(0, 0, 0)]
        for index in range(pynvml.nvmlDeviceGetCount()):
            device = pynvml.nvmlDeviceGetHandleByIndex(index)
            running = pynvml.nvmlDeviceGetComputeRunningProcesses(device)
            held = sum(process.usedGpuMemory or 0 for process in running if process.pid == pid)
            if held:
                memory = pynvml.nvmlDeviceGetMemoryInfo(device)
                found.append(DeviceRoom(held, int(memory.free), int(memory.total)))
    except pynvml.NVMLError:
        return None
    return max(found)
