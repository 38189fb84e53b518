"""Bar B2, memory: 10,000 steps of `small`, watched by another process that reads /proc.

The sampler knows nothing of the guard: it reads the resident memory of the process ten times a second.
Its readings are put on the run's steps by the wall clock.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.stats import theilslopes

from holdwater.detectors.slope import block_floors, fit_slope
from holdwater.store.history import read_history
from holdwater.timeline.buckets import Floats
from recording import Bar, record

STEPS = 10_000
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


def main() -> bool:
    """Run, watch, judge."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [str(Path(sys.executable).with_name("holdwater")), "train", "--preset", "small"]
        flags = ["--steps", str(STEPS), "--out", str(out), "--json", f"{folder}/out.json"]
        times, sizes = watch(subprocess.Popen([*command, *flags], stdout=subprocess.DEVNULL))
        verdict = json.loads(Path(f"{folder}/out.json").read_text())
        history = read_history(out)
    samples = history.samples
    steps = np.interp(times, history.sessions[0].began + samples.seconds, samples.last_step, left=-1, right=-1)
    settled = steps > WARMUP * STEPS
    blocked = fit_slope(*block_floors(steps[settled], sizes[settled], 60))
    every = theilslopes(sizes[settled], steps[settled], 0.95)
    upper = max(blocked.interval(0.95)[1], float(every[3]))
    seconds, last = samples.seconds, samples.last_step
    first_rate = 1000 / (np.interp(1000, last, seconds) - np.interp(0, last, seconds))
    last_rate = 1000 / (np.interp(STEPS, last, seconds) - np.interp(STEPS - 1000, last, seconds))
    rate = STEPS / verdict["overhead"]["run_seconds"]
    rates = last_rate / first_rate
    bars = {
        "verdict over 10,000 steps of `small`": Bar(
            verdict["verdict"], "flat or bounded", verdict["verdict"] in {"flat", "bounded"}
        ),
        "growth after warm-up seen by another process, upper end of the 95 % interval": Bar(
            f"{upper:.0f} B/step", "under 256 B/step", upper < 256
        ),
        "peak resident memory, PyTorch included": Bar(
            f"{sizes.max() / 1e6:.0f} MB", "under 700 MB", sizes.max() < 700e6
        ),
        "speed, batch 1 × 64, evaluations and checkpoints included": Bar(
            f"{rate:.0f} steps/s", "at least 100 steps/s", rate >= 100
        ),
        "speed of the last 1,000 steps against the first 1,000": Bar(
            f"{rates:.2f} times", "at least 0.95", rates >= 0.95
        ),
    }
    return record(
        "flat_run",
        bars,
        samples=len(sizes),
        slope_bytes_per_step=blocked.value,
        rate_of_the_first_1000=first_rate,
        rate_of_the_last_1000=last_rate,
        guard=verdict["overhead"],
    )


if __name__ == "__main__":
    sys.exit(not main())
