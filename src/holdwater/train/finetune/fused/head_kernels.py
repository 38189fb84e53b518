"""Norms of single heads of queries and keys, as Triton kernels: one program takes some heads of a token."""

import triton
import triton.language as tl
from torch import Tensor

GROUP = 16
"""That a program takes; all heads of a token together would need more registers than there are."""


@triton.jit
def _place(WIDTH: tl.constexpr, HEADS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    head, at = tl.program_id(1) * HEADS + tl.arange(0, HEADS)[:, None], tl.arange(0, WIDTH)[None, :]
    return row, head, at, head * WIDTH + at


@triton.jit
def _normed(value, head, at, queries, keys, epsilon, heads, WIDTH: tl.constexpr):
    wide = value.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 1) / WIDTH + epsilon)[:, None]
    gain = tl.where(head < heads, tl.load(queries + at), tl.load(keys + at)).to(tl.float32)
    return wide * scale, scale, gain


@triton.jit
def _norm_heads(
    rows, stride, queries, keys, epsilon, out, heads, qk_heads, used, WIDTH: tl.constexpr, HEADS: tl.constexpr
):
    row, head, at, near = _place(WIDTH, HEADS)
    there = (head < used) & (at < WIDTH)
    value = tl.load(rows + row * stride + near, there, 0.0)
    unit, _, gain = _normed(value, head, at, queries, keys, epsilon, heads, WIDTH)
    made = (unit.to(value.dtype).to(tl.float32) * gain).to(value.dtype)
    tl.store(out + row * used * WIDTH + near, tl.where(head < qk_heads, made, value), there)


def norm_heads(
    rows: Tensor, gains: tuple[Tensor, Tensor], heads: tuple[int, int], epsilon: float, out: Tensor
) -> None:
    """As in `plain_kernels`."""
    qk_heads = sum(heads)
    used = qk_heads + heads[1]
    _norm_heads[(len(rows), triton.cdiv(used, GROUP))](
        rows, rows.stride(0), *gains, epsilon, out, heads[0], qk_heads, used,
        WIDTH=len(gains[0]), HEADS=GROUP, num_warps=4,
    )  # fmt: skip


@triton.jit
def _norm_heads_backward(
    grad_out, rows, stride, queries, keys, epsilon, heads, qk_heads, used, WIDTH: tl.constexpr, HEADS: tl.constexpr
):
    row, head, at, near = _place(WIDTH, HEADS)
    there = (head < used) & (at < WIDTH)
    grad = tl.load(grad_out + row * used * WIDTH + near, there, 0.0)
    value = tl.load(rows + row * stride + near, there, 0.0)
    unit, scale, gain = _normed(value, head, at, queries, keys, epsilon, heads, WIDTH)
    scaled = grad.to(tl.float32) * gain
    result = scale * (scaled - unit * (tl.sum(scaled * unit, 1) / WIDTH)[:, None])
    tl.store(rows + row * stride + near, tl.where(head < qk_heads, result.to(grad.dtype), grad), there)


def norm_heads_backward(
    grad: Tensor, rows: Tensor, gains: tuple[Tensor, Tensor], heads: tuple[int, int], epsilon: float
) -> None:
    """As in `plain_kernels`."""
    qk_heads = sum(heads)
    used = qk_heads + heads[1]
    _norm_heads_backward[(len(rows), triton.cdiv(used, GROUP))](
        grad, rows, rows.stride(0), *gains, epsilon, heads[0], qk_heads, used,
        WIDTH=len(gains[0]), HEADS=GROUP, num_warps=4,
    )  # fmt: skip
