"""The mapped regions of a process, and their resident parts: growth within them has a known end.

Pages of a mapped file cannot exceed the mapping, and the kernel may drop them at any time. An array that was
allocated at once and is touched gradually cannot exceed its allocation. Both look like a leak in resident memory;
the regions show the difference, since a leak needs new or larger regions.

Source: Linux kernel documentation, filesystems/proc.rst (`smaps`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from holdwater.signal_errors import not_the_scripts

Kind = Literal["file", "private"]
_NO_FILES = ("/dev/", "/memfd:", "/SYSV", "/anon_hugepage", "[stack", "[v")
"""Names of regions that are neither: shared memory, devices, stacks, the kernel's own."""


@dataclass(frozen=True, slots=True)
class Region:
    """One mapping; addresses, and sizes in bytes."""

    start: int
    end: int
    resident: int
    kind: Kind
    code: bool = False
    """Whether it belongs to a program or a library: these are paged in at first use."""
    reserved: bool = False
    """Whether an allocator has reserved address space (`MAP_NORESERVE`): it takes more when that is used up."""


@dataclass(frozen=True, slots=True)
class Touched:
    """What became resident from one reading of the regions to another, in bytes."""

    since_step: int
    """The step of the first reading."""
    inside: int
    """In regions that had been mapped before."""
    fresh: int
    """In regions that were mapped, or enlarged, since."""
    room: int
    """What the regions that grew can still take."""
    data: int = 0
    """The part of `fresh` outside programs and libraries."""

    @property
    def has_a_bound(self) -> bool:
        """Whether most of the growth lies in regions that had been mapped before (libraries load meanwhile)."""
        return self.inside > 0 and self.inside >= 2 * self.fresh


def read_regions(pid: int) -> tuple[Region, ...]:
    """The regions of a process (5 to 30 ms of the reader's time); empty if the kernel does not report them.

    Args:
        pid: The process.
    """
    try:
        text = Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8", errors="replace")
    except not_the_scripts(OSError):
        return ()
    return parse_regions(text.splitlines())


def parse_regions(lines: Iterable[str]) -> tuple[Region, ...]:
    """Read the lines of an smaps file; only private memory and files are kept.

    Args:
        lines: The file's.
    """
    found: list[Region] = []
    start = end = resident = 0
    kind: Kind | None = None
    code = False
    for line in lines:
        if line.startswith("Rss:"):
            resident = int(line.split()[1]) * 1024
        elif line.startswith("Anonymous:"):
            if kind is not None:
                private = int(line.split()[1]) * 1024
                found.append(Region(start, end, resident - private if kind == "file" else private, kind, code))
        elif line.startswith("VmFlags:"):
            if kind == "private" and "nr" in line.split():
                found[-1] = replace(found[-1], reserved=True)
        elif "-" in line[:17] and not line[0].isupper():
            words = line.split(None, 5)
            first, _, last = words[0].partition("-")
            start, end = int(first, 16), int(last, 16)
            name = words[5].strip() if len(words) > 5 else ""
            kind, code = _kind(words[1], name), "x" in words[1] or ".so" in name
    return tuple(found)


def _kind(rights: str, name: str) -> Kind | None:
    """The kind of a region; None if it is neither."""
    if name.startswith(_NO_FILES):
        return None
    if name.startswith("/"):
        return "file"
    return "private" if rights.startswith("rw") else None


def file_ranges() -> list[tuple[int, int]]:
    """The file mappings of this process: first and last address of each, in order; none if unknown."""
    try:
        text = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except not_the_scripts(OSError):
        return []
    rows = (line.split(None, 5) for line in text.splitlines())
    ends = (words[0].partition("-") for words in rows if _kind(words[1], words[-1]) == "file")
    return [(int(first, 16), int(last, 16)) for first, _, last in ends]


def touched(before: tuple[Region, ...], after: tuple[Region, ...], kind: Kind, *, since_step: int) -> Touched:
    """Compare two readings.

    Args:
        before: The regions at first; those of other kinds are ignored.
        after: The regions later.
        kind: The kind of regions to compare.
        since_step: The step of the first reading.
    """
    old = [region for region in before if region.kind == kind]
    inside = fresh = data = free = at = 0
    for region in (region for region in after if region.kind == kind):  # both in the order of their addresses
        while at < len(old) and old[at].end <= region.start:
            at += 1
        mapped = resident = 0
        over = at
        while over < len(old) and old[over].start < region.end:
            mapped += min(old[over].end, region.end) - max(old[over].start, region.start)
            resident += old[over].resident
            over += 1
        grown = region.resident - resident
        if grown <= 0:
            continue
        new = grown if region.reserved else min(grown, region.end - region.start - mapped)
        fresh += new
        data += 0 if region.code else new
        inside += grown - new
        if grown > new:
            free += region.end - region.start - region.resident
    return Touched(since_step, inside, fresh, free, data)
