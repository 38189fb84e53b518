"""What lies between the matrix products of a decoder, as Triton kernels: one pass over the data each.

Each function does what its namesake in `plain_kernels` does, and is compared with it in the tests. Nothing is
added up in an order that may change, so results are the same to the bit from run to run.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from holdwater.train.finetune.fused import adapter_kernels
from holdwater.train.finetune.fused.adapter_kernels import adds_to_gates
from holdwater.train.finetune.fused.attention_kernels import attend, attend_backward
from holdwater.train.finetune.fused.head_kernels import norm_heads, norm_heads_backward
from holdwater.train.finetune.fused.lora_b_kernels import TOGETHER, chunk_of, lora_b_backward
from holdwater.train.finetune.fused.plain_kernels import LoraB
from holdwater.train.finetune.losses import IGNORED

__all__ = [
    "TOGETHER", "add_dropped", "adds_to_gates", "attend", "attend_backward", "chunk_of", "cross_entropy", "drop",
    "gate", "gate_backward", "lora_b_backward", "norm", "norm_backward", "norm_heads", "norm_heads_backward",
    "rotate", "rotate_backward",
]  # fmt: skip


@triton.jit
def _norm(
    rows, delta, delta_stride, weight, epsilon, total, normed, rstd, small, small_stride, width, rank,
    HAS: tl.constexpr, RANK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    there = at < width
    value = tl.load(rows + row * width + at, there, 0.0)
    if HAS:
        change = tl.load(delta + row * delta_stride + at, there, 0.0)
        value = (value.to(tl.float32) + change.to(tl.float32)).to(value.dtype)
        tl.store(total + row * width + at, value, there)
    if RANK:
        few = tl.arange(0, RANK)
        given = tl.load(delta + row * delta_stride + width + few, few < rank, 0.0)
        tl.store(small + row * small_stride + few, given, few < rank)
    wide = value.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 0) / width + epsilon)
    tl.store(rstd + row, scale)
    unit = (wide * scale).to(value.dtype).to(tl.float32)
    gain = tl.load(weight + at, there, 0.0).to(tl.float32)
    tl.store(normed + row * width + at, (unit * gain).to(value.dtype), there)


def norm(
    rows: Tensor,
    delta: Tensor | None,
    weight: Tensor,
    epsilon: float,
    total: Tensor,
    normed: Tensor,
    rstd: Tensor,
    small: Tensor | None = None,
) -> None:
    """As in `plain_kernels`."""
    width, rank = rows.shape[1], 0 if small is None else small.shape[1]
    other, few = rows if delta is None else delta, rows if small is None else small
    _norm[(len(rows),)](
        rows, other, other.stride(0), weight, epsilon, total, normed, rstd, few, few.stride(0), width, rank,
        HAS=delta is not None, RANK=triton.next_power_of_2(rank) if rank else 0,
        BLOCK=triton.next_power_of_2(width), num_warps=_warps(width),
    )  # fmt: skip


@triton.jit
def _norm_backward(
    grad, rows, weight, rstd, into, into_stride, normed, width, ADD: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    there = at < width
    value = tl.load(rows + row * width + at, there, 0.0)
    gain = tl.load(weight + at, there, 0.0).to(tl.float32)
    scale = tl.load(rstd + row)
    unit = value.to(tl.float32) * scale
    scaled = tl.load(grad + row * width + at, there, 0.0).to(tl.float32) * gain
    result = scale * (scaled - unit * (tl.sum(scaled * unit, 0) / width))
    if ADD:
        result += tl.load(into + row * into_stride + at, there, 0.0).to(tl.float32)
    tl.store(into + row * into_stride + at, result.to(value.dtype), there)
    again = unit.to(value.dtype).to(tl.float32) * gain
    tl.store(normed + row * width + at, again.to(value.dtype), there)


def norm_backward(
    grad: Tensor, rows: Tensor, weight: Tensor, rstd: Tensor, into: Tensor, normed: Tensor, *, add: bool
) -> None:
    """As in `plain_kernels`."""
    width = rows.shape[1]
    _norm_backward[(len(rows),)](
        grad, rows, weight, rstd, into, into.stride(0), normed, width,
        ADD=add, BLOCK=triton.next_power_of_2(width), num_warps=_warps(width),
    )  # fmt: skip


@triton.jit
def _rotate(
    rows,
    stride,
    bias,
    tables,
    length,
    begins,
    heads,
    qk_heads,
    HALF: tl.constexpr,
    HEADS: tl.constexpr,
    BIAS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    place = row - tl.load(begins + row).to(tl.int64)
    head, at = tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)[None, :]
    rotates = head < qk_heads
    there = (head < heads) & (at < HALF)
    cosine = tl.load(tables + place * HALF + at).to(tl.float32)
    sine = tl.load(tables + length * HALF + place * HALF + at).to(tl.float32)
    near = head * 2 * HALF + at
    first = tl.load(rows + row * stride + near, there, 0.0)
    second = tl.load(rows + row * stride + near + HALF, there, 0.0)
    dtype = first.dtype
    first, second = first.to(tl.float32), second.to(tl.float32)
    if BIAS:
        first = (first + tl.load(bias + near, there, 0.0).to(tl.float32)).to(dtype).to(tl.float32)
        second = (second + tl.load(bias + near + HALF, there, 0.0).to(tl.float32)).to(dtype).to(tl.float32)
    left = tl.where(rotates, first * cosine - second * sine, first)
    right = tl.where(rotates, second * cosine + first * sine, second)
    tl.store(rows + row * stride + near, left.to(dtype), there)
    tl.store(rows + row * stride + near + HALF, right.to(dtype), there)


def rotate(
    rows: Tensor,
    bias: Tensor | None,
    heads: tuple[int, int],
    tables: Tensor,
    begins: Tensor,
    lora_b: LoraB | None = None,
) -> None:
    """As in `plain_kernels`."""
    if lora_b is not None:
        adapter_kernels.rotate(rows, bias, heads, tables, begins, lora_b)
        return
    qk_heads = sum(heads)
    used = qk_heads if bias is None else qk_heads + heads[1]
    _rotate[(len(rows),)](
        rows, rows.stride(0), rows if bias is None else bias, tables, tables.shape[1], begins, used, qk_heads,
        HALF=tables.shape[2], HEADS=triton.next_power_of_2(used), BIAS=bias is not None, num_warps=4,
    )  # fmt: skip


@triton.jit
def _rotate_backward(
    queries, keys, values, tables, length, begins, into, stride, heads, kv_heads, group,
    HALF: tl.constexpr, HEADS: tl.constexpr, KV_HEADS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    place = row - tl.load(begins + row).to(tl.int64)
    at = tl.arange(0, HALF)[None, :]
    cosine = tl.load(tables + place * HALF + at).to(tl.float32)
    sine = tl.load(tables + length * HALF + place * HALF + at).to(tl.float32)
    head = tl.arange(0, HEADS)[:, None]
    query = (row * heads + head) * 2 * HALF + at
    first = tl.load(queries + query, head < heads, 0.0).to(tl.float32)
    second = tl.load(queries + query + HALF, head < heads, 0.0).to(tl.float32)
    near = into + row * stride + head * 2 * HALF + at
    tl.store(near, (first * cosine + second * sine).to(into.dtype.element_ty), head < heads)
    tl.store(near + HALF, (second * cosine - first * sine).to(into.dtype.element_ty), head < heads)
    head = tl.arange(0, KV_HEADS)[:, None]
    first = tl.zeros((KV_HEADS, HALF), tl.float32)
    second, left, right = first, first, first
    for one in range(group):
        each = (row * heads + head * group + one) * 2 * HALF + at
        first += tl.load(keys + each, head < kv_heads, 0.0).to(tl.float32)
        second += tl.load(keys + each + HALF, head < kv_heads, 0.0).to(tl.float32)
        left += tl.load(values + each, head < kv_heads, 0.0).to(tl.float32)
        right += tl.load(values + each + HALF, head < kv_heads, 0.0).to(tl.float32)
    near = into + row * stride + (heads + head) * 2 * HALF + at
    tl.store(near, (first * cosine + second * sine).to(into.dtype.element_ty), head < kv_heads)
    tl.store(near + HALF, (second * cosine - first * sine).to(into.dtype.element_ty), head < kv_heads)
    near += kv_heads * 2 * HALF
    tl.store(near, left.to(into.dtype.element_ty), head < kv_heads)
    tl.store(near + HALF, right.to(into.dtype.element_ty), head < kv_heads)


def rotate_backward(
    grads: tuple[Tensor, Tensor, Tensor], heads: tuple[int, int], tables: Tensor, begins: Tensor, into: Tensor
) -> None:
    """As in `plain_kernels`."""
    _rotate_backward[(len(into),)](
        *grads, tables, tables.shape[1], begins, into, into.stride(0), *heads, heads[0] // heads[1],
        HALF=tables.shape[2], HEADS=triton.next_power_of_2(heads[0]), KV_HEADS=triton.next_power_of_2(heads[1]),
        num_warps=4,
    )  # fmt: skip


@triton.jit
def _gate(pairs, stride, out, inner, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = at < inner
    gates = tl.load(pairs + row * stride + at, there, 0.0)
    values = tl.load(pairs + row * stride + inner + at, there, 0.0).to(tl.float32)
    wide = gates.to(tl.float32)
    opened = (wide * tl.sigmoid(wide)).to(gates.dtype).to(tl.float32)
    tl.store(out + row * inner + at, (opened * values).to(gates.dtype), there)


def gate(pairs: Tensor, out: Tensor, lora_b: LoraB | None = None) -> None:
    """As in `plain_kernels`."""
    if lora_b is not None:
        adapter_kernels.gate(pairs, out, lora_b)
        return
    inner = out.shape[1]
    grid = (len(pairs), triton.cdiv(inner, GATE_BLOCK))
    _gate[grid](pairs, pairs.stride(0), out, inner, BLOCK=GATE_BLOCK, num_warps=4)


@triton.jit
def _gate_backward(grad, pairs, stride, inner, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = at < inner
    left, right = pairs + row * stride + at, pairs + row * stride + inner + at
    gates = tl.load(left, there, 0.0)
    values = tl.load(right, there, 0.0).to(tl.float32)
    grad_out = tl.load(grad + row * inner + at, there, 0.0).to(tl.float32)
    wide = gates.to(tl.float32)
    sigmoid = tl.sigmoid(wide)
    opened = (wide * sigmoid).to(gates.dtype).to(tl.float32)
    tl.store(grad + row * inner + at, (opened * values).to(gates.dtype), there)
    tl.store(left, (grad_out * values * sigmoid * (1 + wide * (1 - sigmoid))).to(gates.dtype), there)
    tl.store(right, (grad_out * opened).to(gates.dtype), there)


def gate_backward(grad: Tensor, pairs: Tensor) -> None:
    """As in `plain_kernels`."""
    inner = grad.shape[1]
    grid = (len(pairs), triton.cdiv(inner, GATE_BLOCK))
    _gate_backward[grid](grad, pairs, pairs.stride(0), inner, BLOCK=GATE_BLOCK, num_warps=4)


@triton.jit
def _cross_entropy(
    logits, targets, weights, losses, vocabulary, IGNORED_TARGET: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(targets + row)
    weight = tl.where(target == IGNORED_TARGET, 0.0, tl.load(weights + row))
    begin = logits + row * vocabulary
    at = tl.arange(0, BLOCK)
    most = tl.full((BLOCK,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, vocabulary, BLOCK):
        value = tl.load(begin + start + at, start + at < vocabulary, -float("inf")).to(tl.float32)
        higher = tl.maximum(most, value)
        safe = tl.where(higher == -float("inf"), 0.0, higher)
        total = total * tl.exp(most - safe) + tl.exp(value - safe)
        most = higher
    peak = tl.max(most, 0)
    lse = peak + tl.log(tl.sum(total * tl.exp(most - peak), 0))
    chosen = tl.load(begin + tl.maximum(target, 0)).to(tl.float32)
    tl.store(losses + row, tl.where(target == IGNORED_TARGET, 0.0, (lse - chosen) * weight))
    tl.debug_barrier()  # the chosen logit is read before its place is written
    for start in range(0, vocabulary, BLOCK):
        there = start + at < vocabulary
        value = tl.load(begin + start + at, there, 0.0)
        prob = tl.exp(value.to(tl.float32) - lse) - tl.where(start + at == target, 1.0, 0.0)
        tl.store(begin + start + at, (prob * weight).to(value.dtype), there)


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor, losses: Tensor) -> None:
    """As in `plain_kernels`."""
    _cross_entropy[(len(logits),)](
        logits, targets, weights, losses, logits.shape[1], IGNORED_TARGET=IGNORED, BLOCK=4096, num_warps=8
    )


@triton.jit
def _drop(rows, share, seed, salt, into, width, ADD: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = at < width
    key = tl.load(seed) * 1_000_003 + salt
    random = tl.rand(key, row * width + at)
    value = tl.load(rows + row * width + at, there, 0.0)
    kept = tl.where(random >= share, value.to(tl.float32) / (1 - share), 0.0)
    if ADD:
        kept += tl.load(into + row * width + at, there, 0.0).to(tl.float32)
    tl.store(into + row * width + at, kept.to(value.dtype), there)


def drop(rows: Tensor, share: float, seed: Tensor, salt: int, out: Tensor) -> None:
    """As in `plain_kernels`, with other random numbers."""
    _launch_drop(rows, share, seed, salt, out, add=False)


def add_dropped(rows: Tensor, share: float, seed: Tensor, salt: int, into: Tensor) -> None:
    """As in `plain_kernels`, with other random numbers."""
    _launch_drop(rows, share, seed, salt, into, add=True)


def _launch_drop(rows: Tensor, share: float, seed: Tensor, salt: int, into: Tensor, *, add: bool) -> None:
    grid: Any = (len(rows), triton.cdiv(rows.shape[1], GATE_BLOCK))
    _drop[grid](rows, share, seed, salt, into, rows.shape[1], ADD=add, BLOCK=GATE_BLOCK, num_warps=4)


GATE_BLOCK = 1024
"""Elements of a row that one program of the gate takes."""


def _warps(width: int) -> int:
    """Warps for a program that takes a whole row."""
    return int(min(max(triton.next_power_of_2(width) // 512, 1), 16))
