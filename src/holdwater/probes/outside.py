"""The memory of another process and its children, read from outside: it feels nothing of it.

Source: Linux kernel documentation, filesystems/proc.rst; elsewhere psutil.
"""

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import psutil

from holdwater.errors import ProbeError
from holdwater.probes.children import Children
from holdwater.probes.host import read_kib_table
from holdwater.probes.processes import SharedMemoryFiles

DEAR_SHARE = 0.001
"""Listing children and their memory takes at most this part of the time, in the long run."""
LEAST_PAUSE, SPACING = 0.25, 0.04
"""At first it may take more, since a short run is to be judged too: seconds between two readings, and the part of
the time so far by which they may lie apart at most before the share above counts."""


class Outside:
    """Reads a process by its number."""

    def __init__(self, pid: int) -> None:
        """Take up a process.

        Args:
            pid: Its number.

        Raises:
            ProbeError: There is no such process, or it may not be read.
        """
        self.pid = pid
        self._proc = Path(f"/proc/{pid}")
        self._shared_memory = SharedMemoryFiles()
        self._due = 0.0
        self._began = time.perf_counter()
        self._dear: dict[str, Any] = {}
        try:
            self._process = psutil.Process(pid)
            self._process.memory_info()
            self.children = Children(self._process)
            """What it has started."""
        except psutil.Error as error:
            raise ProbeError(f"the process {pid} cannot be read: {error}") from error

    def read(self) -> dict[str, Any] | None:
        """Return memory in bytes and counts, by the names of a sample's look; None when it has ended."""
        try:
            fields: dict[str, Any] = self._read_status() if self._proc.exists() else self._read_elsewhere()
        except (ProbeError, psutil.Error, OSError, KeyError):
            return None
        with contextlib.suppress(ProbeError):
            fields |= self._shared_memory.read()
        now = time.perf_counter()
        if now >= self._due:
            spent = time.thread_time()  # on a busy machine most of what a clock shows is waiting
            self._dear = self._read_dear()
            affordable = (time.thread_time() - spent) / DEAR_SHARE
            self._due = now + max(min(affordable, SPACING * (now - self._began)), LEAST_PAUSE)
            fields |= self._dear
        return fields

    def library_pages(self) -> int:
        """Private pages in mapped files and stacks, in bytes; 0 where the kernel does not say (20 ms)."""
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
        """The command line, for people; empty when it cannot be read."""
        with contextlib.suppress(psutil.Error):
            return " ".join(self._process.cmdline())
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
        }

    def _read_elsewhere(self) -> dict[str, int]:
        """What psutil knows on a system without /proc."""
        return {"resident": int(self._process.memory_info().rss)}

    def _read_dear(self) -> dict[str, int]:
        """Children with their memory, files and threads, shared-memory files, device memory."""
        found: dict[str, Any] = {}
        found |= self.children.read()
        with contextlib.suppress(OSError):
            found["open_files"] = len(os.listdir(self._proc / "fd"))  # noqa: PTH208 - half the price
            found["threads"] = len(os.listdir(self._proc / "task"))  # noqa: PTH208
        device = _device_memory(self.pid)
        if device is not None:
            found["device_used"] = device
        return found


def _device_memory(pid: int) -> int | None:
    """Memory of a process on all NVIDIA devices, by NVML; None without the driver or the package."""
    try:
        import pynvml  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        used = 0
        for index in range(pynvml.nvmlDeviceGetCount()):
            device = pynvml.nvmlDeviceGetHandleByIndex(index)
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses(device):
                used += (process.usedGpuMemory or 0) if process.pid == pid else 0
    except pynvml.NVMLError:
        return None
    return used
