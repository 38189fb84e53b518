"""The trainer of mlx_lm, with `MlxMemoryCallback` or without: `python mlx_fit.py STEPS [guard] [leak]`."""

import contextlib
import json
import sys
import tempfile

import mlx.core as mx
import mlx.optimizers as optimizers
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from mlx_lm.tuner import trainer
from mlx_lm.tuner.callbacks import TrainingCallback

from turns import Turns

kept, turns, total = [], Turns(), int(sys.argv[1])


class Losses(TrainingCallback):
    """Keeps what the trainer reports."""

    def __init__(self):
        self.found = []

    def on_train_loss_report(self, report):
        self.found.append(float(report["train_loss"]))

    def on_val_loss_report(self, report):
        self.found.append(float(report["val_loss"]))


def make_model():
    """A Llama of two layers."""
    mx.random.seed(0)
    model = llama.Model(llama.ModelArgs(
        model_type="llama", hidden_size=64, num_hidden_layers=2, intermediate_size=128, num_attention_heads=2,
        num_key_value_heads=2, rms_norm_eps=1e-5, vocab_size=64,
    ))  # fmt: skip
    mx.eval(model.parameters())
    return model


losses = Losses()
inner, callback = trainer.iterate_batches, losses
guard = contextlib.nullcontext()
if "guard" in sys.argv:
    from holdwater.frameworks.mlx_lm import MlxMemoryCallback
    from holdwater.frameworks.observed_guard import ObservedGuard

    guard = ObservedGuard()


class Both(TrainingCallback):
    """Ours, and the one that keeps losses."""

    def on_train_loss_report(self, report):
        memory.on_train_loss_report(report)
        losses.on_train_loss_report(report)

    def on_val_loss_report(self, report):
        memory.on_val_loss_report(report)
        losses.on_val_loss_report(report)


def batches(*, loop=False, **named):
    """The trainer's own, with turns between steps."""
    for batch in inner(loop=loop, **named):
        if loop:
            turns.step()
            if turns.over:
                return
            if "leak" in sys.argv:
                array = mx.ones((16_000,))
                mx.eval(array)
                kept.append(array)  # HERE
        yield batch


rows = [([(at + row) % 64 for at in range(40 + row % 8)], 0) for row in range(64)]
with guard, tempfile.TemporaryDirectory() as folder:
    if "guard" in sys.argv:
        memory = MlxMemoryCallback(guard)
        inner, callback = memory.iterate_batches, Both()
    model = make_model()
    np.random.seed(1)
    trainer.train(
        model, optimizers.Adam(1e-3), rows, rows,
        trainer.TrainingArgs(
            batch_size=4, iters=total, val_batches=2, steps_per_report=10, steps_per_eval=200,
            steps_per_save=10**9, adapter_file=f"{folder}/adapters.safetensors",
        ),
        training_callback=callback, iterate_batches=batches,
    )  # fmt: skip
summary = guard.summary() if "guard" in sys.argv else None
weights = [float(array.sum()).hex() for _, array in tree_flatten(model.parameters())]
print("FOUND", json.dumps({"losses": losses.found, "weights": weights, "summary": summary}))
