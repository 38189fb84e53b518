"""The memory limit and usage of this process's control groups, version 1 and 2.

Source: Linux kernel documentation, admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from dataclasses import dataclass
from pathlib import Path

from holdwater.errors import ProbeError
from holdwater.signal_errors import not_the_scripts
from holdwater.units import Bytes

_UNLIMITED = 1 << 60
"""Version 1 writes "no limit" as a number near 2^63."""


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The memory controller that this process is charged to."""

    folder: Path | None
    """The group with the smallest limit; None if no memory controller is found."""
    version: int | None
    limit: Bytes | None
    """The smallest limit of the group and its ancestors; None if there is none."""

    @classmethod
    def of_this_process(
        cls, root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
    ) -> "Cgroup":
        """Find the group of this process and the smallest limit above it."""
        try:
            lines = membership.read_text(encoding="ascii", errors="replace").splitlines()
        except not_the_scripts(OSError):
            return cls(None, None, None)
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                return cls._tightest(root / "memory", path, version=1)
        for line in lines:
            if line.startswith("0::"):
                return cls._tightest(root, line[3:], version=2)
        return cls(None, None, None)

    @classmethod
    def _tightest(cls, mount: Path, path: str, *, version: int) -> "Cgroup":
        """Walk from the group up to the mount; inside a container the path may not exist below it."""
        name = "memory.limit_in_bytes" if version == 1 else "memory.max"
        group = mount / path.lstrip("/")
        found: list[tuple[int, Path]] = []
        for folder in (group, *group.parents):
            limit = _read_limit(folder / name)
            if limit is not None:
                found.append((limit, folder))
            if folder == mount:
                break
        if not found:
            return cls(group if group.is_dir() else None, version, None)
        limit, folder = min(found)
        return cls(folder, version, Bytes(limit))

    def usage(self) -> Bytes:
        """Memory charged to the group, without page cache that the kernel can drop.

        Returns:
            Bytes in use.

        Raises:
            ProbeError: There is no group, or it cannot be read.
        """
        if self.folder is None:
            raise ProbeError("this process is in no memory cgroup")
        old = self.version == 1
        try:
            charged = int((self.folder / ("memory.usage_in_bytes" if old else "memory.current")).read_text())
            stat = (self.folder / "memory.stat").read_text(encoding="ascii")
        except not_the_scripts(OSError, ValueError) as error:
            raise ProbeError(f"the cgroup {self.folder} cannot be read: {error}") from error
        counts = dict(line.split() for line in stat.splitlines())
        prefix = "total_" if old else ""
        droppable = sum(int(counts.get(prefix + name, 0)) for name in ("inactive_file", "active_file"))
        droppable += int(counts.get("slab_reclaimable", 0))
        return Bytes(max(charged - droppable, 0))


def _read_limit(path: Path) -> int | None:
    """Read one limit; None if the file is missing or says "no limit"."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except not_the_scripts(OSError):
        return None
    return int(text) if text.isdigit() and int(text) < _UNLIMITED else None
