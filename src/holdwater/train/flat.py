"""Lay a model's weights and gradients out in two long tensors, once: nothing is allocated per step.

The optimizer then updates two tensors instead of dozens, and the norm of the gradient is one reduction.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

ALIGNMENT = 16
"""Elements: each weight begins at a multiple of 64 bytes, so results do not depend on where it lies."""


@dataclass(frozen=True, slots=True)
class FlatWeights:
    """A model's weights as two parameters: those that decay (matrices) and those that do not (the rest)."""

    decayed: nn.Parameter
    undecayed: nn.Parameter

    @classmethod
    def of(cls, model: nn.Module) -> "FlatWeights":
        """Move a model's weights into two tensors; its own parameters become views of them."""
        weights = list(model.parameters())
        return cls(
            _lay_out([weight for weight in weights if weight.dim() > 1]),
            _lay_out([weight for weight in weights if weight.dim() <= 1]),
        )

    def clear_gradients(self) -> None:
        """Set all gradients to zero, in place."""
        for weight in (self.decayed, self.undecayed):
            _grad(weight).zero_()

    def clip_gradients(self, largest: float) -> Tensor:
        """Scale the gradients so that their norm is at most `largest`; return the norm. Shape ()."""
        grads = [_grad(self.decayed), _grad(self.undecayed)]
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(grad) for grad in grads]))
        scale = (largest / (norm + 1e-6)).clamp_(max=1.0)
        for grad in grads:
            grad.mul_(scale)
        return norm


def _grad(weight: Tensor) -> Tensor:
    """A gradient that was laid out beforehand."""
    assert weight.grad is not None  # noqa: S101 - `_lay_out` made it
    return weight.grad


def _lay_out(weights: list[nn.Parameter]) -> nn.Parameter:
    """Move weights into one tensor, and give each a gradient in another."""
    lengths = [-(-weight.numel() // ALIGNMENT) * ALIGNMENT for weight in weights]
    flat = nn.Parameter(torch.zeros(sum(lengths), dtype=weights[0].dtype, device=weights[0].device))
    flat.grad = torch.zeros_like(flat)
    start = 0
    for weight, length in zip(weights, lengths, strict=True):
        place = slice(start, start + weight.numel())
        flat.data[place].copy_(weight.data.flatten())
        weight.data = flat.data[place].view_as(weight)
        weight.grad = flat.grad[place].view_as(weight)
        start += length
    return flat
