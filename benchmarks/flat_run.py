"""Flat memory and steady speed over 10,000 steps of `small`, watched by another process that reads /proc.

The sampler knows nothing of the guard: it reads the resident memory of the process ten times a second.
Its readings are put on the run's steps by the wall clock.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import theilslopes

from holdwater.detectors.slope import blocks, fit_slope
from holdwater.store.history import read_history
from holdwater.timeline.buckets import Floats
from recording import Bar, record

STEPS = 10_000
REPEATS = 7
WARMUP = 0.2
"""The part of the run that is left out of the slope."""


def watch(process: "subprocess.Popen[bytes]") -> tuple[Floats, Floats]:
    """Read resident memory until the process ends; return wall times and bytes."""
    times, sizes = [], []
    statm = Path(f"/proc/{process.pid}/statm")
    while process.poll() is None:
        try:
            sizes.append(int(statm.read_text().split()[1]) * 4096)
        except (OSError, IndexError):
            break
        times.append(time.time())
        time.sleep(0.1)
    process.wait()
    return np.array(times), np.array(sizes, np.float64)


@dataclass(frozen=True, slots=True)
class Watched:
    """What one run showed."""

    verdict: str
    upper: float
    """Upper end of the slope's 95 % interval, bytes per step: the larger of two estimates."""
    peak: float
    rate: float
    """Steps per second."""
    first_rate: float
    last_rate: float
    samples: int
    guard: dict[str, float]


def watch_one_run() -> Watched:
    """Run, watch, judge."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [str(Path(sys.executable).with_name("holdwater")), "train", "--preset", "small"]
        flags = ["--steps", str(STEPS), "--out", str(out), "--json", f"{folder}/out.json"]
        quiet = subprocess.DEVNULL
        times, sizes = watch(subprocess.Popen([*command, *flags], stdout=quiet, stderr=quiet))
        verdict = json.loads(Path(f"{folder}/out.json").read_text(encoding="utf-8"))
        history = read_history(out)
    samples = history.samples
    steps = np.interp(times, history.sessions[0].began + samples.seconds, samples.last_step, left=-1, right=-1)
    settled = steps > WARMUP * STEPS
    blocked = fit_slope(*blocks(steps[settled], sizes[settled], 60, floor=True)).interval(0.95)[1]
    every = float(theilslopes(sizes[settled], steps[settled], 0.95)[3])

    def rate(first: int, last: int) -> float:
        began, ended = np.interp([first, last], samples.last_step, samples.seconds)
        return float((last - first) / (ended - began))

    return Watched(
        verdict=verdict["verdict"],
        upper=max(blocked, every),
        peak=float(sizes.max()),
        rate=STEPS / verdict["overhead"]["run_seconds"],
        first_rate=rate(0, 1000),
        last_rate=rate(STEPS - 1000, STEPS),
        samples=len(sizes),
        guard=verdict["overhead"],
    )


def main() -> bool:
    """Watch several runs: of memory the worst counts, of the speed's ratio (the machine is shared) the median."""
    runs = [watch_one_run() for _ in range(REPEATS)]
    healthy = [run.verdict in {"flat", "bounded"} for run in runs]
    upper = max(run.upper for run in runs)
    peak = max(run.peak for run in runs)
    rate = min(run.rate for run in runs)
    ratio = statistics.median(run.last_rate / run.first_rate for run in runs)
    bars = {
        f"verdict over 10,000 steps of `small`, {REPEATS} runs": Bar(
            " ".join(sorted({run.verdict for run in runs})), "flat or bounded", all(healthy)
        ),
        "growth after warm-up seen by another process, upper end of the 95 % interval, worst run": Bar(
            f"{upper:.0f} B/step", "under 256 B/step", upper < 256
        ),
        "peak resident memory, PyTorch included": Bar(f"{peak / 1e6:.0f} MB", "under 700 MB", peak < 700e6),
        "speed, batch 1 × 64, evaluations and checkpoints included, slowest run": Bar(
            f"{rate:.0f} steps/s", "at least 100 steps/s", rate >= 100
        ),
        "speed of the last 1,000 steps against the first 1,000, median run": Bar(
            f"{ratio:.2f} times", "at least 0.95", ratio >= 0.95
        ),
    }
    return record("flat_run", bars, runs=[asdict(run) for run in runs])


if __name__ == "__main__":
    sys.exit(not main())
