"""What the benchmark of `--backend mlx` compares: our steps, the trainer of `mlx_lm`, a loop that never evaluates.

Started as a program, it runs one of the latter two for `mlx_training.py`.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.losses import cross_entropy
from mlx.nn.utils import value_and_grad
from mlx.optimizers import AdamW
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.trainer import TrainingArgs, train

from holdwater.config import gather
from holdwater.guard.guard import Guard
from holdwater.train.finetune.mlx.batches import ExampleRows, RowBatches
from holdwater.train.finetune.mlx.state import MlxTuneState, new_mlx_tuning
from holdwater.train.finetune.mlx.step import BETAS, EPSILON
from holdwater.train.loop import recovering_step
from holdwater.train.schedule import learning_rate
from holdwater.train.settings import train_settings

NO_CLIP = 1e6
"""A norm that no gradient reaches: `mlx_lm` does not clip."""
TURNS = "MLX_TURNS"
"""The variable that names the folder of two FIFOs, by which blocks of steps take turns."""


def state_of(folder: Path, *, model: str, steps: int, **flags: object) -> MlxTuneState:
    """The state of a run, as `holdwater train` makes it.

    Args:
        folder: Holds the model and `rows.jsonl`.
        model: The name of the model's folder.
        steps: The length of the run, which its learning rates follow from.
        flags: More keys of the configuration.

    Raises:
        AssertionError: No model was named.
    """
    given: dict[str, Any] = {
        "model": str(folder / model), "data": str(folder / "rows.jsonl"), "backend": "mlx", "steps": steps,
        "gradient_clip": NO_CLIP, **flags,
    }  # fmt: skip
    settings = train_settings(gather(flags={name: str(one) for name, one in given.items()}, environment={}),
                              folder / "run")  # fmt: skip
    if settings.tuning is None:
        raise AssertionError  # the model was given
    return new_mlx_tuning(settings, settings.tuning)


def our_losses(state: MlxTuneState) -> list[float]:
    """Take all steps of a run; return the loss of each."""
    step = recovering_step(state.settings, state)
    losses = []
    for rate in rates(state):
        state.rate = rate
        losses.append(step.take([state.batches.draw() for _ in range(state.settings.gradient_accumulation)]))
    return losses


def rates(state: MlxTuneState) -> list[float]:
    """The learning rate of each step."""
    settings = state.settings
    return [
        learning_rate(step, peak=settings.learning_rate, warmup=settings.warmup_steps, steps=settings.steps)
        for step in range(1, settings.steps + 1)
    ]


class Losses(TrainingCallback):
    """Collects what `mlx_lm` reports."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_loss_report(self, report: dict[str, Any]) -> None:
        """Take the loss of a report."""
        self.found.append(float(report["train_loss"]))

    def on_val_loss_report(self, report: dict[str, Any]) -> None:
        """There is no evaluation."""


def theirs(rows: ExampleRows) -> tuple[mx.array, mx.array]:
    """The same rows as the trainer of `mlx_lm` takes them: with one more column, and the learned range of each."""
    learned = rows.weights > 0
    first = learned.argmax(axis=1) + 1
    last = rows.weights.shape[1] - learned[:, ::-1].argmax(axis=1)
    tokens = np.pad(rows.tokens, ((0, 0), (0, 1)))
    return mx.array(tokens), mx.array(np.stack([first, last], axis=1))


def their_losses(
    state: MlxTuneState, batches: RowBatches, *, between: Callable[[int], None] | None = None, report: int = 1
) -> list[float]:
    """Train a model by the trainer of `mlx_lm`; return the losses that it reports.

    Args:
        state: Gives model, adapters and settings; none of its steps must have been taken.
        batches: Where the rows come from.
        between: Called before each batch is drawn, with its number.
        report: Steps between two reports.
    """
    settings, losses = state.settings, Losses()
    table = mx.array(rates(state))
    optimizer = AdamW(
        learning_rate=lambda step: table[mx.minimum(step, settings.steps - 1)], betas=list(BETAS), eps=EPSILON,
        weight_decay=settings.weight_decay, bias_correction=True,
    )  # fmt: skip

    def iterate(**_: object) -> Iterator[tuple[mx.array, mx.array]]:
        """Yield the batches, and one that nobody takes."""
        for number in range(settings.steps + 1):
            if between is not None:
                between(number)
            yield theirs(batches.draw())

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArgs(
            batch_size=settings.batch_size, iters=settings.steps, steps_per_report=report,
            steps_per_save=settings.steps, adapter_file=str(Path(folder) / "adapters.safetensors"),
            max_seq_length=settings.train_seq_length, grad_accumulation_steps=settings.gradient_accumulation,
        )  # fmt: skip
        train(
            state.loaded.model, optimizer, train_dataset=[], args=arguments, iterate_batches=iterate,
            training_callback=losses,
        )  # fmt: skip
    return losses.found


class Turns:
    """Waits for its turn before each block of steps, and tells how long the block took."""

    def __init__(self, block: int) -> None:
        self._block, self._began = block, 0.0
        folder = Path(os.environ[TURNS])
        self._go = (folder / "go").open(encoding="utf-8")
        self._done = (folder / "done").open("w", encoding="utf-8", buffering=1)

    def after(self, steps: int) -> None:
        """Mark that so many steps are done, of which the first block is not counted."""
        if steps % self._block:
            return
        print(time.perf_counter() - self._began, file=self._done)
        self._go.readline()
        self._began = time.perf_counter()


_OURS: list[Turns] = []


def our_turn(guard: Guard) -> None:
    """The callback of `holdwater train`, after each step."""
    if not _OURS:
        _OURS.append(Turns(int(os.environ["MLX_BLOCK"])))
    _OURS[0].after(guard.step_number)


def forget(state: MlxTuneState) -> None:
    """Train without ever evaluating: the graph of all steps so far is kept."""
    model, optimizer = state.loaded.model, AdamW(learning_rate=1e-4)

    def loss(tokens: mx.array, targets: mx.array) -> mx.array:
        """The mean loss of a batch."""
        return cross_entropy(model(tokens), targets, reduction="mean")

    total, gradients = mx.array(0.0), value_and_grad(model, loss)
    while True:
        rows = state.batches.draw()
        value, found = gradients(mx.array(rows.tokens), mx.array(rows.targets))
        optimizer.update(model, found)
        total += value


def main() -> None:
    """Run one of the programs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", choices=["peer", "forgetful"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("flags", help="as JSON")
    options = parser.parse_args()
    state = state_of(options.folder, **json.loads(options.flags))
    if options.program == "forgetful":
        forget(state)
    turns = Turns(int(os.environ["MLX_BLOCK"]))
    their_losses(state, state.batches, report=10, between=lambda number: turns.after(number) if number else None)


if __name__ == "__main__":
    main()
