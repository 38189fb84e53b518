"""Does a run survive a native leak of 20 MB a step, for 3,000 steps of 100 ms, under a limit of 2 GB?

The limit is a memory control group (version 1 or 2) that holds all processes and memory-backed files; to make
one takes root. The bare script dies in it; under the supervisor it ends, each step's loss and samples as
without a leak. The time is held against the same leaking script without any limit, for as many steps as the
machine's memory holds, scaled to the whole run.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from recording import Bar, record

LIMIT = 2_000_000_000
SCRIPT = Path(__file__).parent / "programs" / "native_leak.py"
PROGRAM = str(Path(sys.executable).with_name("holdwater"))


class Group:
    """A memory control group of our own."""

    def __init__(self, limit: int, name: str = "") -> None:
        root = Path("/sys/fs/cgroup")
        old = (root / "memory").is_dir()
        self.folder = (root / "memory" if old else root) / (name or f"holdwater-{os.getpid()}")
        self.folder.mkdir()
        (self.folder / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(limit))
        self._old = old
        self.peak_file = self.folder / ("memory.max_usage_in_bytes" if old else "memory.peak")

    def enter(self) -> None:
        """Move this process into it: called in a child before it becomes the command."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def used(self) -> int:
        """What it is charged for now, without what the kernel can drop, as holdwater counts it."""
        stat = (self.folder / "memory.stat").read_text()
        counts = {name: int(value) for name, value in (line.split() for line in stat.splitlines())}
        charged = int((self.folder / ("memory.usage_in_bytes" if self._old else "memory.current")).read_text())
        prefix = "total_" if self._old else ""
        return charged - sum(counts.get(prefix + name, 0) for name in ("inactive_file", "active_file"))

    def kills(self) -> int:
        """How many processes the kernel has killed in it."""
        lines = (self.folder / ("memory.oom_control" if self._old else "memory.events")).read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def sweep(self) -> int:
        """End what was left running in it; return how many processes that were."""
        found = [int(pid) for pid in (self.folder / "cgroup.procs").read_text().split()]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(found)

    def remove(self) -> int:
        """Remove it; return the most that it was charged for."""
        peak = int(self.peak_file.read_text())
        for _ in range(50):
            try:
                self.folder.rmdir()
                break
            except OSError:
                time.sleep(0.1)
        return peak


def run(folder: Path, command: list[str], limit: int | None) -> dict[str, Any]:
    """Run a command in a folder of its own."""
    folder.mkdir()
    group = None if limit is None else Group(limit)
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False,
        preexec_fn=None if group is None else group.enter,
    )  # fmt: skip
    seconds = time.monotonic() - began
    rows = (folder / "steps.txt").read_text().splitlines() if (folder / "steps.txt").exists() else []
    return {
        "status": done.returncode,
        "seconds": seconds,
        "rows": rows,
        "last": done.stdout.strip(),
        "remarks": done.stderr[-2000:],
        "charged_bytes": None if group is None else group.remove(),
    }


def main() -> bool:
    """Measure, print and record; return whether every bar was reached."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--leak", type=int, default=20_000_000)
    parser.add_argument("--seconds", type=float, default=0.1)
    options = parser.parse_args()
    arguments = [str(options.leak), str(options.seconds)]
    fits = min(options.steps, int(0.6 * psutil.virtual_memory().available / options.leak))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        healthy = run(folder / "healthy", [sys.executable, str(SCRIPT), str(options.steps), "1000", "0"], None)
        bare = run(folder / "bare", [sys.executable, str(SCRIPT), str(options.steps), *arguments], LIMIT)
        free = run(folder / "free", [sys.executable, str(SCRIPT), str(fits), *arguments], None)
        supervised = run(
            folder / "supervised",
            [
                PROGRAM,
                "run",
                "--supervise",
                "--json",
                "v.json",
                "--out",
                "run",
                str(SCRIPT),
                str(options.steps),
                *arguments,
            ],
            LIMIT,
        )
        verdict = json.loads((folder / "supervised" / "v.json").read_text())
    return judge_and_record(healthy, bare, free | {"steps": fits}, supervised | {"verdict": verdict})


def judge_and_record(
    healthy: dict[str, Any], bare: dict[str, Any], free: dict[str, Any], supervised: dict[str, Any]
) -> bool:
    """Hold the runs against one another, print and record."""
    verdict = supervised["verdict"]
    costs = [action["seconds"] for action in verdict["actions"] if action["action"] == "recycle"]
    expected = free["seconds"] * len(healthy["rows"]) / free["steps"]
    longer = supervised["seconds"] / expected - 1
    exact = supervised["rows"] == healthy["rows"] and supervised["last"] == healthy["last"]
    if not exact or supervised["status"]:
        print(supervised["remarks"])
        pairs = zip(healthy["rows"], supervised["rows"], strict=False)
        print(next((pair for pair in pairs if pair[0] != pair[1]), "all rows agree"), supervised["last"])
    bars = {
        "native leak of 20 MB a step under a limit of 2 GB: the bare script": Bar(
            f"ends with {bare['status']} after {len(bare['rows'])} steps", "dies", bare["status"] != 0
        ),
        "the same under the supervisor, 3,000 steps": Bar(
            f"ends with {supervised['status']} after {len(supervised['rows'])} steps, {len(costs)} replacements",
            "ends whole",
            supervised["status"] == 0,
        ),
        "its losses and samples as without the leak": Bar(str(exact), "each step as without the leak", exact),
        "its time against the leaking script without a limit": Bar(
            f"{longer:+.1%}", "at most 5 %", longer <= 0.05
        ),
    }
    numbers = {
        "limit_bytes": LIMIT,
        "charged_bytes": supervised["charged_bytes"],
        "seconds": supervised["seconds"],
        "without_limit": {"steps": free["steps"], "seconds": free["seconds"]},
        "replacement_seconds": costs,
        "verdict": verdict["verdict"],
    }
    return record("survival", bars, **numbers)


if __name__ == "__main__":
    sys.exit(not main())
