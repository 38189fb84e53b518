"""Processes of an 8B LoRA that are replaced 50 times beside kept weights, and the same run straight.

`holdwater train` with `--reload-interval`, as users call it, on a model folder of the Llama-3.1-8B shape. The time
of a replacement is that between the last step of one process and the first of the next. Memory of the device and
of the host is looked at from outside all the while: none may be left behind.

    python benchmarks/tuning_rebirth.py            on a CUDA device, into results/tuning_rebirth.json
    python benchmarks/tuning_rebirth.py --small    a small model, to try the script itself
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.numpy import load_file

from recording import Bar, record
from tuning_speed import build, tokenizer, write_rows
from tuning_static import DEVICE

LEFT = 64 << 20
"""Bytes more in the last replacements than in the first that are no more than what readings differ by."""


def save_model(folder: Path, small: bool) -> None:
    """A model folder as the hub has them."""
    model = build(small, DEVICE)
    model.save_pretrained(folder / "model", max_shard_size="5GB")
    tokenizer(small).save_pretrained(folder / "model")
    del model
    if DEVICE == "cuda":
        torch.cuda.empty_cache()


def visible(device: int) -> str:
    """What CUDA_VISIBLE_DEVICES says for one of the devices that are visible here."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return seen[device] if seen != [""] else str(device)


def train(folder: Path, out: str, steps: int, *flags: str, small: bool, device: int = 0) -> dict[str, Any]:
    """Run `holdwater train`; return its verdict, its wall time, and the tensors it left."""
    length = "32" if small else "512"
    command = [
        sys.executable, "-m", "holdwater", "train", "--model", str(folder / "model"), "--device", DEVICE,
        "--data", str(folder / "rows.jsonl"), "--learn", "everything", "--steps", str(steps), "--lora-rank", "64",
        "--train-seq-length", length, "--eval-interval", "1000000", "--eval-batches", "1", "--sample-length", "0",
        "--checkpoint-interval", "1000000", "--out", str(folder / out), "--json", str(folder / f"{out}.json"),
        "--warmup-steps", "0", "--batch-size", "1", *flags,
    ]  # fmt: skip
    began = time.perf_counter()
    known = os.environ | {"CUDA_VISIBLE_DEVICES": visible(device)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=known)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    newest = max((folder / out / "checkpoints").glob("step-*"))
    tensors = {
        f"{file.name}/{name}": array.tobytes()
        for file in sorted(newest.glob("*.safetensors"))
        for name, array in load_file(file).items()
    }
    verdict = json.loads((folder / f"{out}.json").read_text())
    return {"seconds": seconds, "tensors": tensors, "verdict": verdict, "said": done.stderr[-1500:]}


class Gauge:
    """Reads the memory of the machine from outside, four times a second."""

    def __init__(self) -> None:
        """Begin."""
        self.readings: list[tuple[int, int]] = []
        """What is in use on the device and in the host, in bytes."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._ended.wait(0.25):
            free, whole = torch.cuda.mem_get_info() if DEVICE == "cuda" else (0, 0)
            host = psutil.virtual_memory()
            self.readings.append((whole - free, host.total - host.available))

    def left(self) -> dict[str, int]:
        """How much more is in use, at the most, in the fourth fifth of the time than in the second, in bytes."""
        self._ended.set()
        self._thread.join()
        part = len(self.readings) // 5
        early, late = self.readings[part : 2 * part], self.readings[3 * part : 4 * part]
        peaks = [[max(column) for column in zip(*some, strict=True)] for some in (early, late)]
        return {name: peaks[1][at] - peaks[0][at] for at, name in enumerate(("device", "host"))}


def replaced(folder: Path, small: bool, times: int) -> dict[str, Any]:
    """A run whose process is replaced again and again, and the same straight."""
    every, lasting = 4, 4 * (times + 1) - 1
    few = ("--quantize", "8") if DEVICE == "cpu" else ()  # on a CPU only these steps are fused
    straight = train(folder, "straight", lasting, *few, small=small)
    gauge = Gauge()
    again = train(folder, "replaced", lasting, "--reload-interval", str(every), *few, small=small)
    took = [one["seconds"] for one in again["verdict"]["actions"] if one["action"] == "recycle"]
    return {
        "times": len(took),
        "seconds": took,
        "exact": straight["tensors"] == again["tensors"],
        "left_bytes": gauge.left(),
        "straight_seconds": straight["seconds"],
        "replaced_seconds": again["seconds"],
        "said": again["said"],
        "peaks": [one["verdict"]["peak"] for one in (straight, again)],
    }


def main() -> bool:
    """Replace it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--times", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_rows(folder / "rows.jsonl", 256, 32 if options.small else 512, options.small)
        save_model(folder, options.small)
        reborn = replaced(folder, options.small, options.times)
    median, left = statistics.median(reborn["seconds"]), reborn["left_bytes"]
    bars = {
        "replacing the process of an 8B LoRA, from the last step to the next, median": Bar(
            f"{median:.2f} s over {reborn['times']}, slowest {max(reborn['seconds']):.2f} s",
            "2.0 s eager, 8 s captured (the first step of a process runs eagerly, the second is captured)",
            median <= 2,
        ),
        "exact after these": Bar(str(reborn["exact"]), "to the bit", reborn["exact"]),
        "most in use late in these against early: memory left behind, device and host": Bar(
            f"{left['device'] / 1e6:+.0f} MB and {left['host'] / 1e6:+.0f} MB", "none", max(left.values()) <= LEFT
        ),
    }
    print({what: bar.measured for what, bar in bars.items()}, flush=True)
    if options.small:
        return bool(reborn["exact"])
    return record("tuning_rebirth", bars, device=torch.cuda.get_device_name(), replaced=reborn)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
