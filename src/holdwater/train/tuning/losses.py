"""Cross-entropy over a frozen output head, some tokens at a time: the logits of a whole batch never exist at once.

The gradient of the hidden states is made in the forward pass, beside the loss, so nothing of the logits is kept
for the backward pass. Each token counts by a weight of its own. Source of the idea: Hsu et al. (2024), "Liger
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
    """Sum of weighted cross-entropies over a frozen head."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - autograd hands arguments on by place
        ctx: Any,  # noqa: ANN401 - autograd's own
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        weights: Tensor,
        chunk: int,
    ) -> Tensor:
        """Return the sum, and keep the gradient of the hidden states."""
        gradient = torch.empty_like(hidden) if hidden.requires_grad else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for begin in range(0, len(hidden), chunk):
            part = slice(begin, begin + chunk)
            logits = (hidden[part] @ head.T).float()
            chosen, weight = targets[part], weights[part].float()
            counts = chosen != IGNORED
            index = chosen.clamp(min=0)[:, None]
            norm = torch.logsumexp(logits, dim=-1)
            weight = torch.where(counts, weight, 0.0)
            total += ((norm - logits.gather(1, index)[:, 0]) * weight).sum()
            if gradient is not None:
                logits.sub_(norm[:, None]).exp_()  # now the probabilities
                logits.scatter_add_(1, index, torch.full_like(index, -1, dtype=logits.dtype))
                logits.mul_(weight[:, None])
                torch.matmul(logits.to(head.dtype), head, out=gradient[part])
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Hand the kept gradient on."""
        (gradient,) = ctx.saved_tensors
        return gradient * above[0].to(gradient.dtype), None, None, None, None


def chunked_cross_entropy(
    hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor | None = None, *, chunk: int = CHUNK
) -> Tensor:
    """The sum over tokens of weight times cross-entropy, in nats; divide it by what the weights should add up to.

    The head is frozen: it gets no gradient.

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
    total: Tensor = _ChunkedCrossEntropy.apply(hidden, head, targets, weights, chunk)  # type: ignore[no-untyped-call]
    return total
