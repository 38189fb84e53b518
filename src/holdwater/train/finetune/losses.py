"""Cross-entropy over an output head, some tokens at a time: the logits of a whole batch never exist at once.

The gradients of hidden states and head are made in the forward pass, with the loss, so nothing of the logits is
kept for the backward pass. Each token counts by a weight of its own. Source of the idea: Hsu et al. (2024), "Liger
Kernel: Efficient Triton Kernels for LLM Training", arXiv 2410.10989, on fusing the last layer with the loss.
"""

from typing import Any

import torch
from torch import Tensor

IGNORED = -100
"""The target of a token that is not learned from, as Transformers has it."""
CHUNK = 1024
"""Tokens whose logits exist at once; 1,024 by a vocabulary of 128,256 in float32 are 525 MB."""


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of weighted cross-entropies."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - autograd hands arguments on by place
        ctx: Any,  # noqa: ANN401 - autograd's own
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        weights: Tensor,
        chunk: int,
        learns: bool,  # noqa: FBT001
    ) -> Tensor:
        """Return the sum, and keep the gradients."""
        gradient = torch.empty_like(hidden) if learns and hidden.requires_grad else None
        of_head = torch.zeros_like(head, dtype=torch.float32) if learns and head.requires_grad else None
        learns = gradient is not None or of_head is not None
        dtype = _product_dtype(hidden, head)
        narrow, head = hidden.to(dtype), head.to(dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for begin in range(0, len(hidden), chunk):
            part = slice(begin, begin + chunk)
            errors, loss = _errors(narrow[part], head, targets[part], weights[part], learns=learns)
            total += loss
            if gradient is not None and errors is not None:
                gradient[part] = errors @ head
            if of_head is not None and errors is not None:
                of_head += errors.T @ narrow[part]
            del errors  # before the next chunk's
        ctx.save_for_backward(gradient, of_head)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_out: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Hand the kept gradients on, in place: that of the head may be the largest tensor of a step."""
        gradient, of_head = ctx.saved_tensors
        scaled = [None if kept is None else kept.mul_(grad_out[0].to(kept.dtype)) for kept in (gradient, of_head)]
        return *scaled, None, None, None, None


def _errors(
    hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor, *, learns: bool
) -> tuple[Tensor | None, Tensor]:
    """The gradient of some tokens' logits, if any is wanted, and their weighted loss; in one matrix of logits."""
    logits = (hidden @ head.T).float()
    counts = targets != IGNORED
    index = targets.clamp(min=0)[:, None]
    weight = torch.where(counts, weights.float(), 0.0)
    of_target, most = logits.gather(1, index), logits.amax(dim=-1, keepdim=True)
    mass = logits.sub_(most).exp_().sum(dim=-1, keepdim=True)
    loss = ((most + mass.log() - of_target)[:, 0] * weight).sum()
    if not learns:
        return None, loss
    logits.div_(mass)  # now the probabilities
    logits.scatter_add_(1, index, torch.full_like(index, -1, dtype=logits.dtype))
    return logits.mul_(weight[:, None]).to(hidden.dtype), loss


def _product_dtype(hidden: Tensor, head: Tensor) -> torch.dtype:
    """The type of products of both: what autocast makes of them, or their own."""
    return (hidden[:0] @ head[:0].T).dtype


def chunked_cross_entropy(
    hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor | None = None, *, chunk: int = CHUNK
) -> Tensor:
    """The sum over tokens of weight times cross-entropy, in nats; divide it by what the weights should add up to.

    Args:
        hidden: What the model's last layer gives. Shape (tokens, width).
        head: The output head. Shape (vocabulary, width).
        targets: The next token of each, or `IGNORED`. Shape (tokens,).
        weights: What each token counts; None counts each as 1. Shape (tokens,).
        chunk: Tokens whose logits exist at once.

    Returns:
        The sum, in float32. Shape ().
    """
    if weights is None:
        weights = torch.ones(len(hidden), device=hidden.device)
    total: Tensor = _ChunkedCrossEntropy.apply(hidden, head, targets, weights, chunk, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
    return total
