"""Steps of an 8B LoRA that make no call to the allocator, and processes that are replaced beside kept weights.

The steps: 1,000 in a row with two sizes of micro-batches, clipping and dropout, counted by PyTorch's allocator
from fetching the batch to the loss that is logged. The replacements: `holdwater train` with `--reload-interval`,
as users call it, on a model folder of the same shape.

    python benchmarks/tuning_static.py            on a CUDA device, into results/tuning_static.json
    python benchmarks/tuning_static.py --small    a small model, to try the script itself
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.numpy import load_file

from holdwater.train.tuning.decoder.decoder import StepPlan
from holdwater.train.tuning.decoder.frozen import Place
from holdwater.train.tuning.examples import Example
from holdwater.train.tuning.lora import LoraConfig, add_adapters
from holdwater.train.tuning.packing import Packed, pack
from holdwater.train.tuning.ways import written_out
from recording import Bar, record
from tuning_speed import build, tokenizer, write_rows

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def rows_of(rows: int, length: int, vocabulary: int) -> Packed:
    """Rows of random tokens, two examples each."""
    half = [torch.randint(4, vocabulary, (length // 2,)).tolist() for _ in range(2 * rows)]
    examples = [Example(tokens, [True] * len(tokens)) for tokens in half]
    return pack([examples[2 * row : 2 * row + 2] for row in range(rows)], length)


def counted(small: bool) -> dict[str, Any]:
    """Take 1,000 steps, and count what the allocator was asked for."""
    model, length = build(small, DEVICE), 32 if small else 512
    add_adapters(model, LoraConfig(rank=64, dropout=0.05))
    settings: Any = SimpleNamespace(
        train_seq_length=length, device=DEVICE, weight_decay=0.0, gradient_clip=0.5, batch_size=2
    )
    way = written_out(model, settings, Place(DEVICE), StepPlan(rows=2))
    static = way.static
    if static is None:
        raise SystemExit("these steps are written out")
    vocabulary = model.config.vocab_size
    kinds = [[rows_of(1, length, vocabulary)], [rows_of(2, length, vocabulary)]]
    kinds.append([rows_of(2, length, vocabulary), rows_of(1, length, vocabulary)])

    def take(number: int) -> float:
        """One step, of one or two micro-batches."""
        static.clear()
        window = kinds[number % 3]
        for part, batch in enumerate(window):
            static.propagate(batch, 1 / len(window), seed=8 * number + part)
        static.update(1e-5)
        return static.loss()

    for number in range(9):
        take(number)
    asked, reserved, losses = [], [], []
    for number in range(50 if small else 1000):
        losses.append(take(number))
        if DEVICE == "cuda":
            known = torch.cuda.memory_stats()
            asked.append(known["allocation.all.allocated"])
            reserved.append(known["reserved_bytes.all.current"])
    calls = asked[-1] - asked[0] if asked else 0
    return {"steps": len(losses), "calls": calls, "reserved": sorted(set(reserved)), "last_loss": losses[-1]}


def save_model(folder: Path, small: bool) -> None:
    """A model folder as the hub has them."""
    model = build(small, DEVICE)
    model.save_pretrained(folder / "model", max_shard_size="5GB")
    tokenizer(small).save_pretrained(folder / "model")


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


def replaced(folder: Path, small: bool, times: int) -> dict[str, Any]:
    """A run whose process is replaced again and again, and the same straight."""
    every, lasting = 4, 4 * (times + 1) - 1
    few = ("--quantize", "8") if DEVICE == "cpu" else ()  # on a CPU only these steps are written out
    straight = train(folder, "straight", lasting, *few, small=small)
    again = train(folder, "replaced", lasting, "--reload-interval", str(every), *few, small=small)
    took = [one["seconds"] for one in again["verdict"]["actions"] if one["action"] == "recycle"]
    return {
        "times": len(took),
        "seconds": took,
        "exact": straight["tensors"] == again["tensors"],
        "straight_seconds": straight["seconds"],
        "replaced_seconds": again["seconds"],
        "said": again["said"],
        "peaks": [one["verdict"]["peak"] for one in (straight, again)],
    }


def main() -> bool:
    """Both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--skip-steps", action="store_true")
    options = parser.parse_args()
    found = {} if options.skip_steps else counted(options.small)
    print(found, flush=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_rows(folder / "rows.jsonl", 256, 32 if options.small else 512, options.small)
        save_model(folder, options.small)
        reborn = replaced(folder, options.small, options.times)
    print({name: value for name, value in reborn.items() if name != "seconds"}, flush=True)
    median = statistics.median(reborn["seconds"])
    bars = {
        "replacing the process of an 8B LoRA, from the last step to the next, median": Bar(
            f"{median:.2f} s over {reborn['times']}, slowest {max(reborn['seconds']):.2f} s",
            "2.0 s eager, 8 s captured",
            median <= 2,
        ),
        "exact after these": Bar(str(reborn["exact"]), "to the bit", reborn["exact"]),
    }  # fmt: skip
    if found:
        bars["calls to the allocator in consecutive steps"] = Bar(
            f"{found['calls']} in {found['steps']}", "0 in 1,000", found["calls"] == 0
        )
        bars["reserved device memory in these"] = Bar(
            " and ".join(map(str, found["reserved"])) + " B", "constant to the byte", len(found["reserved"]) <= 1
        )
    if options.small:
        print({what: bar.measured for what, bar in bars.items()})
        return True
    return record("tuning_static", bars, device=torch.cuda.get_device_name(), steps=found, replaced=reborn)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
