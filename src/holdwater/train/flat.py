"""Weights, gradients and AdamW's moments in a few long tensors, allocated once: a step allocates nothing.

The optimizer then updates two tensors instead of dozens, and the norm of the gradient is one reduction.
Source of the update: Loshchilov and Hutter (2019), "Decoupled Weight Decay Regularization".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

Take = Callable[[str, int], Tensor]
"""Allocates memory by a name and a number of elements."""
EPSILON = 1e-8
"""Added to the root of the second moment."""
ALIGNMENT = 16
"""Elements: each weight begins at a multiple of 64 bytes, so results do not depend on its address."""


@dataclass(frozen=True, slots=True)
class FlatWeights:
    """A model's weights as two tensors: those that decay (matrices) and those that do not (the rest)."""

    decayed: Tensor
    undecayed: Tensor
    decayed_grad: Tensor
    undecayed_grad: Tensor

    @classmethod
    def of(
        cls, model: nn.Module, order: list[nn.Parameter] | None = None, take: Take | None = None
    ) -> "FlatWeights":
        """Move the weights that a model trains into two tensors; its own parameters become views of them.

        Args:
            model: The model; weights that need no gradient are not moved.
            order: In which they are laid out; None takes the model's own.
            take: Allocates by a name and a number of elements, all zero or as they were left; None allocates
                on the device of the weights.
        """
        weights = order or [weight for weight in model.parameters() if weight.requires_grad]
        take = take or partial(_zeros, like=weights[0].data)
        decayed, decayed_grad = _lay_out([weight for weight in weights if weight.dim() > 1], "decayed", take)
        undecayed, undecayed_grad = _lay_out(
            [weight for weight in weights if weight.dim() <= 1], "undecayed", take
        )
        return cls(decayed, undecayed, decayed_grad, undecayed_grad)

    @property
    def count(self) -> int:
        """How many weights there are."""
        return self.decayed.numel() + self.undecayed.numel()

    @property
    def grads(self) -> list[Tensor]:
        """Both gradients."""
        return [self.decayed_grad, self.undecayed_grad]

    def clear_gradients(self) -> None:
        """Set all gradients to zero, in place."""
        for grad in self.grads:
            grad.zero_()

    def tensors(self) -> dict[str, Tensor]:
        """The weights, by name."""
        return {"weights.decayed": self.decayed, "weights.undecayed": self.undecayed}

    def gradient_norm(self) -> Tensor:
        """Return the norm of all gradients together. Shape ()."""
        norms = [torch.linalg.vector_norm(grad) for grad in self.grads]
        norm: Tensor = torch.hypot(*norms)
        return norm


class FlatAdamW:
    """AdamW on flat weights, by PyTorch's own fused kernel.

    `torch.optim.AdamW(fused=True)` calls the same kernel, and spends as long again on grouping tensors.
    """

    def __init__(
        self,
        weights: FlatWeights,
        *,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.95),
        take: Take | None = None,
        skips: bool = False,
    ) -> None:
        """Allocate the moments.

        Args:
            weights: What to update.
            weight_decay: Of the matrices, per step and unit of the learning rate.
            betas: How much of the first and second moment is kept from step to step.
            take: Allocates, as for the weights; None allocates on their device.
            skips: Whether a step with a loss or gradients that are not finite changes nothing.
        """
        take = take or partial(_zeros, like=weights.decayed)
        sizes = {"decayed": weights.decayed.numel(), "undecayed": weights.undecayed.numel()}
        self._weights = weights
        self.decay = weight_decay
        self.skips = skips
        self.betas = betas
        self.first = [take(f"first.{name}", size) for name, size in sizes.items()]
        self.second = [take(f"second.{name}", size) for name, size in sizes.items()]
        self.steps = take("steps", 1).view(())
        """Updates done. Shape ()."""

    @torch.no_grad()
    def step(self, *, learning_rate: float | Tensor, largest_norm: float, loss: float | Tensor = 0.0) -> None:
        """Update the weights once.

        Args:
            learning_rate: This step's; as a tensor of shape () it may change under a captured update.
            largest_norm: Gradients with a larger norm are scaled down to this one.
            loss: This step's; read only where steps that are not finite are skipped.
        """
        norm = self._weights.gradient_norm()
        skipped = self.count_step(norm, loss)
        scale = (norm / largest_norm).clamp_(min=1.0).float()
        parts = (
            (self._weights.decayed, self._weights.decayed_grad, self.decay),
            (self._weights.undecayed, self._weights.undecayed_grad, 0.0),
        )
        for index, (weight, grad, decay) in enumerate(parts):
            if weight.numel() == 0:
                continue
            torch._fused_adamw_(
                [weight],
                [grad],
                [self.first[index]],
                [self.second[index]],
                [],
                [self.steps],
                lr=learning_rate,
                beta1=self.betas[0],
                beta2=self.betas[1],
                weight_decay=decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
                grad_scale=scale,
                found_inf=skipped,
            )

    def count_step(self, norm: Tensor, loss: float | Tensor) -> Tensor | None:
        """Count an update, on the device.

        Args:
            norm: Of all gradients. Shape ().
            loss: The step's.

        Returns:
            1 if the update must change nothing, else 0; None if no step is skipped. Shape ().
        """
        if not self.skips:
            self.steps += 1
            return None
        skipped = (~torch.isfinite(norm + loss)).float()
        self.steps += 1 - skipped
        return skipped

    def tensors(self) -> dict[str, Tensor]:
        """Return the whole state, by name."""
        first, second = self.first, self.second
        return {
            "first.decayed": first[0],
            "first.undecayed": first[1],
            "second.decayed": second[0],
            "second.undecayed": second[1],
            "steps": self.steps,
        }


def first_non_finite(tensors: Mapping[str, Tensor]) -> str:
    """The name of the first tensor that holds NaN or infinity; empty if none does. The host waits once.

    Args:
        tensors: On one device.
    """
    filled = {name: tensor for name, tensor in tensors.items() if tensor.numel()}
    bounds = torch.stack([bound.float() for one in filled.values() for bound in (one.amin(), one.amax())])
    finite = bounds.isfinite().view(-1, 2).all(dim=1).tolist()
    return next((name for name, good in zip(filled, finite, strict=True) if not good), "")


def _zeros(name: str, size: int, *, like: Tensor) -> Tensor:
    """Zeros of the type and on the device of something."""
    del name
    return torch.zeros(size, dtype=like.dtype, device=like.device)


def _lay_out(weights: list[nn.Parameter], name: str, take: Take) -> tuple[Tensor, Tensor]:
    """Move weights into one tensor, and give each a gradient in another; adapters have matrices only."""
    lengths = [-(-weight.numel() // ALIGNMENT) * ALIGNMENT for weight in weights]
    flat = take(name, sum(lengths))
    grad = torch.zeros_like(flat)
    start = 0
    for weight, length in zip(weights, lengths, strict=True):
        place = slice(start, start + weight.numel())
        if not weight.is_meta:
            flat[place].copy_(weight.data.flatten())
        point_at(weight, flat[place].view_as(weight))
        weight.grad = grad[place].view_as(weight)
        start += length
    return flat, grad


def point_at(weight: nn.Parameter, place: Tensor) -> None:
    """Move a weight to another tensor; one that has no memory yet takes the content found there.

    Args:
        weight: Of a module.
        place: Shape as the weight.
    """
    if weight.is_meta and not place.is_meta:
        new = nn.Parameter(place, requires_grad=weight.requires_grad)
        torch.utils.swap_tensors(weight, new)  # type: ignore[no-untyped-call]
    else:
        weight.data = place
