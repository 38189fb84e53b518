"""Steps of an 8B LoRA that make no call to the allocator.

1,000 in a row with two sizes of micro-batches, clipping and dropout, counted by PyTorch's allocator from fetching
the batch to the loss that is logged.

    python benchmarks/tuning_static.py            on a CUDA device, into results/tuning_static.json
    python benchmarks/tuning_static.py --small    a small model, to try the script itself
"""

import argparse
from types import SimpleNamespace
from typing import Any

import torch

from holdwater.train.finetune.data.examples import Example
from holdwater.train.finetune.data.packing import Packed, pack
from holdwater.train.finetune.fused.decoder import StepPlan
from holdwater.train.finetune.fused.frozen import WeightPlacement
from holdwater.train.finetune.model.lora import LoraConfig, add_adapters
from holdwater.train.finetune.step.fused import FusedBackend
from recording import Bar, record
from tuning_speed import build

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
        train_seq_length=length,
        device=DEVICE,
        weight_decay=0.0,
        gradient_clip=0.5,
        batch_size=2,
        non_finite="stop",
    )
    backend = FusedBackend(model, settings, WeightPlacement(DEVICE), StepPlan(rows=2))
    vocabulary = model.config.vocab_size
    kinds = [[rows_of(1, length, vocabulary)], [rows_of(2, length, vocabulary)]]
    kinds.append([rows_of(2, length, vocabulary), rows_of(1, length, vocabulary)])

    def take(number: int) -> float:
        """One step, of one or two micro-batches."""
        backend.clear()
        window = kinds[number % 3]
        for part, batch in enumerate(window):
            backend.propagate(batch, 1 / len(window), seed=8 * number + part)
        backend.update(1e-5)
        return backend.loss()

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


def main() -> bool:
    """Take the steps."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    found = counted(options.small)
    bars = {
        "calls to the allocator in consecutive steps": Bar(
            f"{found['calls']} in {found['steps']}", "0 in 1,000", found["calls"] == 0
        ),
        "reserved device memory in these": Bar(
            " and ".join(map(str, found["reserved"])) + " B", "constant to the byte", len(found["reserved"]) <= 1
        ),
    }
    if options.small:
        print({what: bar.measured for what, bar in bars.items()})
        return True
    return record("tuning_static", bars, device=torch.cuda.get_device_name(), steps=found)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
