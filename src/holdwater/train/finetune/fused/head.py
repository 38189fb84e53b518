"""The loss over a vocabulary, some tokens at a time, and its gradient: only of tokens that are learned from.

Tokens of prompts, of pictures and of padding have no target. They come last in the order of a micro-batch, so the
last chunks of that order need not be computed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from holdwater.train.finetune.fused.buffers import StepBuffers
from holdwater.train.finetune.fused.layer import Pass
from holdwater.train.finetune.losses import IGNORED


@dataclass(frozen=True, slots=True)
class LearnedOrder:
    """The tokens of a micro-batch, those that are learned from first."""

    order: Tensor
    """Their numbers. Shape (tokens,), int64."""
    learned: int
    """How many of them are learned from."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What the tokens of a micro-batch are to predict, on the device."""

    tokens: Tensor
    """The next token of each, or `IGNORED`. Shape (tokens,), int64."""
    weights: Tensor
    """What each counts in the loss of the step. Shape (tokens,), float32."""
    order: LearnedOrder | None
    """None where all are taken, in their own order."""

    def chunks(self, size: int) -> Iterator[tuple[slice, bool]]:
        """Parts of the order, and whether a token of each is learned from.

        Args:
            size: Of a part, at most.
        """
        learned = len(self.tokens) if self.order is None else self.order.learned
        for begin in range(0, len(self.tokens), size):
            yield slice(begin, min(begin + size, len(self.tokens))), begin < learned


def learned_first(targets: Tensor) -> tuple[Tensor, int]:
    """The numbers of all tokens, those that are learned from first, and how many these are.

    Args:
        targets: The next token of each, or `IGNORED`. Shape (tokens,), int64.
    """
    learned = targets != IGNORED
    found = torch.nonzero(learned)[:, 0]
    return torch.cat([found, torch.nonzero(~learned)[:, 0]]), len(found)


def clear(buffers: StepBuffers) -> None:
    """Begin a micro-batch: tokens whose turn does not come have no loss and no gradient."""
    buffers.losses.zero_()
    buffers.scratch.grad_normed.zero_()


def add_losses(one: Pass, head: Tensor, targets: Targets, part: slice, *, backward: bool) -> None:
    """Make the losses of some tokens, and the gradient of their normalised rows.

    Args:
        one: The micro-batch; the normalised rows lie in the scratch.
        head: Shape (vocabulary, width).
        targets: Of all tokens.
        part: Which of them, in their order.
        backward: Whether to make the gradient.
    """
    buffers, scratch, count = one.buffers, one.buffers.scratch, part.stop - part.start
    logits, rows = buffers.logits[:count], buffers.head_rows
    order = None if targets.order is None else targets.order.order[part]
    if order is None:
        normed, grad = scratch.normed[part], scratch.grad_normed[part]
        wanted, weights = targets.tokens[part], targets.weights[part]
    else:
        normed, grad, wanted, weights = (
            rows_of[:count] for rows_of in (rows.normed, rows.grad, rows.targets, rows.weights)
        )
        torch.index_select(scratch.normed, 0, order, out=normed)
        torch.index_select(targets.tokens, 0, order, out=wanted)
        torch.index_select(targets.weights, 0, order, out=weights)
    torch.mm(normed, head.t(), out=logits)
    one.kernels.cross_entropy(logits, wanted, weights, buffers.losses[part])
    if backward:
        torch.mm(logits, head, out=grad)
        if order is not None:
            scratch.grad_normed.index_copy_(0, order, grad)
