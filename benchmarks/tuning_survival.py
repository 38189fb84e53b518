"""An 8B LoRA beside a leak of device memory: 1,000 steps of 8,192 tokens under a cap that the leak would break.

A callback keeps 200 MB of device memory a step. With `--reload-interval 40` the process is replaced before that
breaks the cap; the same run without the leak, and without replacements, says what it should end with and how long
it should take. Both run at once where there are two devices, else one after the other: 17 minutes then.

    python benchmarks/tuning_survival.py            on CUDA devices, into results/tuning_survival.json
    python benchmarks/tuning_survival.py --small    a small model and 60 steps, to try the script itself
"""

import argparse
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from recording import Bar, record
from tuning_rebirth import save_model, train
from tuning_speed import write_rows
from tuning_static import DEVICE

LEAK = 200_000_000
"""Bytes a step."""
EVERY = 40
CAP = 75 * 10**9
"""Bytes."""
PAUSE = 2.0
"""Seconds that a replacement may take: the goal of `tuning_rebirth.py`."""
KEPT: list[torch.Tensor] = []


def leak(_guard: object) -> None:
    """Called after each step: keep some memory of the device for ever."""
    KEPT.append(torch.empty(LEAK if DEVICE == "cuda" else LEAK // 1000, dtype=torch.uint8, device=DEVICE))


def flags(small: bool) -> list[str]:
    """What both runs are told."""
    if small:
        return ["--batch-size", "2", *([] if DEVICE == "cuda" else ["--quantize", "8"])]
    return ["--batch-size", "16", "--train-seq-length", "512", "--max-memory", "75GB"]


def main() -> bool:
    """Both runs, and what they left."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    steps = 3 * EVERY // 2 if options.small else options.steps
    leaking = ["--reload-interval", str(EVERY), "--callback", "tuning_survival:leak"]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    devices = torch.cuda.device_count()
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(max(devices, 1)) as pool:
        folder = Path(place)
        write_rows(folder / "rows.jsonl", 4096, 32 if options.small else 512, options.small)
        save_model(folder, options.small)
        common = flags(options.small)
        runs = [
            pool.submit(
                train, folder, out, steps, *common, *more, small=options.small, device=number % max(devices, 1)
            )
            for number, (out, more) in enumerate((("straight", []), ("leaking", leaking)))
        ]
        straight, leaky = (run.result() for run in runs)
    return judge(straight, leaky, steps, small=options.small)


def judge(straight: dict[str, Any], leaky: dict[str, Any], steps: int, *, small: bool) -> bool:
    """Compare them, and write that down."""
    took = [one["seconds"] for one in leaky["verdict"]["actions"] if one["action"] == "recycle"]
    slower = leaky["seconds"] / straight["seconds"] - 1
    allowed = (len(took) * PAUSE) / straight["seconds"] + 0.03
    done, exact = int(leaky["verdict"]["steps"]), bool(straight["tensors"] == leaky["tensors"])
    peaks = [run["verdict"]["peak"]["device_bytes"] or 0 for run in (straight, leaky)]
    would = peaks[0] + steps * LEAK
    bars = {
        "8B LoRA beside a leak of 200 MB a step on the device: steps finished": Bar(
            f"{done}, in {len(took) + 1} processes", f"{steps}", done == steps
        ),
        "its weights as without the leak": Bar(str(exact), "to the bit", exact),
        "its time against that without leak and replacements": Bar(
            f"{slower:+.1%} ({straight['seconds']:.0f} s without, {leaky['seconds']:.0f} s with)",
            f"{allowed:+.1%}: {len(took)} replacements of {PAUSE:g} s and 3 %", slower <= allowed,
        ),
        "the most device memory that it took": Bar(
            f"{peaks[1] / 1e9:.1f} GB; without replacements {would / 1e9:.0f} GB", "under the cap of 75 GB",
            peaks[1] < CAP < would,
        ),
    }  # fmt: skip
    kept = {
        name: {"seconds": run["seconds"], "peak": run["verdict"]["peak"], "verdict": run["verdict"]["verdict"]}
        for name, run in (("straight", straight), ("leaking", leaky))
    }
    print(kept, took, {what: bar.measured for what, bar in bars.items()}, flush=True)
    if small:
        return exact and done == steps
    return record("tuning_survival", bars, device=torch.cuda.get_device_name(), runs=kept, replacements=took)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
