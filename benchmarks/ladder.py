"""Remedies over the zoo under real limits: is any leak killed, and what do remedies cost a healthy script?

Each leak's script runs as it is under the supervisor, without a limit, to see what it takes; then for so many
more steps that it would take 300 MB more than at its beginning, in a control group that has 150 MB for that: first
bare, then under the supervisor. There it must end by itself, or be stopped with exit code 75; the kernel must kill
nothing. Each look-alike runs as it is under a limit 15 % above its peak, where remedies are weighed; nothing
harder than a collection may be done to it, and what the ladder spends is held against the script's own time. To
make a control group takes root.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from recording import Bar, record
from survival import Group

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from zoo.labels import Label, read_labels  # noqa: E402 - it lies beside this folder

NO_LIMIT = 1 << 40
TAKES, LEFT = 300e6, 150_000_000
"""What a lengthened leak would take, and what it has; bytes."""
MOST_TIMES, MOST_SECONDS = 60.0, 90.0
OUTER = re.compile(r"^(for .* in (?:range\(|.*islice\(\w+, ))(\d+)\)", re.MULTILINE)
FIT = 1.15
"""The limit of a look-alike, in peaks."""
EXPERIMENT = "before a leak is named"
"""The watcher collects and trims once to check what it says: that is no remedy, and is not counted here."""
HARD = frozenset(("clear_caches", "trim", "micro_batch", "recycle", "stop"))


def run(script: Path, limit: int, *, bare: bool = False) -> dict[str, Any]:
    """Run one script in a group with a limit; sample what the group is charged for."""
    curve: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as place:
        group = Group(limit, name=f"holdwater-{os.getpid()}-{threading.get_ident()}")
        command = [sys.executable, str(script)]
        if not bare:
            flags = ["--supervise", "--quiet", "--out", "run", "--json", "v.json"]
            command = [sys.executable, "-m", "holdwater", "run", *flags, str(script)]
        began = time.monotonic()
        with (Path(place) / "said.txt").open("w+") as said:
            process = subprocess.Popen(
                command,
                cwd=place, stdout=said, stderr=said,
                preexec_fn=group.enter,  # noqa: PLW1509 - it writes one line to a file
            )  # fmt: skip
            while process.poll() is None:
                curve.append((time.monotonic() - began, group.used()))
                time.sleep(0.005)
            said.seek(0)
            text = said.read()
        killed = group.kills()
        left = group.sweep()
        group.remove()
        file = Path(place) / "v.json"
        verdict = json.loads(file.read_text()) if file.exists() else {}
    return {
        "status": process.returncode,
        "killed": killed,
        "left_running": left,
        "seconds": time.monotonic() - began,
        "limit": limit,
        "curve": curve,
        "peak": max(size for _, size in curve),
        "steps": verdict.get("steps"),
        "actions": [
            {key: action[key] for key in ("step", "action", "freed_bytes", "seconds")}
            for action in verdict.get("actions", ())
            if not action["reason"].startswith(EXPERIMENT)
        ],
        "overhead": verdict.get("overhead", {}),
        "rate": next(
            (found["rate"]["bytes_per_step"] for found in verdict.get("findings", ()) if found["rate"]), 0.0
        ),
        "said": text[-600:],
    }


def held_after(curve: list[tuple[float, int]], share: float) -> int:
    """What was held after a share of the time that follows the imports: the median around it."""
    end = curve[-1][0]
    begin = next(seconds for seconds, size in curve if size > 0.5 * max(size for _, size in curve))
    at = begin + share * (end - begin)
    near = sorted(size for seconds, size in curve if abs(seconds - at) < 0.3)
    return near[len(near) // 2] if near else curve[len(curve) // 2][1]


def measure(label: Label) -> dict[str, Any]:
    """Run one script without a limit, and under one."""
    free = run(label.script, NO_LIMIT)
    row: dict[str, Any] = {"script": label.script.stem, "leaks": label.leaks, "free_peak": free["peak"]}
    if not label.leaks:
        found = run(label.script, int(FIT * free["peak"]))
        found.pop("curve")
        return row | found
    grew = max(free["rate"] * (free["steps"] or 0), 1e6)
    times = min(max(TAKES / grew, 1.0), MOST_TIMES, MOST_SECONDS / free["seconds"])
    with tempfile.TemporaryDirectory() as place:
        longer = Path(place) / label.script.name
        longer.write_text(lengthened(label.script.read_text(), times))
        limit = held_after(free["curve"], 0.1) + LEFT
        bare, found = run(longer, limit, bare=True), run(longer, limit)
    found.pop("curve")
    return row | found | {"times": times, "bare_status": bare["status"]}


def lengthened(text: str, times: float) -> str:
    """The same script with more steps: its outermost loop is a `range`."""
    text, found = OUTER.subn(lambda match: f"{match[1]}{int(int(match[2]) * times)})", text, count=1)
    if not found:
        raise ValueError("the script has no outermost loop over a range")
    return text


def judge(rows: list[dict[str, Any]]) -> dict[str, Bar]:
    """The bars."""
    leaks = [row for row in rows if row["leaks"]]
    bare = sum(row["bare_status"] == -9 for row in leaks)
    healthy = [row for row in rows if not row["leaks"]]
    whole = [row for row in leaks if row["status"] in {0, 75} and not row["killed"]]
    stopped = sum(row["status"] == 75 for row in whole)
    unharmed = [row for row in healthy if row["status"] == 0 and not row["killed"]]
    hard = [row["script"] for row in healthy if HARD & {action["action"] for action in row["actions"]}]
    spent = [
        sum(action["seconds"] for action in row["actions"]) / max(row["overhead"].get("run_seconds", 0.0), 1e-9)
        for row in healthy
    ]
    mean = sum(spent) / max(len(spent), 1)
    return {
        "the same scripts bare": Bar(
            f"{bare} of {len(leaks)} killed", "all killed: each would break its limit", bare == len(leaks)
        ),
        f"leaks of the zoo under a limit that they would break, of {len(leaks)}": Bar(
            f"{stopped} stopped with 75, {len(whole) - stopped} finished, {len(leaks) - len(whole)} killed",
            "none killed",
            len(whole) == len(leaks),
        ),
        f"look-alikes that fit their limit, of {len(healthy)}": Bar(
            f"{len(unharmed)} finish, {len(hard)} see more than a collection",
            "all finish, none sees more",
            len(unharmed) == len(healthy) and not hard,
        ),
        "what the ladder's actions take of a look-alike's time": Bar(
            f"{mean:.2%} in the mean, {max(spent, default=0):.2%} at most", "at most 1 %", mean <= 0.01
        ),
    }


def main() -> bool:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern", nargs="?", default="")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    labels = [label for label in read_labels(options.pattern) if not label.needs_gpu]
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = []
        for row in pool.map(measure, labels):
            taken = [(action["action"], action["step"], round(action["seconds"], 3)) for action in row["actions"]]
            sizes = " ".join(f"{name} {row[name] / 1e6:.0f} MB" for name in ("limit", "peak", "free_peak"))
            print(f"{row['script']:40} {row['status']:4} {row['steps']} steps, {sizes}, {taken}", flush=True)
            if row["killed"] or row["status"] not in {0, 75}:
                print(row["said"], flush=True)
            rows.append(row)
    for row in rows:
        del row["said"]
    return record("ladder" if not options.pattern else "ladder_part", judge(rows), rows=rows)


if __name__ == "__main__":
    sys.exit(not main())
