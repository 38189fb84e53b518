"""Count the processes that the kernel has killed out of memory.

Source: Linux kernel documentation, admin-guide/cgroup-v2.rst (`memory.events`), admin-guide/cgroup-v1/memory.rst
(`memory.oom_control`), and `oom_kill` in /proc/vmstat, which counts those of the whole machine.
"""

from pathlib import Path

from holdwater.probes.cgroup import Cgroup


def count_kills(cgroup: Cgroup | None = None, machine: Path = Path("/proc/vmstat")) -> int | None:
    """How many processes the kernel has killed out of memory, in this process's control group if it has one.

    Args:
        cgroup: The group; None takes this process's.
        machine: The kernel's counters.

    Returns:
        The count so far; None if the kernel does not report it.
    """
    group = cgroup or Cgroup.of_this_process()
    places = [machine]
    if group.folder is not None and group.limit is not None:
        places.insert(0, group.folder / ("memory.oom_control" if group.version == 1 else "memory.events"))
    for place in places:
        try:
            lines = place.read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        counts = [int(line.split()[1]) for line in lines if line.startswith("oom_kill ")]
        if counts:
            return counts[0]
    return None
