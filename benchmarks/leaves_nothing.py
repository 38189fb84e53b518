"""What evaluations and checkpoints leave in memory, and the price of "collect and clear every 10 steps".

`holdwater train` evaluates and writes a checkpoint every 50 steps; resident memory after 5 of them is held against
that after 50 (medians of the run's own history), and so is device memory where there is a CUDA device; beside it
the same run with neither, for what else changes between those steps. The recipe runs bare, beside the same script
under `holdwater run --supervise`, in turns.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from holdwater.store.history import History, read_history
from recording import Bar, record

PROGRAM = str(Path(sys.executable).with_name("holdwater"))
CYCLES = Path(__file__).parent / "programs" / "cycles.py"
NOISE = 1_000_000
"""Bytes."""
EVERY, COUNT, NEVER = 50, 50, 100_000


def train(place: Path, every: int) -> History:
    """Train with an evaluation and a checkpoint every so many steps."""
    out = Path(tempfile.mkdtemp(dir=place)) / "run"
    sizes = ("--preset", "tiny", "--train-seq-length", "32", "--steps", str(EVERY * (COUNT + 5)), "--threads", "1")
    intervals = ("--eval-interval", str(every), "--checkpoint-interval", str(every), "--eval-batches", "4")
    command = [PROGRAM, "train", *sizes, *intervals, "--max-memory", "4GB", "--sample-length", "40"]
    subprocess.run([*command, "--out", str(out)], cwd=place, check=True, capture_output=True)
    return read_history(out)


def held(history: History, name: str, evaluations: int) -> float:
    """What was held just after so many evaluations: the median of the samples up to the next two."""
    samples, begin = history.samples, EVERY * evaluations
    chosen = (samples.last_step > begin) & (samples.last_step <= begin + 2 * EVERY)
    return float(np.median(samples.means(name)[chosen]))


def run(words: list[str], place: Path) -> tuple[float, float]:
    """Seconds a step, and the peak of resident memory in bytes, of the cycles."""
    done = subprocess.run(words, cwd=place, check=True, capture_output=True, text=True)
    seconds, peak = done.stdout.split()[-2:]
    return float(seconds), float(peak)


def main() -> bool:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    left: list[float] = []
    without: list[float] = []
    device: list[float] = []
    ours: list[tuple[float, float]] = []
    recipe: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for number in range(options.repeats):
            history = train(place, EVERY)
            left.append(held(history, "resident", COUNT) - held(history, "resident", 5))
            bare = train(place, NEVER)
            without.append(held(bare, "resident", COUNT) - held(bare, "resident", 5))
            if torch.cuda.is_available():
                device.append(held(history, "device_reserved", COUNT) - held(history, "device_reserved", 5))
            supervised = [PROGRAM, "run", "--supervise", "--quiet", "--out", f"cycles-{number}"]
            ours.append(run([*supervised, str(CYCLES), str(options.steps), "nothing"], place))
            recipe.append(run([sys.executable, str(CYCLES), str(options.steps), "recipe"], place))
    return record(
        "leaves_nothing",
        judge(left, without, device, ours, recipe),
        left=left,
        without=without,
        device=device,
        ours=ours,
        recipe=recipe,
    )


def judge(
    left: list[float],
    without: list[float],
    device: list[float],
    ours: list[tuple[float, float]],
    recipe: list[tuple[float, float]],
) -> dict[str, Bar]:
    """The bars."""
    time_ratio = statistics.median(one[0] / other[0] for one, other in zip(ours, recipe, strict=True))
    memory_ratio = statistics.median(one[1] / other[1] for one, other in zip(ours, recipe, strict=True))
    bars = {
        "resident memory after 50 evaluations and checkpoints, against after 5": Bar(
            f"{statistics.median(left) / 1e6:+.2f} MB; with neither {statistics.median(without) / 1e6:+.2f} MB",
            "equal within 1 MB",
            abs(statistics.median(left) - statistics.median(without)) <= NOISE,
        ),
        "time a step, against collecting and clearing every 10 steps": Bar(
            f"{time_ratio:.2f}", "lower", time_ratio < 1
        ),
        "peak of resident memory, against the same": Bar(
            f"{memory_ratio:.3f}", "no higher (1.02 at most)", memory_ratio <= 1.02
        ),
    }
    if device:
        bars["device memory after 50 evaluations and checkpoints, against after 5"] = Bar(
            f"{max(device):+.0f} B", "equal", max(device) == 0
        )
    return bars


if __name__ == "__main__":
    sys.exit(not main())
