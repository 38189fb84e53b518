"""Why did it die? Twelve ways to run out of memory under `holdwater run`, and nine ends that are none.

Each end is made by the kernel or the library that makes it in real life: the kernel kills in a control group of
600 MB, `/dev/shm` has 32 MB, and only the device's lack of memory is an exception that the script raises itself.
What must be named: what was short, and where.

    sudo python benchmarks/endings.py       into results/endings.json; root, for the group and the mount
    python benchmarks/endings.py --some     only those that need neither
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

from recording import Bar, record
from soak_faults import mounted

SCRIPT = Path(__file__).parent / "programs" / "endings" / "steps.py"
GROUP = 600 << 20
NAME = f"holdwater-ends-{os.getpid()}"
"""Two that share a group would have half of it each."""


class End(NamedTuple):
    """One way to end."""

    name: str
    cause: str
    """What must be named; empty where nothing must."""
    components: tuple[str, ...] = ()
    """Where it was short: any of these."""
    grouped: bool = False
    """Whether it happens in a control group."""
    mounts: bool = False
    """Whether `/dev/shm` is small."""


HELD = ("host.tensors", "host.native", "host.python")
ENDS = (
    End("grow", "host memory", HELD, grouped=True),
    End("worker grows", "host memory", ("host.children",), grouped=True),
    End("pool grows", "host memory", ("host.children",), grouped=True),
    End("subprocess grows", "host memory", ("host.children",), grouped=True),
    End("rank grows", "host memory", ("host.children",), grouped=True),
    End("MemoryError", "host memory", (*HELD, "host.file")),
    End("CPU allocator", "host memory", (*HELD, "host.file")),
    End("address space", "host memory", (*HELD, "host.file")),
    End("CUDA", "device memory", ("device.reserved", "device.active")),
    End("SIGBUS", "shared memory", ("host.shared",), mounts=True),
    End("worker's bus error", "shared memory", ("host.shared",), mounts=True),
    End("open files", "open files", ("process.handles",)),
    End("SIGKILL", "signal"),
    End("SIGTERM", "asked to stop"),
    End("SIGSEGV", "signal"),
    End("abort", "signal"),
    End("error", "error"),
    End("exit 137", "exit code"),
    End("interrupted", "asked to stop"),
    End("worker killed", "error"),
    End("well", ""),
)


class Group:
    """A control group of our own with a memory limit, version 1 or 2."""

    def __init__(self) -> None:
        """Make it beside the one of this process.

        Raises:
            OSError: This process may not.
        """
        lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
        first = next((line for line in lines if "memory" in line.split(":")[1].split(",")), None)
        if first is None:
            self.folder = Path("/sys/fs/cgroup") / lines[-1].split(":", 2)[2].lstrip("/") / NAME
            limit, swap = "memory.max", "memory.swap.max"
        else:
            self.folder = Path("/sys/fs/cgroup/memory") / first.split(":", 2)[2].lstrip("/") / NAME
            limit, swap = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
        self.folder.mkdir(exist_ok=True)
        atexit.register(self.remove)
        (self.folder / limit).write_text(str(GROUP), encoding="ascii")
        if (self.folder / swap).exists():
            (self.folder / swap).write_text("0" if first is None else str(GROUP), encoding="ascii")

    def enter(self) -> None:
        """Put the calling process into it."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")

    def remove(self) -> None:
        """Give it back."""
        with suppress(OSError):
            self.folder.rmdir()


def died(end: End, place: Path, group: Group | None) -> dict[str, Any]:
    """Let a script end so; what was said of it."""
    verdict, termination = place / "verdict.json", place / "termination-log"
    termination.touch()
    flags = ["--out", str(place / "run"), "--json", str(verdict)]
    command = [sys.executable, "-m", "holdwater", "run", *flags, str(SCRIPT), end.name]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=180,
        env=os.environ | {"HOLDWATER_TERMINATION_LOG": str(termination)},
        preexec_fn=group.enter if end.grouped and group is not None else None,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(verdict.read_text(encoding="utf-8")).get("end", {})
    last = done.stderr.rstrip().rpartition("\n")[2]
    told = termination.read_text(encoding="utf-8").rstrip("\n")
    named = found.get("cause", "") == end.cause and (not end.components or found["component"] in end.components)
    said = not end.cause or (last == f"holdwater: {found.get('text')}" == told)
    what = f"{found.get('cause', 'nothing')} {found.get('component', '')}"
    print(f"{end.name}: {what}{'' if named else ' WRONG'}", flush=True)
    return {"end": end.name, "exit_code": done.returncode, "named": named, "said": said, **found}


def main() -> bool:
    """All of them."""
    some = "--some" in sys.argv
    chosen = [end for end in ENDS if not some or not (end.grouped or end.mounts)]
    group = None if some else Group()
    runs = []
    for end in chosen:
        with tempfile.TemporaryDirectory() as place, ExitStack() as mounts:
            if end.mounts:
                mounts.enter_context(mounted(Path("/dev/shm"), "size=32m"))  # noqa: S108 - our own
            runs.append(died(end, Path(place), group))
    if some:
        return all(one["named"] and one["said"] for one in runs)
    of_memory = [one for one, end in zip(runs, chosen, strict=True) if end.components]
    others = [one for one, end in zip(runs, chosen, strict=True) if not end.components]
    bars = {
        "ends for want of memory whose cause and component are named": Bar(
            f"{sum(one['named'] for one in of_memory)} of {len(of_memory)}", "12 of 12",
            all(one["named"] for one in of_memory),
        ),
        "other ends that are called one of memory": Bar(
            f"{sum(bool(one.get('component')) for one in others)} of {len(others)}", "none",
            all(one["named"] for one in others),
        ),
        "of all, last line of standard error and termination message say it": Bar(
            f"{sum(one['said'] for one in runs)} of {len(runs)}", "all", all(one["said"] for one in runs)
        ),
    }  # fmt: skip
    return record("endings", bars, runs=runs)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
