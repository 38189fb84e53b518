"""Steps of any model by autograd, captured as CUDA graphs."""

from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from holdwater.train.finetune.fused.decoder import StepPlan
from holdwater.train.finetune.model.loading import generate
from holdwater.train.finetune.model.lora import is_adapted
from holdwater.train.finetune.step.autograd import AutogradStep
from holdwater.train.finetune.step.static_step import StaticStep
from holdwater.train.finetune.weight_server.client import WeightClient
from holdwater.train.flat import FlatAdamW, FlatWeights
from holdwater.train.settings import TrainSettings


class CapturedBackend(StaticStep):
    """Captured autograd; where capturing fails the steps run eagerly."""

    def __init__(self, model: Any, settings: TrainSettings, step: StepPlan) -> None:  # noqa: ANN401 - of Transformers
        """Put a model on its device.

        Args:
            model: On the CPU, but for weights in few bits.
            settings: Of the run, on a CUDA device.
            step: In which micro-batches, and whether layers are computed again.
        """
        length = settings.train_seq_length
        self.weights = FlatWeights.of(model.to(settings.device))
        torch.cuda.empty_cache()  # what laying weights out has left
        self.optimizer = FlatAdamW(
            self.weights, weight_decay=settings.weight_decay, skips=settings.non_finite == "skip"
        )
        self.weight_client = WeightClient()
        self.rows = step.rows
        autocast = partial(torch.autocast, "cuda", dtype=torch.bfloat16, cache_enabled=False)
        narrow = None if is_adapted(model) else autocast  # weights that are trained are in float32
        own = AutogradStep(model, self.weights, length=length, narrow=narrow, again=step.recomputed > 0)
        update = partial(update_weights, self.optimizer, largest_norm=settings.gradient_clip)
        super().__init__(own, update, rows=step.rows, length=length)
        self._settings, self._plain_model, self._narrow = settings, model, narrow or nullcontext

    def write(self, tokens: list[int], count: int, *, padding: int) -> list[int]:
        """Continue some tokens by Transformers' own generation, up to the length of a row.

        Args:
            tokens: One or more.
            count: Tokens to add, at most.
            padding: The token that stands for none.
        """
        most = min(count, self._settings.train_seq_length - len(tokens))
        if most < 1:
            return list(tokens)
        with self._narrow():
            return generate(self._plain_model, tokens, most, device=self._settings.device, padding=padding)


def update_weights(optimizer: FlatAdamW, rate: Tensor, loss: Tensor, *, largest_norm: float) -> None:
    """Change the weights.

    Args:
        optimizer: Of the weights.
        rate: The learning rate of the step. Shape ().
        loss: The mean loss of the step. Shape ().
        largest_norm: To which gradients are scaled down.
    """
    optimizer.step(learning_rate=rate, largest_norm=largest_norm, loss=loss)
