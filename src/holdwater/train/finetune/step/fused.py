"""Steps of a decoder by its own kernels: no autograd graph, every buffer made once."""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from holdwater.train.finetune.data.examples import Example
from holdwater.train.finetune.data.packing import pack
from holdwater.train.finetune.fused.decoder import Decoder, StepPlan
from holdwater.train.finetune.fused.frozen import WeightPlacement
from holdwater.train.finetune.step.static_step import StaticStep
from holdwater.train.flat import FlatAdamW, FlatWeights
from holdwater.train.settings import TrainSettings


class FusedParts(NamedTuple):
    """What fused steps are made of."""

    decoder: Decoder
    weights: FlatWeights
    optimizer: FlatAdamW
    update: partial[None]
    """Changes the weights, given learning rate and loss."""


def fuse(model: Any, settings: TrainSettings, where: WeightPlacement, step: StepPlan) -> FusedParts:  # noqa: ANN401
    """Put a model on its device, and make all buffers.

    Args:
        model: Of Transformers, with adapters, one that `why_not` has nothing against; on the CPU.
        settings: Of the run.
        where: Frozen weights are put, and how.
        step: How steps are taken.
    """
    decoder = Decoder(model, where)
    weights = FlatWeights.of(model, decoder.trained, where.take_trained)
    if weights.decayed.is_cuda:
        torch.cuda.empty_cache()  # what moving and quantizing the weights has left, before buffers add to it
    decoder.bind()
    decoder.prepare(settings.train_seq_length, step)
    optimizer = FlatAdamW(
        weights, weight_decay=settings.weight_decay, take=where.take_trained, skips=settings.non_finite == "skip"
    )
    where.weight_client.whole({"name": where.name})
    update = _update(weights, optimizer, decoder, largest_norm=settings.gradient_clip)
    return FusedParts(decoder, weights, optimizer, update)


class FusedBackend(StaticStep):
    """Fused steps, captured as CUDA graphs on a CUDA device."""

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - of Transformers
        settings: TrainSettings,
        where: WeightPlacement,
        step: StepPlan,
    ) -> None:
        """As `fuse`."""
        self._decoder, self.weights, self.optimizer, update = fuse(model, settings, where, step)
        self.weight_client, self.rows = where.weight_client, step.rows
        self._longest = settings.train_seq_length
        super().__init__(self._decoder, update, rows=step.rows, length=settings.train_seq_length)

    def write(self, tokens: list[int], count: int, *, padding: int) -> list[int]:  # noqa: ARG002 - of a backend
        """Continue some tokens with the likeliest one each time, up to the length of a row.

        Args:
            tokens: One or more.
            count: Tokens to add, at most.
            padding: Not needed here: a row has the length of its tokens.
        """
        written, most = list(tokens), min(count, self._longest - len(tokens))
        if most < 1:
            return written
        self.send(pack([[Example(written, [False] * len(written))]], len(written)), 1.0, 0)
        added = self._decoder.generate(self.inputs(len(written)), most)
        if added is not None:
            return written + added
        for _ in range(most):
            known = [Example(written, [False] * len(written))]
            self.send(pack([known], len(written)), 1.0, 0)
            written.append(int(self._decoder.next_token(self.inputs(len(written))).item()))
        return written


def _update(weights: FlatWeights, optimizer: FlatAdamW, decoder: Decoder, *, largest_norm: float) -> partial[None]:
    """What changes the weights and their copies, given learning rate and loss: one kernel on a CUDA device."""
    if not weights.decayed.is_cuda:
        return partial(_update_in_torch, optimizer, decoder, largest_norm=largest_norm)
    from holdwater.train.finetune.fused.update_kernels import FlatUpdate  # noqa: PLC0415 - Triton is with CUDA

    return partial(FlatUpdate(weights, optimizer, decoder.copies()), largest_norm=largest_norm)


def _update_in_torch(
    optimizer: FlatAdamW, decoder: Decoder, rate: Tensor, loss: Tensor, *, largest_norm: float
) -> None:
    """Change the weights, then their copies."""
    optimizer.step(learning_rate=rate, largest_norm=largest_norm, loss=loss)
    decoder.refresh()
