"""Guards inside other people's trainers: Lightning, Accelerate, Ray Train and the trainer of `mlx_lm`.

For each: the same leak found with line and holder, the same healthy run passed, losses and weights bit-identical
with the guard, what it costs, and, where it is promised, a run that is killed and goes on exactly.

What it costs is measured in blocks of steps that take turns, of about a second: two processes without a guard and
one with it, each stopped while another computes. A step takes a few milliseconds, as in the guard's own benchmark;
of steps of 1 ms, an empty callback of Lightning takes 3 % already. The first block of each is not counted. The
noise floor is the difference of the two without. Where that is above 1 %, since other programs use the machine,
the training process's own seconds of the processor decide; both are stated. A guard's readings are paced by
elapsed time, of which each process here works a third at most, so a run of its own costs less than is measured
here. `--only NAME` measures a part; results are kept by name.
"""

import argparse
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np

from recording import RESULTS, Bar, commit, record

PROGRAMS = Path(__file__).resolve().parent / "programs" / "frameworks"
RIGHT = {"flat", "bounded", "cyclic", "warming"}
BLOCKS = 20
MOST = 1.01


@dataclass(frozen=True, slots=True)
class Framework:
    """A framework, and the program that trains with it."""

    program: str
    steps: int
    """Of the runs that are judged."""
    block: int
    """Steps of a block."""
    supervised: tuple[str, ...] | None = None
    """Flags of `holdwater run` and words of the program for the run that is killed; None if none is promised."""


FRAMEWORKS = {
    "lightning": Framework("lightning_fit.py", 1200, 250, ("--checkpoint-interval", "150", "guard", "kill")),
    "accelerate": Framework("accelerate_loop.py", 1200, 250, ("--checkpoint-interval", "150", "resume", "kill")),
    "ray": Framework("ray_loop.py", 1200, 250),
    "mlx": Framework("mlx_fit.py", 400, 40),
}


class InTurns:
    """A process that waits for its turn before each block."""

    def __init__(self, framework: Framework, folder: Path, words: Sequence[str]) -> None:
        folder.mkdir()
        for name in ("go", "done"):
            os.mkfifo(folder / name)
        environment = os.environ | {"TURNS": str(folder), "BLOCK": str(framework.block)}
        command = [sys.executable, str(PROGRAMS / framework.program), "100000000", *words]
        self._said = (folder / "said").open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=self._said, stderr=subprocess.STDOUT
        )
        self._go = (folder / "go").open("w", encoding="utf-8", buffering=1)
        self._done = (folder / "done").open(encoding="utf-8")
        self.first = self._done.readline()

    def __enter__(self) -> Self:
        """Begin: the first block is over."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let it end by itself."""
        self._go.close()
        self._process.wait(timeout=300)
        self._done.close()
        self._said.close()

    def block(self) -> list[float]:
        """Let it compute a block; return its seconds, and those of the processor."""
        self._go.write("go\n")
        return [float(word) for word in self._done.readline().split()]


