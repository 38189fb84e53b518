"""Twenty loops that people write, replaced every 7 steps and killed once, against the same scripts alone.

Each script of `programs/loops` prints every loss and what it has learned, to the bit. A loop is exact if it prints
the same from several processes; otherwise its process must not have been replaced, and the reason been said.
`--fresh` runs those of `programs/fresh_loops` instead, or of another folder that it names, each with state in
another place. They were written from the documentation alone; what was found when they were first run is in
`first_sight.json` there, which the first run writes.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from recording import Bar, commit, record

PROGRAM = str(Path(sys.executable).with_name("holdwater"))
LOOPS = Path(__file__).parent / "programs" / "loops"
PROGRAMS = LOOPS.parent
DEFAULT = "fresh_loops"
EVERY = 7
"""Steps between two replacements."""
REFUSED = "is not replaced by a fresh one: "
LEAST = 16
"""Loops of twenty that must be exact."""


def trainer_of(supervisor: int) -> psutil.Process | None:
    """The training process: the fork server's child."""
    try:
        servers = psutil.Process(supervisor).children()
        return next((child for server in servers for child in server.children()), None)
    except psutil.Error:
        return None


def supervised(script: Path, place: Path, dice: random.Random) -> tuple[list[str], str, int, bool]:
    """Run a loop supervised, and kill its process once, at a random moment.

    Args:
        script: The loop.
        place: Where it runs.
        dice: Draws the moment.

    Returns:
        The lines it printed, what holdwater said, the exit code, and whether it was killed.
    """
    flags = ("--supervise", "--out", str(place / "run"), "--reload-interval", str(EVERY))
    errors = place / "errors.txt"
    lines, killed, after = [], False, dice.randrange(2, 28)
    with errors.open("w", encoding="utf-8") as said, subprocess.Popen(
        [PROGRAM, "run", *flags, str(script)],
        cwd=place, env=environment(), stdout=subprocess.PIPE, stderr=said, text=True,
    ) as run:  # fmt: skip
        for line in run.stdout or ():
            lines.append(line)
            if len(lines) > after and not killed:
                time.sleep(dice.uniform(0, 0.01))
                trainer = trainer_of(run.pid)
                if trainer is not None:
                    os.kill(trainer.pid, signal.SIGKILL)
                    killed = True
    return lines, errors.read_text(encoding="utf-8"), run.returncode, killed


def environment() -> dict[str, str]:
    """The environment of a loop: whatever its folder, it finds what the loops share."""
    return os.environ | {"PYTHONPATH": os.pathsep.join((str(LOOPS), os.environ.get("PYTHONPATH", "")))}


def measure(script: Path, dice: random.Random) -> dict[str, Any]:
    """Run a loop alone and supervised, and compare what they print."""
    # each run has a folder of its own: some loops leave files
    with tempfile.TemporaryDirectory() as alone, tempfile.TemporaryDirectory() as place:
        bare = subprocess.run(
            [sys.executable, str(script)], cwd=alone, env=environment(), capture_output=True, text=True, check=True
        ).stdout.splitlines(keepends=True)
        lines, said, code, killed = supervised(script, Path(place), dice)
    reason = said.partition(REFUSED)[2].partition("\n")[0]
    replaced = "the process was replaced" in said or "is started again" in said
    same = code == 0 and set(lines) == set(bare) and lines[-1:] == bare[-1:]
    # a process that was killed is made good by one that prints some lines again
    kind = "exact" if same and replaced else "refused" if reason and set(lines) <= set(bare) else "inexact"
    found = {"loop": script.stem, "found": kind, "reason": reason, "killed": killed, "exit_code": code}
    if kind == "inexact":
        found |= {"missing": sorted(set(bare) - set(lines))[:3], "added": sorted(set(lines) - set(bare))[:3]}
        found["said"] = said
    print(found, flush=True)
    return found


def first_sight(folder: Path, found: list[dict[str, Any]]) -> dict[str, Any]:
    """What was found when the loops of a folder were first run: now, if that is not written there yet."""
    file = folder / "first_sight.json"
    if not file.exists():
        loops = {one["loop"]: {name: one[name] for name in ("found", "reason")} for one in found}
        row = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": commit(), "loops": loops}
        file.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    read: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return read


def main(seed: int, only: list[str], *, fresh: str | None) -> bool:
    """Measure, print and record."""
    dice = random.Random(seed)  # noqa: S311 - moments, not secrets
    folder = PROGRAMS / fresh if fresh else LOOPS
    scripts = [path for path in sorted(folder.glob("*.py")) if path.stem != "tiny"]
    found = [measure(path, dice) for path in scripts if not only or path.stem in only]
    counts = {kind: sum(one["found"] == kind for one in found) for kind in ("exact", "refused", "inexact")}
    if only:
        return not counts["inexact"]
    silent = Bar(str(counts["inexact"]), "none", counts["inexact"] == 0)
    if fresh:
        first = first_sight(folder, found)
        then = sum(one["found"] == "inexact" for one in first["loops"].values())
        what = f"of {len(found)} loops with state in other places: inexact, and not refused by name"
        bars = {f"{what}, at first sight": Bar(str(then), "none", then == 0), f"{what}, since then": silent}
        numbers = {"exact": counts["exact"], "refused": counts["refused"], "seed": seed, "loops": found}
        numbers["first_sight"] = first
        named = "" if fresh == DEFAULT else f" {fresh}"
        by = f"benchmarks/exact_loops.py --fresh{named}"
        return record(f"exact_{fresh}", bars, by=by, **numbers)
    bars = {
        f"loops that are exact to the bit, replaced every {EVERY} steps and killed once": Bar(
            f"{counts['exact']} of {len(found)}", f"{LEAST} of 20", counts["exact"] >= LEAST
        ),
        "loops that are inexact and were not refused by name": silent,
    }
    return record("exact_loops", bars, refused=counts["refused"], seed=seed, loops=found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], help="some loops, which are not recorded")
    parser.add_argument("--fresh", nargs="?", const=DEFAULT, help="a folder of loops with state in other places")
    options = parser.parse_args()
    sys.exit(not main(options.seed, options.only, fresh=options.fresh))
