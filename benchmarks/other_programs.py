"""Other people's programs, unchanged, under `holdwater run` and bare: what they come to, and what is left behind.

For each: the same output, the right clock (which optimizer steps, and how many), a healthy verdict, at most 2 % or
3 s longer (by the seconds of the processor, where other programs fill the machine), and no process, no file in the
temporary folder and none in shared memory left behind that a bare run does not leave. Programs and measurement are
those of `real_cost.py`, and a few more. A run that is thrown away comes first: it fills the machine's caches.
`--only NAME` measures a part; results are kept by program. On a quiet machine `--pairs 8` measures the time again,
with quartiles over pairs of a bare and an observed run that take turns.
"""

import argparse
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import real_cost
from real_cost import PROGRAMS_FOLDER, RIGHT, SMALL_MODEL, Program
from real_programs import HERE, MLX, freeze, make_environment
from recording import RESULTS, Bar, commit, record

LAUNCH = (
    "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no",
)  # fmt: skip
"""As `accelerate launch`; a script follows, or a module."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - it is what is looked into
LONGER, SHARE = 3.0, 0.02
QUARTILES_FROM = 3
"""Pairs from which quartiles say something."""
OWN_PACKAGES = {
    "timm": ("torch==2.14.1", "torchvision==0.29.1", "timm==1.0.31", "memray", "--editable", str(HERE.parent))
}
"""Of programs that need an environment of their own: torchvision of the registry is built for CUDA, as is PyTorch
there, and fails beside a PyTorch that is not, in every program that finds it."""

PROGRAMS = {
    "transformers-clm": Program(("{programs}/clm.py", "{data}"), prepare=SMALL_MODEL),
    "trl-sft": Program(("{programs}/sft.py", "{data}"), prepare=SMALL_MODEL),
    "lightning-logged": Program(("{programs}/lightning_logged.py",)),
    "sb3-ppo": real_cost.PROGRAMS["sb3-ppo"],
    "sentence-transformers": real_cost.PROGRAMS["sentence-transformers"],
    "spacy": Program(real_cost.SPACY, prepare=("spacy_code.py", "{data}", "300")),
    "torch-geometric": Program(("{programs}/graph_network.py",)),
    "timm": Program(("{programs}/timm_pictures.py",)),
    "mlx-lora": Program(tuple(word.replace("{folder}", "{data}") for word in MLX), prepare=SMALL_MODEL),
    "torchrun-ddp": real_cost.PROGRAMS["ddp"],
    "accelerate-launch": Program(("{programs}/accelerate_script.py",), launcher=LAUNCH),
    "ray-train": Program(("{programs}/ray_script.py",)),
    "skorch": real_cost.PROGRAMS["skorch"],
    "loader-workers": real_cost.PROGRAMS["loader-workers"],
}
CLOCKS: dict[str, tuple[str, int | None]] = {
    "transformers-clm": ("torch", 600),
    "trl-sft": ("torch", 300),
    "lightning-logged": ("torch", 1200),
    "sb3-ppo": ("torch", 9600),
    "sentence-transformers": ("torch", 1000),
    "spacy": ("time", None),
    "torch-geometric": ("torch", 1200),
    "timm": ("torch", 120),
    "mlx-lora": ("mlx", 300),
    "torchrun-ddp": ("torch", 7500),
    "accelerate-launch": ("torch", 1800),
    "ray-train": ("time", None),
    "skorch": ("torch", 6360),
    "loader-workers": ("torch", 1050),
}
"""What counts the steps, and how many there are. spaCy has optimizers of its own, and Ray trains in processes that
its daemon starts: both are judged by time. `None`: not known beforehand."""


def main() -> bool:
    """Measure the programs that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, help="a Python that has the packages, but for timm's")
    parser.add_argument(
        "--pairs", type=int, default=2, metavar="N", help="pairs of bare and observed (default: 2)"
    )
    parser.add_argument("--cold", action="store_true", help="without the run that is thrown away")
    parser.add_argument("--only", action="append", choices=PROGRAMS, help="this program; may be repeated")
    options = parser.parse_args()
    reached = True
    for name in options.only or PROGRAMS:
        python = python_of(name, options.python)
        with tempfile.TemporaryDirectory(prefix="op-", ignore_cleanup_errors=True) as folder:
            try:
                measured = measure(name, python, Path(folder), options.pairs, cold=options.cold)
            except (RuntimeError, OSError) as error:  # the others are measured all the same
                print(f"{name} failed: {error}")
                reached = False
                continue
        reached = keep(name, measured, freeze(python)) and reached
    return reached


def python_of(name: str, given: Path | None) -> Path:
    """The Python that has a program's packages; its environment is made where it is not there yet."""
    folder = HERE.parent / ".venv-programs"
    if name in OWN_PACKAGES:
        return make_environment(folder.with_name(f"{folder.name}-{name}"), OWN_PACKAGES[name])
    return given or make_environment(folder)


def keep(name: str, measured: dict[str, Any], packages: Sequence[str]) -> bool:
    """Add one program to those that were measured before, and hold all of them against the bar."""
    file = RESULTS / "other_programs.json"
    with Path(__file__).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        stored, shared = before.get("programs", {}), before.get("packages", [])
        if name in OWN_PACKAGES:
            measured["packages"] = list(packages)
        else:
            shared = list(packages)
        stored[name] = measured
        bars = {key: judge(key, stored[key]) for key in sorted(stored)}
        return record("other_programs", bars, programs=stored, packages=shared)


