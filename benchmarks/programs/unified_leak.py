"""Train a small MLX model on a rehearsed Mac of 96 GB, on which memory runs out.

    python unified_leak.py STEPS WEIGHTS [--leak] [--abort-at STEP] [--pause SECONDS]

The model, its arrays and the leak are real; what is read of Metal is a stand-in. With `--leak` an array of 0.2 MB
is kept each step, and counts 10,000 times beside 17 GB of weights (an 8B in bfloat16): 2,000 MB a step, of which
resident memory sees next to nothing. With `--abort-at` the first process ends in that step as Metal ends one.
"""

import argparse
import os
import time
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx import optimizers
from mlx.utils import tree_flatten, tree_map

import holdwater
from holdwater.frameworks.mlx_loop import micro_batch
from holdwater.probes.metal import Allocator, Footprint
from holdwater.testing import StandInMetal

GB = 1_000_000_000
SCALE, KEPT = 10_000, 200_000
BATCH = 32
SAID = (
    "libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command buffer execution "
    "failed: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)\n"
)
history: list[mx.array] = []
"""The leak."""


class ScaledMac(StandInMetal):
    """A Mac on which the leak of this process is 10,000 times as large."""

    def allocator(self) -> Allocator:
        """MLX's counters."""
        self.active = 17 * GB + SCALE * sum(array.nbytes for array in history)
        return StandInMetal.allocator(self)

    def footprint(self) -> Footprint:
        """All memory of the process."""
        self.allocator()
        return StandInMetal.footprint(self)


def main() -> None:
    """Train, and save the weights."""
    parser = argparse.ArgumentParser()
    parser.add_argument("steps", type=int)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--leak", action="store_true")
    parser.add_argument("--abort-at", type=int, default=0)
    parser.add_argument("--pause", type=float, default=0.0)
    options = parser.parse_args()
    mx.random.seed(7)
    model, optimizer = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 1)), optimizers.Adam(1e-3)
    mx.eval(model.parameters())
    gradient = nn.value_and_grad(model, lambda model, rows: (model(rows) ** 2).mean())
    size = micro_batch(BATCH)
    holdwater.resumable("model", model)
    holdwater.resumable("optimizer", optimizer)
    holdwater.resumable("history", None)
    for step in holdwater.steps(options.steps):
        batch = mx.random.normal((BATCH, 64))
        parts = [gradient(model, batch[begin : begin + size])[1] for begin in range(0, BATCH, size)]
        if step == options.abort_at and size == BATCH and options.abort_at:
            os.write(2, SAID.encode())
            os.abort()
        optimizer.update(model, tree_map(lambda *grads: sum(grads) * (size / BATCH), *parts))
        mx.eval(model.parameters(), optimizer.state)
        if options.leak:
            kept = mx.zeros((KEPT // 4,)) + step
            mx.eval(kept)
            history.append(kept)
        time.sleep(options.pause)
    mx.save_safetensors(str(options.weights), dict(tree_flatten(model.parameters())))


if __name__ == "__main__":
    with ScaledMac(private=GB).installed():
        main()
