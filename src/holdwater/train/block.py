"""A transformer block, plain, and with its backward pass written out for training on a CPU.

On a CPU a small model's step is mostly overhead: autograd's bookkeeping, and pages that the allocator
gives back and takes again. Written out, the matrix products add straight into the gradients' own memory,
and the wide activations live in buffers that are kept from step to step. The results are those of the
plain block up to rounding (a test compares them).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_ops = torch.ops.aten


class Block(nn.Module):
    """Attention and a feed-forward layer, each added to what comes in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map hidden states to hidden states. Shapes: (batch, time, width)."""
        if can_be_written_out(x, self.qkv.weight):
            return BlockStep.run(x, self)
        batch, time, width = x.shape
        qkv = self.qkv(self.norm_1(x)).view(batch, time, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.project(seen.transpose(1, 2).reshape(batch, time, width))
        out: Tensor = x + self.down(functional.gelu(self.up(self.norm_2(x))))
        return out


def can_be_written_out(x: Tensor, weight: Tensor) -> bool:
    """Whether the written-out pass applies: a training step on a CPU, with gradients laid out beforehand."""
    return x.device.type == "cpu" and torch.is_grad_enabled() and weight.grad is not None


class _Buffers:
    """Memory of one block for one shape of input, kept from step to step.

    It holds what one forward pass left for its backward pass: a second forward pass before that would
    overwrite it, so each loss must be propagated back before the next is computed.
    """

    def __init__(self, rows: int, width: int, like: Tensor) -> None:
        self.qkv = like.new_empty(rows, 3 * width)
        self.qkv_grad = like.new_empty(rows, 3 * width)
        self.up = like.new_empty(rows, 4 * width)
        self.active = like.new_empty(rows, 4 * width)
        self.wide_grad = like.new_empty(rows, 4 * width)

    @classmethod
    def of(cls, block: "Block", x: Tensor) -> "_Buffers":
        """The block's buffers, made anew when the shape of the input changes."""
        rows, width = x.shape[0] * x.shape[1], x.shape[2]
        buffers = block.__dict__.get("_buffers_kept")
        if buffers is None or len(buffers.qkv) != rows:
            buffers = block.__dict__["_buffers_kept"] = cls(rows, width, x)
        return buffers


class BlockStep(torch.autograd.Function):
    """One block, forward and backward. Rows are (batch × time)."""

    @staticmethod
    def run(x: Tensor, block: "Block") -> Tensor:
        """Apply the block. Shapes: (batch, time, width)."""
        return BlockStep.apply(x, block)  # type: ignore[no-untyped-call, no-any-return]

    @staticmethod
    def forward(ctx: Any, x: Tensor, block: "Block") -> Tensor:  # noqa: ANN401 - torch's own context
        """Compute the block and keep what the backward pass needs."""
        batch, time, width = x.shape
        buffers = _Buffers.of(block, x)
        rows = x.view(-1, width)
        normed_1, mean_1, rstd_1 = _normalise(rows, block.norm_1)
        torch.addmm(block.qkv.bias, normed_1, block.qkv.weight.t(), out=buffers.qkv)
        query, key, value = _heads(buffers.qkv, block.heads, time)
        seen, weights = _ops._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, True)  # noqa: FBT003, SLF001
        mixed = seen.transpose(1, 2).reshape(-1, width)
        middle = torch.addmm(block.project.bias, mixed, block.project.weight.t()).add_(rows)
        normed_2, mean_2, rstd_2 = _normalise(middle, block.norm_2)
        torch.addmm(block.up.bias, normed_2, block.up.weight.t(), out=buffers.up)
        _ops.gelu.out(buffers.up, out=buffers.active)
        out = torch.addmm(block.down.bias, buffers.active, block.down.weight.t()).add_(middle)
        ctx.block, ctx.buffers, ctx.shape = block, buffers, (batch, time, width)
        ctx.save_for_backward(
            rows, normed_1, mean_1, rstd_1, seen, weights, mixed, middle, normed_2, mean_2, rstd_2
        )
        return out.view(batch, time, width)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - torch's own context
        """Add to the gradients of the block's weights; return that of its input."""
        block, buffers, (batch, time, width) = ctx.block, ctx.buffers, ctx.shape
        rows, normed_1, mean_1, rstd_1, seen, weights, mixed, middle, normed_2, mean_2, rstd_2 = ctx.saved_tensors
        grad = grads[0].reshape(-1, width)
        _linear_backward(block.down, buffers.active, grad, out=buffers.wide_grad)
        _ops.gelu_backward.grad_input(buffers.wide_grad, buffers.up, grad_input=buffers.wide_grad)
        inner = _linear_backward(block.up, normed_2, buffers.wide_grad)
        grad = _norm_backward(block.norm_2, inner, middle, mean_2, rstd_2).add_(grad)
        inner = _linear_backward(block.project, mixed, grad)
        by_head = inner.view(batch, time, block.heads, -1).transpose(1, 2)
        parts = _ops._scaled_dot_product_flash_attention_for_cpu_backward(  # noqa: SLF001
            by_head,
            *_heads(buffers.qkv, block.heads, time),
            seen,
            weights,
            0.0,
            True,  # noqa: FBT003
        )
        for target, part in zip(_heads(buffers.qkv_grad, block.heads, time), parts, strict=True):
            target.copy_(part)
        inner = _linear_backward(block.qkv, normed_1, buffers.qkv_grad)
        grad = _norm_backward(block.norm_1, inner, rows, mean_1, rstd_1).add_(grad)
        return grad.view(batch, time, width), None


def _heads(qkv: Tensor, heads: int, time: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views of query, key and value. Shapes: (rows, 3 × width) in, three of (batch, heads, time, depth) out."""
    query, key, value = qkv.view(-1, time, 3, heads, qkv.shape[1] // (3 * heads)).permute(2, 0, 3, 1, 4)
    return query, key, value


def _normalise(rows: Tensor, norm: torch.nn.LayerNorm) -> tuple[Tensor, Tensor, Tensor]:
    """Layer norm, with its mean and its reciprocal deviation."""
    return torch.native_layer_norm(rows, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _norm_backward(norm: torch.nn.LayerNorm, grad: Tensor, rows: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """Add to a layer norm's gradients; return that of its input."""
    into, weight_grad, bias_grad = _ops.native_layer_norm_backward(
        grad, rows, norm.normalized_shape, mean, rstd, norm.weight, norm.bias, [True, True, True]
    )
    norm.weight.grad.add_(weight_grad)  # type: ignore[union-attr] # laid out beforehand
    norm.bias.grad.add_(bias_grad)  # type: ignore[union-attr]
    return into  # type: ignore[no-any-return]


def _linear_backward(layer: torch.nn.Linear, entered: Tensor, grad: Tensor, out: Tensor | None = None) -> Tensor:
    """Add to a linear layer's gradients; return that of its input."""
    layer.weight.grad.addmm_(grad.t(), entered)  # type: ignore[union-attr] # laid out beforehand
    layer.bias.grad.add_(grad.sum(0))  # type: ignore[union-attr]
    return torch.mm(grad, layer.weight, out=out)