def measure(name: str, python: Path, folder: Path, pairs: int, *, cold: bool) -> dict[str, Any]:
    """Run a program in pairs that begin with one and the other in turn."""
    program, data = PROGRAMS[name], folder / "data"
    data.mkdir()
    if program.prepare:
        words = [word.format(data=data) for word in program.prepare]
        subprocess.run([str(python), str(PROGRAMS_FOLDER / words[0]), *words[1:]], check=True, cwd=folder)
    order = [
        *([] if cold else [False]),
        *(observed for pair in range(pairs) for observed in ((True, False), (False, True))[pair % 2]),
    ]
    rows = []
    for number, observed in enumerate(order):
        place = folder / f"r{number}"
        place.mkdir()
        before = set(os.listdir(SHARED_MEMORY))  # noqa: PTH208 - names
        row = real_cost.run(program, python, place, observed=observed)
        rows.append(row | {"left": left_behind(place, before)})
        print(name, json.dumps({key: row[key] for key in ("observed", "seconds")}), flush=True)
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "commit": commit(), "load": os.getloadavg()[1],
        "threads": os.environ.get("OMP_NUM_THREADS", "not set"),
    } | summarize(rows if cold else rows[1:])  # fmt: skip


def left_behind(place: Path, before: set[str]) -> dict[str, list[str]]:
    """What is left of a run: its processes, holdwater's own folders, names in shared memory.

    Args:
        place: The folder of the run, also for temporary files.
        before: Names in shared memory before it.
    """
    time.sleep(1.0)  # what ends with the program may take a moment
    mark, processes = f"TMPDIR={place}\0".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes() + b"\0":
                processes.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return {
        "processes": processes,
        "folders": sorted(path.name for path in place.glob("holdwater-*")),
        "shared_memory": sorted(name for name in set(os.listdir(SHARED_MEMORY)) - before if not in_use(name)),  # noqa: PTH208
    }


def in_use(name: str) -> bool:
    """Whether a live process has something of a name in shared memory open: another program's."""
    place = str(SHARED_MEMORY / name)
    for number in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(number).startswith(place):  # noqa: PTH115 - a link of the kernel's
                return True
        except OSError:
            continue
    return False


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the runs come to."""
    bare = [row for row in rows if not row["observed"]]
    seen = [row for row in rows if row["observed"]]
    first = [rank for row in seen for rank in row["verdicts"]]
    names = ("processes", "folders", "shared_memory")
    usual = {name: max(len(row["left"][name]) for row in bare) for name in names}
    return {
        "bare_seconds": [row["seconds"] for row in bare],
        "observed_seconds": [row["seconds"] for row in seen],
        "bare_processor_seconds": [row["processor_seconds"] for row in bare],
        "observed_processor_seconds": [row["processor_seconds"] for row in seen],
        "deterministic": all(row["said"] == bare[0]["said"] for row in bare),
        "same": all(row["said"] == bare[0]["said"] for row in seen),
        "said": len(bare[0]["said"]),
        "verdicts": sorted({rank["verdict"] for rank in first}),
        "findings": [finding for rank in first for finding in rank["findings"]],
        "clocks": sorted({rank["step_source"] for rank in first}),
        "steps": sorted({rank["steps"] for rank in first}),
        "peak_mb": float(
            np.median([row["peak_mb"] for row in seen]) - np.median([row["peak_mb"] for row in bare])
        ),
        "left": [
            text
            for row in seen
            for name in names
            if len(row["left"][name]) > usual[name]
            for text in row["left"][name]
        ],
        "left_bare": usual,
    }


def judge(name: str, measured: dict[str, Any]) -> Bar:
    """Hold the numbers of one program against the bar."""
    clock, steps = CLOCKS[name]
    busy = measured["load"] > (os.cpu_count() or 1) and "bare_processor_seconds" in measured
    clocked = "processor_seconds" if busy else "seconds"
    times = {kind: np.asarray(measured[f"{kind}_{clocked}"]) for kind in ("bare", "observed")}
    differences, bare = times["observed"] - times["bare"], float(np.median(times["bare"]))
    longer = float(np.median(differences))
    spread = ""
    if len(differences) >= QUARTILES_FROM:
        low, high = np.quantile(differences, (0.25, 0.75))
        spread = f" (quartiles {low:+.1f} to {high:+.1f} of {len(differences)} pairs)"
    right_clock = measured["clocks"] == [clock] and (steps is None or measured["steps"] == [steps])
    outputs = "same output" if measured["same"] else "output DIFFERS"
    if not measured["deterministic"]:
        outputs = "output differs between bare runs too"
    counted = " and ".join(map(str, measured["steps"]))
    said = (
        f"{bare:.1f} {'processor ' if busy else ''}s bare, {longer:+.1f} s{spread}, {outputs}, {counted} steps by"
        f" {' and '.join(measured['clocks'])}, {' and '.join(measured['verdicts'])}, {len(measured['left'])} left"
    )
    wanted = (
        f"{'' if steps is None else f'{steps} steps '}by {clock}, same output, healthy, +2 % or 3 s, nothing left"
    )
    reached = (
        right_clock
        and (measured["same"] or not measured["deterministic"])
        and set(measured["verdicts"]) <= RIGHT
        and longer <= max(LONGER, SHARE * bare)
        and not measured["left"]
    )
    return Bar(said, wanted, reached)


if __name__ == "__main__":
    sys.exit(not main())
