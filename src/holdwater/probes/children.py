"""The child processes of a process: the kind of each, and its growth since it was first seen."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from holdwater.probes.processes import OBSERVERS, descendants_of, proportional_size
from holdwater.signal_errors import not_the_scripts

LONGEST_COMMAND = 72
"""Most characters of a command line that are shown."""
_KINDS = (
    ("multiprocessing.resource_tracker", "the resource tracker of multiprocessing"),
    ("multiprocessing.forkserver", "the fork server of multiprocessing"),
    ("compile_worker", "a compile worker"),
    ("multiprocessing.spawn", "a process that multiprocessing has spawned"),
)
"""Words of a command line, and the kind of process that they show."""
FORK = "a fork of the training process"
LOADER = "a loader worker"


@dataclass(slots=True)
class Child:
    """One child process."""

    pid: int
    kind: str
    """Its kind, as text."""
    first: int
    """Its memory in bytes when it was first seen: its share of pages that several processes have."""
    now: int
    """Its memory when it was last seen."""
    own: int | None = None
    """Its private memory: its own pages, and those inherited from its parent at the fork; a page that is copied on
    write counts once before and once after. None if that cannot be read."""
    least: int | None = None
    """The least private memory so far."""
    reading: int = 0
    """The number of the reading that saw it first; 0 for those of the first reading that saw children."""

    @property
    def grown(self) -> int:
        """Growth of its private memory, in bytes."""
        if self.own is None or self.least is None:
            return self.now - self.first
        return self.own - self.least

    def read_own(self) -> bool:
        """Read its private memory; False if it has ended."""
        self.own = private_resident(self.pid)
        if self.own is not None:
            self.least = self.own if self.least is None else min(self.own, self.least)
        return self.own is not None


class ChildProcesses:
    """The children of one process, seen from outside."""

    def __init__(self, process: psutil.Process | None) -> None:
        """Start without children.

        Args:
            process: Their parent; None if it has ended.
        """
        self._process = process
        self._seen: dict[int, Child] = {}
        self._listed: list[psutil.Process] | None = None
        """As they were last listed."""
        self._readings = 0
        """Since there are children."""

    def read(self) -> dict[str, int]:
        """Their number and memory, by the field names of `Look`; empty if they cannot be listed."""
        if self._process is None:
            return {}
        with contextlib.suppress(psutil.Error):
            there = descendants(self._process.pid)
            ours = self._watching(there or set())
            if self._listed is None or there is None or there - ours != self._seen.keys():
                self._listed = descendants_of(self._process)  # it reads all processes of the machine
            found = [process for process in self._listed if process.pid not in ours]
            alive: dict[int, Child] = {}
            for process in found:
                size = proportional_size(process)
                child = self._seen.get(process.pid) or self._new(process, size)
                child.now = size
                alive[process.pid] = child
            self._seen = alive
            self._readings += bool(alive or self._readings)
            total = sum(child.now for child in alive.values())
            return {"child_count": len(found), "children": total} | self.read_own()
        return {}

    def read_own(self) -> dict[str, int]:
        """Private memory of the children listed last (20 µs each).

        Each counts with its size when it was first seen, and its private growth since. The share of shared pages
        (PSS) is less useful: it grows in a child when its parent writes to such a page.

        Returns:
            Empty if that cannot be read, or one of them has ended: they must be listed again.
        """
        if not all(list(map(Child.read_own, self._seen.values()))):  # all of them must be read
            return {}
        return {"children_own": sum(child.first + child.grown for child in self._seen.values())}

    @property
    def kinds(self) -> list[str]:
        """The kind of each descendant, as they were last seen."""
        return [child.kind for child in self._seen.values()]

    @property
    def pids(self) -> tuple[int, ...]:
        """The descendants, as they were last seen."""
        return tuple(self._seen)

    def growers(self, most: int = 3) -> list[Child]:
        """Those that have grown most and still live, the largest first.

        Args:
            most: How many.
        """
        grown = [child for child in self._seen.values() if child.grown > 0]
        return sorted(grown, key=lambda child: -child.grown)[:most]

    def late(self) -> list[Child]:
        """Those that were started later than the first ones and still live; loader workers come and go."""
        return [child for child in self._seen.values() if child.reading and child.kind != LOADER]

    def _new(self, process: psutil.Process, size: int) -> Child:
        """One that was not seen before."""
        return Child(process.pid, self._kind_of(process), size, size, reading=self._readings)

    def _watching(self, there: set[int]) -> set[int]:
        """This process and its own children, where what it watches has started it, or has adopted it."""
        own = os.getpid()
        return {own} | (descendants(own) or set()) if own in there else set()

    def _kind_of(self, process: psutil.Process) -> str:
        """The kind of a child, by its command line and name."""
        try:
            words, name = process.cmdline(), _thread_name(process.pid)
            command = " ".join(" ".join(words).split())  # a program after -c has lines
            if name.startswith("pt_data_worker"):
                return LOADER
            kind = next((kind for word, kind in _KINDS if word in command), None)
            if kind is None and self._process is not None and words == self._process.cmdline():
                kind = FORK
        except psutil.Error:
            return "a process that has ended"
        return kind or f"the subprocess `{_shortened(command)}`"


def descendants(pid: int) -> set[int] | None:
    """The descendants of a process by the kernel's own lists, which may miss one while another ends.

    Those that observe it are left out.

    Args:
        pid: Of the process.

    Returns:
        None if this kernel has no such lists, or they changed meanwhile.
    """
    found, waiting = set[int](), [pid]
    try:
        while waiting:
            place = f"/proc/{waiting.pop()}/task"
            for thread in os.listdir(place):  # noqa: PTH208 - half the cost
                fresh = set(map(int, Path(f"{place}/{thread}/children").read_bytes().split()))
                waiting += fresh - found
                found |= fresh
    except not_the_scripts(OSError):
        return None
    return found - OBSERVERS


def private_resident(pid: int) -> int | None:
    """Resident pages of a process that are neither of files nor shared memory, in bytes; None if it is gone.

    Args:
        pid: Of the process.
    """
    try:
        pages = Path(f"/proc/{pid}/statm").read_bytes().split()
        return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE") if int(pages[1]) else None
    except not_the_scripts(OSError, IndexError):
        return None


def _thread_name(pid: int) -> str:
    """The name that a process has set for itself; empty if the kernel does not report it."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except not_the_scripts(OSError):
        return ""


def _shortened(command: str) -> str:
    """A shortened command line, with the program's base name."""
    program, _, rest = command.partition(" ")
    text = f"{os.path.basename(program)} {rest}".strip()  # noqa: PTH119 - it may not be a path
    return text if len(text) <= LONGEST_COMMAND else f"{text[: LONGEST_COMMAND - 1]}…"
