"""Guards inside other people's trainers: Lightning, Accelerate, Ray Train and the trainer of `mlx_lm`.

For each: the same leak found with line and holder, the same healthy run passed, losses and weights bit-identical
with the guard, what it costs, and, where it is promised, a run that is killed and goes on exactly.

What it costs is measured in blocks of steps that take turns: two processes without a guard and one with it, each
stopped while another computes. The first block of each is not counted. The noise floor is the difference of the
two without. `--only NAME` measures a part; results are kept by name.
"""

import argparse
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
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
    "lightning": Framework("lightning_fit.py", 2000, 600, ("--checkpoint-interval", "150", "guard", "kill")),
    "accelerate": Framework("accelerate_loop.py", 2000, 800, ("--checkpoint-interval", "150", "resume", "kill")),
    "ray": Framework("ray_loop.py", 2000, 800),
    "mlx": Framework("mlx_fit.py", 400, 60),
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
        self.first = float(self._done.readline())

    def __enter__(self) -> Self:
        """Begin: the first block is over."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let it end by itself."""
        self._go.close()
        self._process.wait(timeout=300)
        self._done.close()
        self._said.close()

    def block(self) -> float:
        """Let it compute a block; return its seconds."""
        self._go.write("go\n")
        return float(self._done.readline())


def main() -> bool:
    """Measure the frameworks that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=FRAMEWORKS, help="this framework; may be repeated")
    reached = True
    for name in parser.parse_args().only or FRAMEWORKS:
        with tempfile.TemporaryDirectory(prefix=f"frameworks-{name}-") as folder:
            measured = measure(FRAMEWORKS[name], Path(folder))
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


def measure(framework: Framework, folder: Path) -> dict[str, Any]:
    """Run one framework in all the ways."""
    began = {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "commit": commit(), "load": os.getloadavg()[1]}
    bare, healthy, leaking = (found(framework, folder, words) for words in ((), ("guard",), ("guard", "leak")))
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
        **cost(framework, folder),
        "left": left_behind(folder),
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
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    with ExitStack() as closing:
        running = {
            kind: closing.enter_context(InTurns(framework, folder / kind, words)) for kind, words in kinds.items()
        }
        for number in range(BLOCKS):
            order = list(kinds)[number % 3 :] + list(kinds)[: number % 3]
            for kind in order:
                seconds[kind].append(running[kind].block())
    bare, twin, guarded = (np.array(seconds[kind]) for kind in kinds)
    return {
        "seconds": seconds,
        "block": framework.block,
        "ratio": float(np.median(guarded / ((bare + twin) / 2))),
        "total_ratio": float(guarded.sum() / ((bare + twin).sum() / 2)),
        "quartiles": np.quantile(guarded / ((bare + twin) / 2), (0.25, 0.75)).tolist(),
        "noise": float(np.median(twin / bare)),
        "noise_quartiles": np.quantile(twin / bare, (0.25, 0.75)).tolist(),
    }


def left_behind(folder: Path) -> list[str]:
    """Processes that still work in a folder, and channels in shared memory that they have left."""
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


def spread(quartiles: Sequence[float]) -> str:
    """Two ratios as text."""
    low, high = quartiles
    return f"{low - 1:+.2%} to {high - 1:+.2%}"


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
        "time": Bar(
            f"{one['ratio'] - 1:+.2%} in the median of {len(one['seconds']['bare'])} blocks (quartiles"
            f" {spread(one['quartiles'])}); {one['total_ratio'] - 1:+.2%} of their sum; without a guard twice:"
            f" {one['noise'] - 1:+.2%} ({spread(one['noise_quartiles'])})",
            "at most 1 % slower",
            one["ratio"] <= MOST,
        ),
        "left behind": Bar(f"{len(one['left'])} processes", "none", not one["left"]),
    }
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
