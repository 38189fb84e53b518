"""The processes that multiprocessing has started, by name, threads that Python does not know, and open files."""

import os
import threading

from holdwater.attribution.kinds import module_named, namespace_of
from holdwater.signal_errors import not_the_scripts

POOLS = frozenset(("pt_autograd", "OMP", "cuda-EvtHandlr"))
"""Name prefixes of threads that libraries keep for computing."""


def named_processes() -> dict[str, str]:
    """The names of the processes that multiprocessing has started here, by PID as text."""
    found = {}
    for process in list(module_named("multiprocessing.process").get("_children", ())):
        parts = namespace_of(process)  # a process of a class of the program's may redefine `name`
        pid = namespace_of(parts.get("_popen")).get("pid")
        if type(pid) is int:
            found[str(pid)] = str(parts.get("_name"))
    return found


def open_files() -> set[str]:
    """The numbers of the files that this process has open, sockets and pipes too; empty if it is not told.

    Listing opens a file itself, whose number is the lowest that is free: it would hide the program's next one.
    """
    try:
        own = os.open("/proc/self/fd", os.O_RDONLY)
        os.close(own)
        return set(os.listdir("/proc/self/fd")) - {str(own)}  # noqa: PTH208 - half the cost
    except not_the_scripts(OSError):
        return set()


def native_threads() -> int:
    """Threads that Python did not start and that have used the processor; 0 if the system does not report them."""
    known = {namespace_of(thread).get("_native_id") for thread in threading.enumerate()}
    count = 0
    try:
        for name in os.listdir("/proc/self/task"):  # noqa: PTH208 - half the cost
            count += int(name) not in known and _has_worked(name)
    except not_the_scripts(OSError):
        return count
    return count


def _has_worked(number: str) -> bool:
    """Whether a thread has used the processor for a hundredth of a second, and is not of a library's pool."""
    with open(f"/proc/self/task/{number}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - quick
        name, _, rest = file.read().partition("(")[2].rpartition(")")
    fields = rest.split()
    return not name.startswith(tuple(POOLS)) and int(fields[11]) + int(fields[12]) > 0
