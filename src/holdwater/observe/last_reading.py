"""What was last read of a process before it ended, and what it could have at most."""

import json
import math
import os
import resource
import time
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdwater.detectors.ending import Raised
from holdwater.observe.agent.uncaught import FILE
from holdwater.probes.cgroup import Cgroup
from holdwater.probes.host import read_kib_table
from holdwater.probes.kills import count_kills
from holdwater.probes.outside import Outside
from holdwater.signal_errors import not_the_scripts, suppressed
from holdwater.timeline.buckets import Buckets

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - where POSIX shared memory lies
RECENT, LEAST = 2.0, 3
"""Seconds for which a look counts, and how many count at least: a process that dies gives its memory back, and
takes its children with it."""


def read_uncaught(folder: Path) -> Raised | None:
    """The exception that has ended a script; None if none has left it, or nobody could write it down.

    Args:
        folder: Of the channel.
    """
    try:
        return Raised(**json.loads((folder / FILE).read_text(encoding="utf-8")))
    except not_the_scripts(OSError, ValueError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class OutsideLook:
    """One look from outside."""

    at: float
    """Seconds since the beginning."""
    memory: dict[str, int]
    """In bytes: `resident`, `children`, `shared`, as far as they are known."""
    children: dict[str, int]
    """How many there were, by their kind."""
    grown: int
    """Bytes by which they had grown since they were first seen."""
    shared_free: int | None
    """Free bytes of `/dev/shm`."""

    @property
    def held(self) -> int:
        """Bytes of the process and its children."""
        return self.memory.get("resident", 0) + self.memory.get("children", 0)


class LastReading:
    """Memory of a process and its children in its last seconds, and the limits above it."""

    def __init__(self, outside: Outside) -> None:
        """Remember how many processes the kernel has killed so far.

        Args:
            outside: Reads the process from outside.
        """
        self._outside = outside
        self._group = Cgroup.of_this_process()
        self._kills = count_kills(self._group) or 0
        self._began = time.perf_counter()
        self._looks: deque[OutsideLook] = deque()
        self.address_space = 0
        """Bytes that it had mapped."""
        self._most_addresses = 0
        self._ended = 0.0

    def see(self) -> None:
        """Take in what was read last from outside."""
        now, children, seen = self._now, self._outside.children, self._outside.seen
        fields = (("resident", "resident"), ("children", "children"), ("shared", "shared_memory"))
        before = self._looks[-1].memory if self._looks else {}  # what is dear is read less often
        memory = before | {name: int(seen[key]) for name, key in fields if key in seen}
        grown = sum(child.grown for child in children.growers(most=len(children.pids)))
        room = shared_room()
        kinds = dict(Counter(children.kinds))
        self._looks.append(OutsideLook(now, memory, kinds, grown, None if room is None else room[0]))
        while len(self._looks) > LEAST and self._looks[0].at < now - RECENT:
            self._looks.popleft()
        self.address_space = int(seen.get("virtual", 0))
        with suppressed(OSError, ValueError):
            self._most_addresses = resource.prlimit(self._outside.pid, resource.RLIMIT_AS)[0]

    def end(self) -> None:
        """The process has ended: what is read of it from now on is not its own."""
        self._ended = self._now

    def facts(self, newest: Buckets) -> dict[str, Any]:
        """What is known of its end, by the names of `EndFacts`.

        Args:
            newest: The history that the process has written itself.
        """
        device = newest.highs("device_reserved")[-1] if len(newest) else math.nan
        known = {} if math.isnan(device) else {"device": int(device)}
        room = shared_room()
        kills = max((count_kills(self._group) or 0) - self._kills, 0)
        grouped = self._group.folder is not None and self._group.limit is not None
        found: dict[str, Any] = {
            "kills": kills, "kills_of": "the control group" if grouped else "this machine", "memory": known,
            "limits": self._limits(room), "address_space": self.address_space,
        }  # fmt: skip
        free = [one.shared_free for one in self._looks if one.shared_free is not None]
        free += [] if room is None else [room[0]]
        found |= {"shared_free": min(free, default=None)}
        if not self._looks:
            return found
        fullest = max(self._looks, key=lambda one: one.held)
        own = newest.highs("resident")[-1] if len(newest) else math.nan
        later = {} if not own > fullest.memory.get("resident", 0) else {"resident": int(own)}
        return found | {
            "memory": fullest.memory | later | known,
            "seconds_before": max((self._ended or self._now) - fullest.at, 0.0),
            "children": fullest.children, "children_grown": fullest.grown,
        }  # fmt: skip

    @property
    def _now(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._began

    def _limits(self, room: tuple[int, int] | None) -> dict[str, int]:
        """Bytes that it could have at most, by who sets the limit."""
        found = {}
        if self._group.limit is not None:
            found["the control group"] = int(self._group.limit)
        with suppressed(OSError, KeyError):
            found["the machine"] = read_kib_table(Path("/proc/meminfo"))["MemTotal"]
        if self._most_addresses > 0:  # infinity is -1
            found["the address space"] = self._most_addresses
        return found if room is None else found | {SHARED_MEMORY: room[1]}


def shared_room() -> tuple[int, int] | None:
    """Free bytes of `/dev/shm`, and its size; None if there is no such folder."""
    with suppressed(OSError):
        room = os.statvfs(SHARED_MEMORY)
        return room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
    return None
