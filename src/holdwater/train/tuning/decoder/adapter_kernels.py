"""Second matrices of adapters: added where their sum is used next, and the way back through them."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from holdwater.train.tuning.decoder.plain_kernels import Seconds

ROWS, COLUMNS = 64, 64
"""Tokens and columns of a program: the fastest of ten on an H200."""
FOLDED = (256, 512, 896, 1024, 2048, 4096)
"""Columns that one program of a sum takes: as few as there is room for."""
WIDEST = 128
"""The largest rank whose tiles fit into the shared memory of any device, 99 KB."""


@triton.jit
def _small(rows, stride, column, at, tokens, second, own, inner, rank, RANK: tl.constexpr):
    each = tl.arange(0, RANK)
    few = each < rank
    small = tl.load(
        rows + at[:, None].to(tl.int64) * stride + column + each[None, :],
        (at < tokens)[:, None] & few[None, :],
        0.0,
    )
    matrix = tl.load(second + own[:, None] * rank + each[None, :], (own < inner)[:, None] & few[None, :], 0.0)
    return tl.dot(small, tl.trans(matrix))


@triton.jit
def _gate(
    pairs, stride, out, tokens, inner, one, two, rank, scale, RANK: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    own = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    there = (at < tokens)[:, None] & (own < inner)[None, :]
    row = at[:, None].to(tl.int64)
    left = pairs + row * stride + own[None, :]
    gates = tl.load(left, there, 0.0).to(tl.float32)
    gates += scale * _small(pairs, stride, 2 * inner, at, tokens, one, own, inner, rank, RANK)
    values = tl.load(left + inner, there, 0.0).to(tl.float32)
    values += scale * _small(pairs, stride, 2 * inner + rank, at, tokens, two, own, inner, rank, RANK)
    kind = out.dtype.element_ty
    gates, values = gates.to(kind), values.to(kind)
    tl.store(left, gates, there)
    tl.store(left + inner, values, there)
    wide = gates.to(tl.float32)
    opened = (wide * tl.sigmoid(wide)).to(kind).to(tl.float32)
    tl.store(out + row * inner + own[None, :], (opened * values.to(tl.float32)).to(kind), there)


def gate(pairs: Tensor, out: Tensor, seconds: Seconds) -> None:
    """Add the adapters to gates and values, in place, and multiply SiLU of the gates by the values.

    Args:
        pairs: Gates, values, and what the first matrices gave. Shape (tokens, 2 * inner + 2 * rank).
        out: Gets the products. Shape (tokens, inner).
        seconds: The second matrices, of the gates and of the values, and their scale. Shape (inner, rank) each.
    """
    tokens, inner = out.shape
    matrices, scale = seconds
    rank = matrices[0].shape[1]
    _gate[(triton.cdiv(inner, COLUMNS), triton.cdiv(tokens, ROWS))](
        pairs, pairs.stride(0), out, tokens, inner, *matrices, rank, scale,
        RANK=_padded(rank), ROWS=ROWS, COLUMNS=COLUMNS, num_warps=4,
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
    kind = tl.where(is_query, 0, tl.where(is_key, 1, 2))
    own = head - tl.where(is_query, 0, tl.where(is_key, heads, heads + kv_heads))
    second = query
    if kind == 1:
        second = key
    if kind == 2:
        second = value
    most = tl.where(is_query, heads, kv_heads) * 2 * HALF
    small = (heads + 2 * kv_heads) * 2 * HALF + kind * rank
    left = rows + row * stride + head * 2 * HALF + column[None, :]
    first = tl.load(left, there, 0.0).to(tl.float32)
    other = tl.load(left + HALF, there, 0.0).to(tl.float32)
    near = own * 2 * HALF + column
    first += scale * _small(rows, stride, small, at, tokens, second, near, most, rank, RANK)
    other += scale * _small(rows, stride, small, at, tokens, second, near + HALF, most, rank, RANK)
    if BIAS:
        first += tl.load(bias + head * 2 * HALF + column)[None, :].to(tl.float32)
        other += tl.load(bias + head * 2 * HALF + HALF + column)[None, :].to(tl.float32)
    element = rows.dtype.element_ty
    first, other = first.to(element).to(tl.float32), other.to(element).to(tl.float32)
    if is_key:
        place = row - tl.load(begins + at, at < tokens, 0)[:, None]
        turn = tables + place * HALF + column[None, :]
        cosine = tl.load(turn, there, 0.0).to(tl.float32)
        sine = tl.load(turn + length * HALF, there, 0.0).to(tl.float32)
        tl.store(left, (first * cosine - other * sine).to(element), there)
        tl.store(left + HALF, (other * cosine + first * sine).to(element), there)
    else:
        tl.store(left, first.to(element), there)
        tl.store(left + HALF, other.to(element), there)


def rotate(
    rows: Tensor, bias: Tensor | None, heads: tuple[int, int], tables: Tensor, begins: Tensor, seconds: Seconds
) -> None:
    """Add adapters and biases to queries, keys and values, and turn queries and keys, in place.

    Args:
        rows: Queries, keys and values, then what the first matrices gave. Shape (tokens, widths + 3 * rank).
        bias: Shape (widths,); None where the model has none.
        heads: Of queries, and of keys.
        tables: Cosines and sines by position. Shape (2, positions, head_width / 2).
        begins: Where the example of each token begins. Shape (tokens,).
        seconds: The second matrices of queries, keys and values, and their scale. Shape (width, rank) each.
    """
    matrices, scale = seconds
    tokens, rank = len(rows), matrices[0].shape[1]
    _rotate[(heads[0] + 2 * heads[1], triton.cdiv(tokens, ROWS))](
        rows, rows.stride(0), rows if bias is None else bias, tables, tables.shape[1], begins, tokens, *heads,
        *matrices, rank, scale, HALF=tables.shape[2], RANK=_padded(rank), ROWS=ROWS, BIAS=bias is not None,
        num_warps=4,
    )  # fmt: skip


@triton.jit
def _fold(
    grad, stride, one, two, three, width_one, width_two, width_three, parts, tokens, rank,
    RANK: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    chunk = tl.program_id(1)
    end_one = tl.cdiv(width_one, CHUNK)
    end_two = end_one + tl.cdiv(width_two, CHUNK)
    in_one, in_two = chunk < end_one, chunk < end_two
    begin = tl.where(in_one, 0, tl.where(in_two, end_one, end_two))
    width = tl.multiple_of(tl.where(in_one, width_one, tl.where(in_two, width_two, width_three)), 16)
    before = tl.multiple_of(tl.where(in_one, 0, tl.where(in_two, width_one, width_one + width_two)), 16)
    matrix = one
    if chunk >= end_one:
        matrix = two
    if chunk >= end_two:
        matrix = three
    each = tl.arange(0, RANK)
    row = at[:, None].to(tl.int64)
    acc = tl.zeros((ROWS, RANK), tl.float32)
    for start in range(0, CHUNK, COLUMNS):
        own = (chunk - begin) * CHUNK + start + tl.arange(0, COLUMNS)
        there = own < width
        above = tl.load(grad + row * stride + before + own[None, :], (at < tokens)[:, None] & there[None, :], 0.0)
        second = tl.load(
            matrix + own[:, None] * rank + each[None, :], there[:, None] & (each < rank)[None, :], 0.0
        )
        acc = tl.dot(above, second, acc)
    place = (chunk * tokens + at[:, None]) * rank + each[None, :]
    tl.store(parts + place, acc, (at < tokens)[:, None] & (each < rank)[None, :])


@triton.jit
def _add_up(
    parts, out, stride, width_one, width_two, width_three, tokens, rank, scale,
    RANK: tl.constexpr, CHUNK: tl.constexpr, CHUNKS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    kind = tl.program_id(1)
    end_one = tl.cdiv(width_one, CHUNK)
    end_two = end_one + tl.cdiv(width_two, CHUNK)
    begin = tl.where(kind == 0, 0, tl.where(kind == 1, end_one, end_two))
    width = tl.where(kind == 0, width_one, tl.where(kind == 1, width_two, width_three))
    flat = tl.arange(0, ROWS * RANK)
    at, each = tl.program_id(0) * ROWS + flat // RANK, flat % RANK
    there = (at < tokens) & (each < rank)
    chunk = tl.arange(0, CHUNKS)[:, None]
    place = ((begin + chunk) * tokens + at[None, :]) * rank + each[None, :]
    value = tl.load(parts + place, (chunk < tl.cdiv(width, CHUNK)) & there[None, :], 0.0)
    total = (tl.sum(value, 0) * scale).to(out.dtype.element_ty)
    tl.store(out + at.to(tl.int64) * stride + kind * rank + each, total, there)


def fold(grad: Tensor, seconds: Seconds, room: Tensor) -> bool:
    """Make the gradient of what the first matrices gave, beside that of the outputs.

    Parts of the sums are made by many programs at once: a product with so narrow a result leaves most of a device
    idle otherwise.

    Args:
        grad: Of the outputs; its last columns get the result. Shape (tokens, sum(widths) + count * rank).
        seconds: The second matrices and their scale. Shape (width, rank) each.
        room: For the parts; what it holds is lost.

    Returns:
        False where there are too many matrices or too little room: nothing was done.
    """
    matrices, scale = seconds
    tokens, rank, widths = len(grad), matrices[0].shape[1], [len(matrix) for matrix in matrices]
    parts = room.flatten().view(torch.float32)
    most = parts.numel() // (tokens * rank)
    chunk = next((size for size in FOLDED if sum(-(-width // size) for width in widths) <= most), None)
    if chunk is None or rank > WIDEST or len(widths) > 3 or any(width % 16 for width in widths):
        return False
    sizes = widths + [0] * (3 - len(widths))
    counts = [triton.cdiv(width, chunk) for width in widths]
    outer = sum(widths)
    several = [*matrices, *[matrices[0]] * (3 - len(widths))]
    _fold[(triton.cdiv(tokens, ROWS), sum(counts))](
        grad, grad.stride(0), *several, *sizes, parts, tokens, rank,
        RANK=_padded(rank), CHUNK=chunk, ROWS=ROWS, COLUMNS=128, num_warps=4, num_stages=3 if rank <= ROWS else 2,
    )  # fmt: skip
    _add_up[(triton.cdiv(tokens, 4), len(widths))](
        parts, grad[:, outer:], grad.stride(0), *sizes, tokens, rank, scale,
        RANK=_padded(rank), CHUNK=chunk, CHUNKS=triton.next_power_of_2(max(counts)), ROWS=4, num_warps=4,
    )  # fmt: skip
    return True


def _padded(rank: int) -> int:
    """The rank, as a product of tiles needs it."""
    return max(int(triton.next_power_of_2(rank)), 16)
