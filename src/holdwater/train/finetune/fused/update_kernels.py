"""AdamW on flat weights as one Triton kernel, which also writes the copies that the products read.

Source of the update: Loshchilov and Hutter (2019), "Decoupled Weight Decay Regularization".
"""

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from holdwater.train.flat import EPSILON, FlatAdamW, FlatWeights

BLOCK = 4096
"""Elements that a program updates."""


@triton.jit
def _adamw(
    weights, grads, first, second, places, rate, steps, scale, skipped, beta1, beta2, log1, log2, epsilon, decay,
    BLOCK: tl.constexpr, SKIPS: tl.constexpr,
):  # fmt: skip
    entry = places + tl.program_id(0) * 3
    at = tl.arange(0, BLOCK)
    there = at < tl.multiple_of(tl.load(entry + 1), 16)
    place = tl.multiple_of(tl.load(entry), 16) + at
    copy = tl.multiple_of(tl.load(entry + 2), 16).to(tl.pointer_type(tl.bfloat16))
    step, speed = tl.load(steps), tl.load(rate)
    grad = tl.load(grads + place, there, 0.0) / tl.load(scale)
    mean = tl.load(first + place, there, 0.0)
    mean += (1 - beta1) * (grad - mean)
    spread = tl.load(second + place, there, 0.0) * beta2 + (1 - beta2) * grad * grad
    root = tl.sqrt(spread) / tl.sqrt(1 - tl.exp(step * log2)) + epsilon
    weight = tl.load(weights + place, there, 0.0) * (1 - speed * decay)
    weight -= speed / (1 - tl.exp(step * log1)) * (mean / root)
    if SKIPS:
        there = there & (tl.load(skipped) == 0)
    tl.store(first + place, mean, there)
    tl.store(second + place, spread, there)
    tl.store(weights + place, weight, there)
    tl.store(copy + at, weight.to(tl.bfloat16), there)


class FlatUpdate:
    """Updates flat weights and their copies."""

    def __init__(
        self, weights: FlatWeights, optimizer: FlatAdamW, copies: Sequence[tuple[Tensor, Tensor]]
    ) -> None:
        """Note where everything lies.

        Args:
            weights: What is trained: matrices only, all of them copied somewhere.
            optimizer: Holds the moments.
            copies: Each copy in bfloat16, and what it is a copy of; sizes are multiples of 16 elements.
        """
        self._weights, self._optimizer = weights, optimizer
        self._places = _places(weights.decayed, copies).to(weights.decayed.device)

    @torch.no_grad()
    def __call__(self, rate: Tensor, loss: Tensor, *, largest_norm: float) -> None:
        """Update once.

        Args:
            rate: The learning rate. Shape ().
            loss: Of the step; read only where steps that are not finite are skipped. Shape ().
            largest_norm: The gradients are scaled down to this norm where theirs is larger.
        """
        weights, optimizer = self._weights, self._optimizer
        beta1, beta2 = optimizer.betas
        norm = torch.linalg.vector_norm(weights.decayed_grad)
        skipped = optimizer.count_step(norm, loss)
        scale = (norm / largest_norm).clamp_(min=1.0)
        _adamw[(len(self._places),)](
            weights.decayed, weights.decayed_grad, optimizer.first[0], optimizer.second[0], self._places, rate,
            optimizer.steps, scale, scale if skipped is None else skipped, beta1, beta2, math.log(beta1),
            math.log(beta2), EPSILON, optimizer.decay, BLOCK=BLOCK, SKIPS=skipped is not None, num_warps=16,
        )  # fmt: skip


def _places(flat: Tensor, copies: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """For each program: where its elements begin in the flat weights, how many, and where their copy lies.

    Shape (programs, 3), int64.
    """
    places = []
    for copy, master in copies:
        at, size = torch.arange(0, master.numel(), BLOCK), master.numel()
        begin = (master.data_ptr() - flat.data_ptr()) // flat.itemsize
        places.append(
            torch.stack([begin + at, (size - at).clamp(max=BLOCK), copy.data_ptr() + at * copy.itemsize])
        )
    return torch.cat(places, dim=1).T.contiguous()
