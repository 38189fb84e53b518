"""A GPT's loss and gradients on a CPU, fused: no autograd graph, and no memory allocated for wide tensors.

On a CPU a small model's step is mostly overhead: autograd's bookkeeping, and pages that the allocator
gives back and takes again. Here every matrix product adds straight into the gradients' own memory, and the
wide activations live in buffers that are kept from step to step. The results are those of the model
itself up to rounding (tests compare them).
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from holdwater.train.pretrain.model import GPT, Block

_ops = torch.ops.aten


@dataclass(frozen=True, slots=True)
class _Linear:
    """A linear layer, with the gradients that were laid out for it."""

    weight: Tensor
    bias: Tensor
    weight_grad: Tensor
    bias_grad: Tensor

    @classmethod
    def of(cls, layer: nn.Linear | nn.LayerNorm) -> Self:
        """Take the tensors out of a module."""
        assert layer.weight.grad is not None  # noqa: S101 - FlatWeights laid them out
        assert layer.bias.grad is not None  # noqa: S101
        return cls(layer.weight.detach(), layer.bias.detach(), layer.weight.grad, layer.bias.grad)

    def forward(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """Map rows to rows."""
        return torch.addmm(self.bias, rows, self.weight.t(), out=out)

    def backward(self, entered: Tensor, grad: Tensor, out: Tensor | None = None) -> Tensor:
        """Add to the layer's gradients; return that of its input."""
        self.weight_grad.addmm_(grad.t(), entered)
        self.bias_grad.add_(grad.sum(0))
        return torch.mm(grad, self.weight, out=out)


