"""Which requests a plan gets wrong: an eager step's on the device against those that were traced without it.

For models whose steps run under autograd, whose plans come from a trace. For each size that the two ask for a
different number of times, one line says how often each does, and where in the code the device was asked.

    python benchmarks/tuning_requests.py            on a CUDA device; prints, and writes nothing
"""

import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from holdwater.train.finetune.fused.frozen import WeightPlacement
from holdwater.train.finetune.model.lora import LoraConfig, add_adapters
from holdwater.train.finetune.planner.plan import planned_of
from holdwater.train.finetune.step.backends import choose_backend
from holdwater.train.finetune.step.static_step import StaticStep
from tuning_memory import AUTOGRAD, Case, model_of, rows_of, settings_of, step_of, tuning_of, write_config

ROUND = 512
"""Bytes of which the allocator hands out multiples."""
SMALL = 1 << 20
"""Differences below this, in bytes, are left out."""


def device_requests(folder: Path, case: Case) -> list[dict[str, Any]]:
    """What one eager step asks the device's allocator for."""
    tuning, settings, step = tuning_of(folder, case), settings_of(case), step_of(case)
    model = model_of(folder, torch.float32 if case.whole else torch.bfloat16)
    if not case.whole:
        add_adapters(model, LoraConfig.of(tuning))
    backend = choose_backend(model, settings, WeightPlacement("cuda", tuning.quantize), step)
    if not isinstance(backend, StaticStep):
        raise SystemExit("these steps are never captured")
    backend.recording.enabled = False
    torch.cuda.memory._record_memory_history(context="alloc", stacks="python", max_entries=10**6)
    backend.clear()
    backend.propagate(rows_of(step.rows, case.length), 1.0, seed=0)
    backend.loss()
    noted = torch.cuda.memory._snapshot()["device_traces"][0]
    torch.cuda.memory._record_memory_history(enabled=None)
    return [one for one in noted if one["action"] == "alloc"]


def differences(planned: Iterable[int], taken: Iterable[dict[str, Any]]) -> list[str]:
    """Sizes that are asked for a different number of times, the largest difference in bytes first."""
    asked = list(taken)
    own, real = (
        Counter(-(-size // ROUND) * ROUND for size in sizes) for sizes in (planned, (one["size"] for one in asked))
    )
    where = {-(-one["size"] // ROUND) * ROUND: frame_of(one) for one in asked}
    found = {size: real[size] - own[size] for size in own | real}
    return [
        f"{size / 1e6:10.2f} MB: planned {own[size]:4d}, taken {real[size]:4d}  {where.get(size, '')}"
        for size, more in sorted(found.items(), key=lambda one: -abs(one[0] * one[1]))
        if abs(size * more) >= SMALL
    ]


def frame_of(request: dict[str, Any]) -> str:
    """The innermost lines of Python that asked."""
    frames = request.get("frames", [])[:3]
    return " < ".join(f"{Path(one['filename']).name}:{one['line']} {one['name']}" for one in frames)


def main() -> None:
    """All models of other kinds."""
    with tempfile.TemporaryDirectory() as place:
        for case in AUTOGRAD:
            folder = write_config(Path(place), case.size)
            planned = planned_of(settings_of(case), tuning_of(folder, case))
            step = step_of(case)
            traced = planned._traced(step.rows, step.recomputed > 0).step  # type: ignore[union-attr]
            sizes = [event.size for event in traced.events if event.size]
            print(case, *differences(sizes, device_requests(folder, case)), sep="\n", flush=True)


if __name__ == "__main__":
    main()