def main() -> bool:
    """Measure the frameworks that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=FRAMEWORKS, help="this framework; may be repeated")
    parser.add_argument("--without-time", action="store_true", help="leave out the blocks that take turns")
    options, reached = parser.parse_args(), True
    for name in options.only or FRAMEWORKS:
        with tempfile.TemporaryDirectory(prefix=f"frameworks-{name}-") as folder:
            measured = measure(FRAMEWORKS[name], Path(folder), timed=not options.without_time)
        reached = keep(name, measured)
    return reached


def keep(name: str, measured: dict[str, Any]) -> bool:
    """Add one framework to those that were measured before, and hold all against the bars."""
    file = RESULTS / "frameworks_other.json"
    with Path(__file__).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stored = json.loads(file.read_text(encoding="utf-8"))["frameworks"] if file.exists() else {}
        stored[name] = measured
        bars = {f"{key}: {what}": bar for key in sorted(stored) for what, bar in judge(stored[key]).items()}
        return record("frameworks_other", bars, frameworks=stored)


def measure(framework: Framework, folder: Path, *, timed: bool) -> dict[str, Any]:
    """Run one framework in all the ways."""
    began = {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "commit": commit(), "load": os.getloadavg()[1]}
    bare = found(framework, folder, ())
    usual = left_behind(folder)  # Ray's own cleaner outlives a program
    healthy, leaking = (found(framework, folder, words) for words in (("guard",), ("guard", "leak")))
    lines = (PROGRAMS / framework.program).read_text(encoding="utf-8").splitlines()
    leak = leaking["summary"]["findings"][0]
    return began | {
        "steps": framework.steps,
        "counted": healthy["summary"]["steps"],
        "same": all(bare[key] == healthy[key] for key in ("losses", "weights")),
        "losses": len(bare["losses"]),
        "healthy": healthy["summary"]["verdict"],
        "leak": {key: leak[key] for key in ("verdict", "component", "explained")},
        "sites": [[site["role"], site["line"], site["name"]] for site in leak["sites"]],
        "line": 1 + next(at for at, line in enumerate(lines) if "# HERE" in line),
        "resumed": resumed(framework, folder, bare),
        **(cost(framework, folder) if timed else {}),
        "left": sorted(set(left_behind(folder)) - set(usual)),
        "left_without": usual,
    }


def found(framework: Framework, folder: Path, words: Sequence[str], *, run: Sequence[str] = ()) -> dict[str, Any]:
    """Run a program to its end; return what it prints."""
    command = [sys.executable, *run, str(PROGRAMS / framework.program), str(framework.steps), *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    line = next((one for one in done.stdout.splitlines() if one.startswith("FOUND")), None)
    if done.returncode or line is None:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr[-3000:]}")
    told: dict[str, Any] = json.loads(line.removeprefix("FOUND"))
    return told


def resumed(framework: Framework, folder: Path, bare: dict[str, Any]) -> dict[str, Any] | None:
    """Kill a supervised run, and compare what it comes to; None where nothing is promised."""
    if framework.supervised is None:
        return None
    *flags, way, kill = framework.supervised
    observe = ("-m", "holdwater", "run", "--quiet", "--supervise", "--json", "v.json", "--out", "run", *flags)
    told = found(framework, folder, (way, kill), run=observe)
    verdict = json.loads((folder / "v.json").read_text(encoding="utf-8"))
    same = {key: told[key] == bare[key] for key in ("losses", "weights")}
    return same | {"processes": verdict["processes"], "killed": (folder / "killed").exists()}


def cost(framework: Framework, folder: Path) -> dict[str, Any]:
    """Let three processes take turns; return the seconds of each block."""
    kinds = {"bare": (), "twin": (), "guarded": ("guard",)}
    seconds: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    with ExitStack() as closing:
        running = {
            kind: closing.enter_context(InTurns(framework, folder / kind, words)) for kind, words in kinds.items()
        }
        for number in range(BLOCKS):
            order = list(kinds)[number % 3 :] + list(kinds)[: number % 3]
            for kind in order:
                seconds[kind].append(running[kind].block())
    table = {kind: np.array(rows) for kind, rows in seconds.items()}
    found = {"seconds": seconds, "block": framework.block}
    for column, clock in enumerate(("elapsed", "processor")):
        bare, twin, guarded = (table[kind][:, column] for kind in kinds)
        usual = (bare + twin) / 2
        found[clock] = {
            "ratio": float(np.median(guarded / usual)),
            "quartiles": np.quantile(guarded / usual, (0.25, 0.75)).tolist(),
            "total": float(guarded.sum() / usual.sum()),
            "noise": float(np.median(twin / bare)),
            "noise_quartiles": np.quantile(twin / bare, (0.25, 0.75)).tolist(),
            "noise_total": float(twin.sum() / bare.sum()),
        }
    return found


def left_behind(folder: Path) -> list[str]:
    """Processes that still work in a folder, and channels in shared memory that they have left."""
    time.sleep(5.0)  # what ends with a program, such as Ray's cleaners, takes a moment
    here, left = str(folder), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if os.readlink(process / "cwd").startswith(here):  # noqa: PTH115 - a link of the kernel's
                left.append(words.strip())
        except OSError:
            continue
    shutil.rmtree(folder / "run", ignore_errors=True)
    return left


def in_words(cost: dict[str, Any]) -> str:
    """What a guard costs by one clock, and the noise floor."""

    def spread(name: str) -> str:
        """A median with its quartiles, and the ratio of the sums."""
        low, high = cost["quartiles" if name == "ratio" else "noise_quartiles"]
        total = cost["total" if name == "ratio" else "noise_total"]
        return f"{cost[name] - 1:+.2%} ({low - 1:+.2%} to {high - 1:+.2%}, in sum {total - 1:+.2%})"

    return f"{spread('ratio')}, without a guard twice {spread('noise')}"


def decisive(one: dict[str, Any]) -> dict[str, Any]:
    """The clock that decides: elapsed time, unless two runs without a guard lie further apart than the bar."""
    elapsed: dict[str, Any] = one["elapsed"]
    low, high = elapsed["noise_quartiles"]
    quiet = high - low <= 2 * (MOST - 1)
    processor: dict[str, Any] = one["processor"]
    return elapsed if quiet else processor


def judge(one: dict[str, Any]) -> dict[str, Bar]:
    """Hold the numbers of a framework against the bars."""
    sites = {(role, line) for role, line, _ in one["sites"]}
    says = f"{one['leak']['verdict']} of {one['leak']['component']}, " + ", ".join(
        f"{role} by {name} at line {line}" for role, line, name in one["sites"]
    )
    bars = {
        "the leak": Bar(
            says,
            f"a leak, held at line {one['line']}",
            one["leak"]["verdict"] == "leak" and ("held", one["line"]) in sites,
        ),
        "the healthy run": Bar(
            f"{one['healthy']}, {one['counted']} of {one['steps']} steps",
            "healthy, each step counted",
            one["healthy"] in RIGHT and one["counted"] == one["steps"],
        ),
        "losses and weights": Bar(
            f"{one['losses']} losses {'the same' if one['same'] else 'DIFFER'}", "bit-identical", one["same"]
        ),
        "left behind": Bar(
            f"{len(one['left'])} processes; without a guard {len(one.get('left_without', ()))}",
            "none more",
            not one["left"],
        ),
    }
    if "elapsed" in one:
        said = "; ".join(f"{clock}: {in_words(one[clock])}" for clock in ("elapsed", "processor"))
        bars["time"] = Bar(said, "at most 1 % slower", decisive(one)["ratio"] <= MOST)
    again = one["resumed"]
    if again is not None:
        same = again["losses"] and again["weights"]
        bars["killed and resumed"] = Bar(
            f"{again['processes']} processes, losses and weights {'the same' if same else 'DIFFER'}",
            "bit-identical after kill -9",
            same and again["killed"] and again["processes"] > 1,
        )
    return bars


if __name__ == "__main__":
    sys.exit(not main())