@dataclass(frozen=True, slots=True)
class _Norm(_Linear):
    """A layer norm, with the gradients that were laid out for it."""

    def normalise(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the normalised rows, their means and their reciprocal deviations."""
        return torch.native_layer_norm(rows, self.weight.shape, self.weight, self.bias, 1e-5)

    def norm_backward(self, grad: Tensor, rows: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
        """Add to the norm's gradients; return that of its input."""
        into, weight_grad, bias_grad = _ops.native_layer_norm_backward(
            grad, rows, self.weight.shape, mean, rstd, self.weight, self.bias, [True, True, True]
        )
        self.weight_grad.add_(weight_grad)
        self.bias_grad.add_(bias_grad)
        return into  # type: ignore[no-any-return] # the table of operations has no types


class _FusedBlock:
    """One block, forward and backward, for one shape of input. Rows are (batch × time)."""

    def __init__(self, block: Block, batch: int, time: int) -> None:
        self._norm_1, self._norm_2 = _Norm.of(block.norm_1), _Norm.of(block.norm_2)
        self._qkv, self._project = _Linear.of(block.qkv), _Linear.of(block.project)
        self._up, self._down = _Linear.of(block.up), _Linear.of(block.down)
        width = block.project.in_features
        make = block.qkv.weight.new_empty
        self._shape = (batch, time, block.heads, width // block.heads)
        self._qkv_out, self._qkv_grad = make(batch * time, 3 * width), make(batch * time, 3 * width)
        self._before, self._active = make(batch * time, 4 * width), make(batch * time, 4 * width)
        self._wide_grad = make(batch * time, 4 * width)
        self._heads = self._by_head(self._qkv_out)
        self._head_grads = self._by_head(self._qkv_grad)
        self._kept: tuple[Tensor, ...] = ()

    def forward(self, rows: Tensor) -> Tensor:
        """Map rows to rows, and keep what the backward pass needs."""
        normed_1, mean_1, rstd_1 = self._norm_1.normalise(rows)
        self._qkv.forward(normed_1, out=self._qkv_out)
        seen, weights = _ops._scaled_dot_product_flash_attention_for_cpu(*self._heads, 0.0, True)  # noqa: FBT003, SLF001
        mixed = seen.transpose(1, 2).reshape(rows.shape)
        middle = self._project.forward(mixed).add_(rows)
        normed_2, mean_2, rstd_2 = self._norm_2.normalise(middle)
        self._up.forward(normed_2, out=self._before)
        _ops.gelu.out(self._before, out=self._active)
        self._kept = (rows, normed_1, mean_1, rstd_1, seen, weights, mixed, middle, normed_2, mean_2, rstd_2)
        return self._down.forward(self._active).add_(middle)

    def backward(self, grad: Tensor) -> Tensor:
        """Add to the gradients of the block's weights; return that of its input."""
        rows, normed_1, mean_1, rstd_1, seen, weights, mixed, middle, normed_2, mean_2, rstd_2 = self._kept
        wide = self._down.backward(self._active, grad, out=self._wide_grad)
        _ops.gelu_backward.grad_input(wide, self._before, grad_input=wide)
        inner = self._up.backward(normed_2, wide)
        grad = self._norm_2.norm_backward(inner, middle, mean_2, rstd_2).add_(grad)
        inner = self._project.backward(mixed, grad)
        parts = _ops._scaled_dot_product_flash_attention_for_cpu_backward(  # noqa: SLF001
            inner.view(self._shape).transpose(1, 2),
            *self._heads,
            seen,
            weights,
            0.0,
            True,  # noqa: FBT003
        )
        for target, part in zip(self._head_grads, parts, strict=True):
            target.copy_(part)
        inner = self._qkv.backward(normed_1, self._qkv_grad)
        self._kept = ()
        return self._norm_1.norm_backward(inner, rows, mean_1, rstd_1).add_(grad)

    def _by_head(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Views of query, key and value. Shapes: (rows, 3 × width) in, (batch, heads, time, depth) out."""
        batch, time, heads, depth = self._shape
        query, key, value = qkv.view(batch, time, 3, heads, depth).permute(2, 0, 3, 1, 4)
        return query, key, value


class FusedStep:
    """Loss and gradients of a GPT whose weights and gradients were laid out flat."""

    def __init__(self, model: GPT, *, batch: int, time: int) -> None:
        """Make the buffers.

        Args:
            model: On the CPU, after `FlatWeights.of(model)`.
            batch: Sequences in a micro-batch.
            time: Tokens in a sequence.
        """
        embedding = model.embedding.weight
        assert embedding.grad is not None  # noqa: S101 - FlatWeights laid it out
        self._embedding, self._embedding_grad = embedding.detach(), embedding.grad
        self._positions = model.positions[:time]
        self._blocks = [_FusedBlock(block, batch, time) for block in model.blocks if isinstance(block, Block)]
        self._norm = _Norm.of(model.norm)
        self._shape = (batch, time, embedding.shape[1])
        self._logits = embedding.new_empty(batch * time, embedding.shape[0])
        self._minus_one = embedding.new_full((batch * time, 1), -1.0)

    @torch.no_grad()
    def propagate(self, tokens: Tensor, targets: Tensor, *, share: float = 1.0) -> Tensor:
        """Add the gradient of a batch to the model's gradients.

        Args:
            tokens: Shape (batch, time).
            targets: Shape (batch, time).
            share: What the gradient is multiplied by, such as 1 / micro-batches.

        Returns:
            The mean cross-entropy in nats, not multiplied. Shape ().
        """
        flat, target = tokens.flatten(), targets.reshape(-1, 1)
        rows = self._embedding.index_select(0, flat)
        rows.view(self._shape).add_(self._positions)
        for block in self._blocks:
            rows = block.forward(rows)
        normed, mean, rstd = self._norm.normalise(rows)
        torch.mm(normed, self._embedding.t(), out=self._logits)
        log_probs = torch.log_softmax(self._logits, -1)
        loss = log_probs.gather(1, target).mean().neg_()
        grad_logits = log_probs.exp_().scatter_add_(1, target, self._minus_one).mul_(share / len(flat))
        self._embedding_grad.addmm_(grad_logits.t(), normed)
        grad = self._norm.norm_backward(torch.mm(grad_logits, self._embedding), rows, mean, rstd)
        for block in reversed(self._blocks):
            grad = block.backward(grad)
        self._embedding_grad.index_add_(0, flat, grad)
        return loss
