"""Run a command and sample, from outside, the memory of its process and of all that descend from it.

Memory is the proportional set size (PSS): a page that several processes share is counted once in the sum.
The kernel walks page tables to give it, so the resident size (RSS), which is never smaller, is read at every look,
and the PSS where the peak may have grown, where processes came or went, and once a second.
"""

import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 0.05
"""Seconds between two looks."""
PATIENCE = 20
"""Looks after which the PSS is read in any case."""
SLACK = 500_000
"""Bytes by which a peak may be missed between two readings of the PSS."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command took."""

    seconds: float
    """From its start to its end."""
    processor_seconds: float
    """Of its process and of all that it has waited for."""
    peak: int
    """Greatest PSS of all processes together, bytes."""
    peak_parts: list[int]
    """Each process's, largest first."""
    peak_second: float
    """When that was, from the start."""
    looks: int
    said: str
    """Its standard output."""


class ProcessTree:
    """The memory of a process and its descendants."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.peak = self.looks = 0
        self.peak_parts: list[int] = []
        self.peak_time = time.perf_counter()
        self._shared = self._left = 0
        self._known: list[int] = []

    def look(self) -> None:
        """Sample once."""
        self.looks += 1
        self._left -= 1
        processes = descendants(self.root)
        total = sum(resident(process) for process in processes)
        grown = total - self._shared > self.peak + SLACK
        if grown or processes != self._known or self._left <= 0:
            parts = [proportional_size(process) for process in processes]
            proportional = sum(parts)
            if proportional > self.peak:
                self.peak, self.peak_parts = proportional, sorted(parts, reverse=True)
                self.peak_time = time.perf_counter()
            self._shared, self._known, self._left = total - proportional, processes, PATIENCE


def run_sampled(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], *, limit: float = 1800
) -> Ran:
    """Run a command to its end and sample its memory all the while.

    Args:
        command: Program and arguments.
        folder: Where it runs; `stdout.txt` and `stderr.txt` are written there.
        environment: Its environment.
        limit: Seconds after which it is ended.

    Raises:
        RuntimeError: It ended with an error, or took longer than the limit.
    """
    spent = _processor_seconds()
    said, complaints = folder / "stdout.txt", folder / "stderr.txt"
    with said.open("wb") as out, complaints.open("wb") as err:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            start_new_session=True,
        )  # fmt: skip
        tree = ProcessTree(process.pid)
        ended = os.pidfd_open(process.pid)
        try:
            while not select.select([ended], [], [], INTERVAL)[0] and time.perf_counter() - began < limit:
                tree.look()
            seconds = time.perf_counter() - began
        finally:
            os.close(ended)
            if process.poll() is None:  # too slow, or we were interrupted
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
    if code:
        last = complaints.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise RuntimeError(f"{' '.join(command)} ended with {code} after {seconds:.0f} s: {last}")
    took = _processor_seconds() - spent
    return Ran(
        seconds=seconds,
        processor_seconds=took,
        peak=tree.peak,
        peak_parts=tree.peak_parts,
        peak_second=tree.peak_time - began,
        looks=tree.looks,
        said=said.read_text(encoding="utf-8", errors="replace"),
    )


def descendants(root: int) -> list[int]:
    """The process and all below it; those that have ended are left out."""
    found, waiting = [], [root]
    while waiting:
        process = waiting.pop()
        found.append(process)
        try:
            threads = list(Path(f"/proc/{process}/task").iterdir())
        except OSError:
            continue
        for thread in threads:
            try:
                text = (thread / "children").read_text(encoding="ascii")
            except OSError:
                continue
            waiting += [int(word) for word in text.split()]
    return sorted(found)


def resident(process: int) -> int:
    """Its resident size in bytes; 0 once it has ended."""
    try:
        words = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return int(words[1]) * resource.getpagesize()


def proportional_size(process: int) -> int:
    """Its PSS in bytes; 0 once it has ended."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)


def _processor_seconds() -> float:
    """Seconds on a processor of all children that were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
