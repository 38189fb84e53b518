"""Losses and gradients of any model by autograd, on inputs that stay where they are."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from holdwater.train.finetune.data.packing import Packed
from holdwater.train.finetune.fused.decoder import Inputs, Phase
from holdwater.train.finetune.losses import CHUNK
from holdwater.train.finetune.model.checkpointing import compute_again
from holdwater.train.finetune.model.loading import packed_loss
from holdwater.train.finetune.model.plain_head import has_plain_head
from holdwater.train.flat import FlatWeights


class AutogradStep:
    """A model of any kind, with adapters or all its weights in training."""

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - of Transformers
        weights: FlatWeights,
        *,
        length: int,
        narrow: Callable[[], AbstractContextManager[object]] | None = None,
        again: bool = False,
    ) -> None:
        """Take a model.

        Args:
            model: On its device.
            weights: Its trained ones, laid out.
            length: Tokens in a row.
            narrow: Makes products of another type than the weights', as autocast does; None takes theirs.
            again: Whether its layers are computed again in the backward pass, which draw no random numbers.
        """
        if again:  # the states of random numbers could not be read while a step is captured
            how: dict[str, object] = {"use_reentrant": False, "preserve_rng_state": False}
            if narrow is not None:
                how["context_fn"] = lambda: (nullcontext(), narrow())
            compute_again(model, how)
        has_plain_head(model)  # is found out here, not within a step
        self.device = str(weights.decayed.device)
        self._narrow = narrow or nullcontext
        self._model, self._weights, self._length = model, weights, length

    def phases(self, inputs: Inputs, *, add: bool) -> list[Phase]:
        """The whole micro-batch at once."""
        return [Phase("whole", partial(self.propagate, inputs, add=add))]

    def propagate(self, inputs: Inputs, *, add: bool) -> Tensor:
        """Make the gradients of a micro-batch, or add them to those that are there; return its loss. Shape ()."""
        if not add:
            self._weights.clear_gradients()
        loss = self._loss(inputs)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    @torch.no_grad()
    def loss(self, inputs: Inputs) -> Tensor:
        """The same loss, without gradients. Shape ()."""
        self._model.eval()
        loss = self._loss(inputs)
        self._model.train()
        return loss

    def refresh(self) -> None:
        """Nothing to do: the model computes with the weights that are trained."""

    def _loss(self, inputs: Inputs) -> Tensor:
        """The weighted sum of cross-entropies."""
        with self._narrow():
            return packed_loss(self._model, packed_of(inputs, self._length), chunk=CHUNK)


def packed_of(inputs: Inputs, length: int) -> Packed:
    """The rows of a micro-batch, as they came.

    Args:
        inputs: Of the micro-batch.
        length: Of a row, in tokens.
    """
    begins = inputs.spans[0].long()
    positions = torch.arange(len(begins), device=begins.device) - begins
    parts = (inputs.tokens, inputs.targets, positions, begins + 1, inputs.weights)
    return Packed(*(part.view(-1, length) for part in parts))
