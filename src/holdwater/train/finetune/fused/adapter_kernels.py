"""Second matrices of adapters, added where their sum is used next."""

import triton
import triton.language as tl
from torch import Tensor

from holdwater.train.finetune.fused.plain_kernels import LoraB

ROWS = 64
"""Tokens that a program takes at once."""
MANY = 2048
"""Tokens from which on the gate adds adapters faster than products do."""
COLUMNS = 64
"""Columns that a program of the gate takes: 0.40 ms for 8,192 tokens of an 8B at rank 16, where 128 columns and
eight blocks of tokens take 0.56."""
WIDEST = 128
"""The largest rank whose tiles fit into the shared memory of any device, 99 KB."""


@triton.jit
def _small(rows, stride, column, at, tokens, lora_b, own, inner, rank, RANK: tl.constexpr):
    each = tl.arange(0, RANK)
    few = each < rank
    small = tl.load(
        rows + at[:, None].to(tl.int64) * stride + column + each[None, :],
        (at < tokens)[:, None] & few[None, :],
        0.0,
    )
    tile = tl.load(lora_b + own[:, None] * rank + each[None, :], (own < inner)[:, None] & few[None, :], 0.0)
    return tl.dot(small, tl.trans(tile))


@triton.jit
def _gate(
    pairs, stride, out, tokens, inner, b_gate, b_up, rank, scale, RANK: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    own, each = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS), tl.arange(0, RANK)
    near, few = own < inner, (each < rank)[None, :]
    gate_tile = tl.load(b_gate + own[:, None] * rank + each[None, :], near[:, None] & few, 0.0)
    up_tile = tl.load(b_up + own[:, None] * rank + each[None, :], near[:, None] & few, 0.0)
    dtype = out.dtype.element_ty
    at = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    row, known = at[:, None].to(tl.int64), (at < tokens)[:, None]
    there, left = known & near[None, :], pairs + row * stride + own[None, :]
    small = pairs + row * stride + 2 * inner + each[None, :]
    gates = tl.load(left, there, 0.0).to(tl.float32)
    gates += scale * tl.dot(tl.load(small, known & few, 0.0), tl.trans(gate_tile))
    values = tl.load(left + inner, there, 0.0).to(tl.float32)
    values += scale * tl.dot(tl.load(small + rank, known & few, 0.0), tl.trans(up_tile))
    gates, values = gates.to(dtype), values.to(dtype)
    tl.store(left, gates, there)
    tl.store(left + inner, values, there)
    wide = gates.to(tl.float32)
    opened = (wide * tl.sigmoid(wide)).to(dtype).to(tl.float32)
    tl.store(out + row * inner + own[None, :], (opened * values.to(tl.float32)).to(dtype), there)


def adds_to_gates(tokens: int, lora_b: LoraB | None) -> bool:
    """Whether `gate` is to add the adapters: there are some, it can, and it does so faster than products.

    Args:
        tokens: In a micro-batch.
        lora_b: As for `gate`; None where not all of the layers have adapters, or of several ranks.
    """
    return lora_b is not None and tokens >= MANY and lora_b[0][0].shape[1] <= WIDEST


def gate(pairs: Tensor, out: Tensor, lora_b: LoraB) -> None:
    """Add the adapters to gates and values, in place, and multiply SiLU of the gates by the values.

    Args:
        pairs: Gates, values, and what the A matrices gave. Shape (tokens, 2 * inner + 2 * rank).
        out: Gets the products. Shape (tokens, inner).
        lora_b: The B matrices, of the gates and of the values, and their scale. Shape (inner, rank) each.
    """
    tokens, inner = out.shape
    matrices, scale = lora_b
    rank = matrices[0].shape[1]
    _gate[(triton.cdiv(inner, COLUMNS), triton.cdiv(tokens, ROWS))](
        pairs, pairs.stride(0), out, tokens, inner, *matrices, rank, scale,
        RANK=padded(rank), ROWS=ROWS, COLUMNS=COLUMNS, num_warps=4, num_stages=2,
    )  # fmt: skip


@triton.jit
def _rotate(
    rows, stride, bias, tables, length, begins, tokens, heads, kv_heads, query, key, value, rank, scale,
    HALF: tl.constexpr, RANK: tl.constexpr, ROWS: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    head = tl.program_id(0)
    there = (at < tokens)[:, None]
    column = tl.arange(0, HALF)
    row = at[:, None].to(tl.int64)
    is_query, is_key = head < heads, head < heads + kv_heads
    part = tl.where(is_query, 0, tl.where(is_key, 1, 2))
    own = head - tl.where(is_query, 0, tl.where(is_key, heads, heads + kv_heads))
    lora_b = query
    if part == 1:
        lora_b = key
    if part == 2:
        lora_b = value
    most = tl.where(is_query, heads, kv_heads) * 2 * HALF
    small = (heads + 2 * kv_heads) * 2 * HALF + part * rank
    left = rows + row * stride + head * 2 * HALF + column[None, :]
    first = tl.load(left, there, 0.0).to(tl.float32)
    other = tl.load(left + HALF, there, 0.0).to(tl.float32)
    near = own * 2 * HALF + column
    first += scale * _small(rows, stride, small, at, tokens, lora_b, near, most, rank, RANK)
    other += scale * _small(rows, stride, small, at, tokens, lora_b, near + HALF, most, rank, RANK)
    if BIAS:
        first += tl.load(bias + head * 2 * HALF + column)[None, :].to(tl.float32)
        other += tl.load(bias + head * 2 * HALF + HALF + column)[None, :].to(tl.float32)
    element = rows.dtype.element_ty
    first, other = first.to(element).to(tl.float32), other.to(element).to(tl.float32)
    if is_key:
        place = row - tl.load(begins + at, at < tokens, 0)[:, None]
        angle = tables + place * HALF + column[None, :]
        cosine = tl.load(angle, there, 0.0).to(tl.float32)
        sine = tl.load(angle + length * HALF, there, 0.0).to(tl.float32)
        tl.store(left, (first * cosine - other * sine).to(element), there)
        tl.store(left + HALF, (other * cosine + first * sine).to(element), there)
    else:
        tl.store(left, first.to(element), there)
        tl.store(left + HALF, other.to(element), there)


def rotate(
    rows: Tensor, bias: Tensor | None, heads: tuple[int, int], tables: Tensor, begins: Tensor, lora_b: LoraB
) -> None:
    """Add adapters and biases to queries, keys and values, and rotate queries and keys, in place.

    Args:
        rows: Queries, keys and values, then what the A matrices gave. Shape (tokens, widths + 3 * rank).
        bias: Shape (widths,); None where the model has none.
        heads: Of queries, and of keys.
        tables: Cosines and sines by position. Shape (2, positions, head_width / 2).
        begins: Where the example of each token begins. Shape (tokens,).
        lora_b: The B matrices of queries, keys and values, and their scale. Shape (width, rank) each.
    """
    matrices, scale = lora_b
    tokens, rank = len(rows), matrices[0].shape[1]
    _rotate[(heads[0] + 2 * heads[1], triton.cdiv(tokens, ROWS))](
        rows, rows.stride(0), rows if bias is None else bias, tables, tables.shape[1], begins, tokens, *heads,
        *matrices, rank, scale, HALF=tables.shape[2], RANK=padded(rank), ROWS=ROWS, BIAS=bias is not None,
        num_warps=4,
    )  # fmt: skip


def padded(rank: int) -> int:
    """The rank, as a product of tiles needs it."""
    return max(int(triton.next_power_of_2(rank)), 16)
