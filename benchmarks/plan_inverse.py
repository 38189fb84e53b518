"""`plan --max-context` against the device: the longest rows of an 8B QLoRA of rank 8 whose steps fit 24 GB.

The length that the plan finds is trained, with its margin. What the plan without its margin would find is compared
with the longest rows that fit: what steps take grows evenly with their length, so that two lengths that were
trained tell it.

    python benchmarks/plan_inverse.py            on a CUDA device, two minutes, into results/plan_inverse.json
    python benchmarks/plan_inverse.py --plans    only what the plan finds, without a device; writes nothing
"""

import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from holdwater.config import gather
from holdwater.train.finetune.planner import fused
from holdwater.train.finetune.planner.fused import Choice
from holdwater.train.finetune.planner.largest import longest_rows
from holdwater.train.settings import train_settings
from holdwater.units import Bytes
from recording import Bar, record
from tuning_memory import Case, settings_of, taken, tuning_of, write_config

LIMIT = Bytes(24_000_000_000)
ALLOWED = 0.02
"""How far the length may be off."""


def planned_length(model: Path) -> tuple[int, Choice]:
    """The longest rows that `plan --max-context --max-memory 24GB` finds, and how it takes steps of them."""
    flags: dict[str, Any] = {
        "model": str(model), "data": "rows.jsonl", "batch_size": 1, "lora_rank": 8, "quantize": 4,
        "max_memory": LIMIT,
    }  # fmt: skip
    settings = train_settings(gather(flags=flags, environment={}), model / "run")
    if settings.tuning is None:
        raise AssertionError  # the model was given
    return longest_rows(settings, settings.tuning, LIMIT)


def trained(model: Path, length: int, choice: Choice) -> dict[str, Any]:
    """What a step of so long rows takes."""
    case = Case("8b", 4, 1, length, again=True, captured=False)
    found = taken(model, tuning_of(model, case), settings_of(case), choice.step, captured=False)
    needed = found["reserved"] + found["beside_torch"]
    print(f"{length} tokens: {needed / 1e9:.3f} GB, {found['last_step_seconds']:.0f} s", flush=True)
    return {"length": length, "needed": needed, **found}


def main() -> bool:
    """Plan, then train both lengths."""
    with tempfile.TemporaryDirectory() as place:
        model = write_config(Path(place), "8b")
        length, choice = planned_length(model)
        with mock.patch.object(fused, "MARGIN", 0.0):
            without, _ = planned_length(model)
        print(f"planned: {length} tokens, {without} without the margin; {choice.why}", flush=True)
        if sys.argv[1:] == ["--plans"]:
            return True
        runs = [trained(model, one, choice) for one in (length, int(without * (1 + ALLOWED)) // 64 * 64)]
    first, second = (one["needed"] for one in runs)
    of_token = (second - first) / (runs[1]["length"] - length)
    longest = length + (LIMIT - first) / of_token
    bars = {
        "longest rows of an 8B QLoRA that `plan --max-context` finds for 24 GB": Bar(
            f"{length:,} tokens, which take {first / 1e9:.2f} GB", "train within 24 GB", first <= LIMIT
        ),
        "the same without the plan's margin, against what trains": Bar(
            f"{without:,} tokens, {without / longest - 1:+.1%} of the {longest:,.0f} that fit", "within 2 %",
            abs(without / longest - 1) <= ALLOWED,
        ),
    }  # fmt: skip
    return record("plan_inverse", bars, device=torch.cuda.get_device_name(), runs=runs, limit=LIMIT)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
