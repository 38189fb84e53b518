"""Attention within segments that see all of themselves, as a Triton kernel for heads of any width.

Segments lie one after another. A program takes a block of one segment's places and goes over that segment from its
beginning, so the result of a segment is the same to the bit wherever it lies and whatever lies beside it. Programs
are started for as many blocks as there can be; each finds its own from the borders. A width that is no power of 2,
such as 72, is taken as a power of 2 and a rest: kernels that pad it to the next one do a third more work.
Source: Dao (2023), "FlashAttention-2", arXiv 2307.08691.
"""

import triton
import triton.language as tl
from torch import Tensor

LOG2E = 1.4426950408889634
WIDTHS = range(16, 129)
"""Of heads, for which tiles fit."""
LONG, SHORT = (128, 64, 8, 3), (64, 32, 4, 2)
"""Places of a program, places that it looks at at once, warps and stages: for pictures, and for windows; of ten
tilings on an H200 the fastest. 8 pictures of 1,200 patches, 16 heads of 72: 196 µs, PyTorch's flash kernel 334."""
WINDOW = 64
"""Places of the longest segment up to which all are windows."""


@triton.jit
def _look(
    state, query, query_rest, keys, values, key_stride, value_stride, start, end, scale,
    MASKED: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr, REST: tl.constexpr,
):  # fmt: skip
    acc, acc_rest, most, total = state
    other = start + tl.arange(0, COLUMNS)
    column = tl.arange(0, WIDE)
    keys += other[:, None].to(tl.int64) * key_stride
    values += other[:, None].to(tl.int64) * value_stride
    if MASKED:
        key = tl.load(keys + column[None, :], (other < end)[:, None], 0.0)
        value = tl.load(values + column[None, :], (other < end)[:, None], 0.0)
    else:
        key = tl.load(keys + column[None, :])
        value = tl.load(values + column[None, :])
    score = tl.dot(query, tl.trans(key))
    if REST:
        far = WIDE + tl.arange(0, REST)
        there = (other < end)[:, None] & (far < WIDTH)[None, :]
        key_rest = tl.load(keys + far[None, :], there, 0.0)
        value_rest = tl.load(values + far[None, :], there, 0.0)
        score = tl.dot(query_rest, tl.trans(key_rest), score)
    score = score * scale
    if MASKED:
        score = tl.where((other < end)[None, :], score, -float("inf"))
    higher = tl.maximum(most, tl.max(score, 1))
    prob = tl.exp2(score - higher[:, None])
    fade = tl.exp2(most - higher)
    few = prob.to(value.dtype)
    acc = tl.dot(few, value, acc * fade[:, None])
    if REST:
        acc_rest = tl.dot(few, value_rest, acc_rest * fade[:, None])  # type: ignore[possibly-undefined]
    return acc, acc_rest, higher, total * fade + tl.sum(prob, 1)


@triton.jit
def _attend(
    queries, keys, values, query_stride, key_stride, value_stride, out, borders, segments, heads, scale,
    SEGMENTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr, WIDE: tl.constexpr, REST: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    block, head = tl.program_id(0), tl.program_id(1)
    number = tl.arange(0, SEGMENTS)
    begins = tl.load(borders + number, number < segments, 0)
    ends = tl.load(borders + number + 1, number < segments, 0)
    blocks = tl.cdiv(ends - begins, ROWS)
    own = tl.sum((tl.cumsum(blocks, 0) <= block).to(tl.int32), 0)
    begin = tl.sum(tl.where(number == own, begins, 0), 0)
    end = tl.sum(tl.where(number == own, ends, 0), 0)
    first = begin + (block - tl.sum(tl.where(number < own, blocks, 0), 0)) * ROWS
    if first < end:
        at, column = first + tl.arange(0, ROWS), tl.arange(0, WIDE)
        row, there = at[:, None].to(tl.int64) * query_stride, (at < end)[:, None]
        shift = tl.multiple_of(head * WIDTH, ALIGNED)
        query = tl.load(queries + row + shift + column[None, :], there, 0.0)
        far = WIDE + tl.arange(0, REST or 16)
        query_rest = tl.load(queries + row + shift + far[None, :], there & (far < WIDTH)[None, :], 0.0)
        acc = tl.zeros((ROWS, WIDE), tl.float32)
        acc_rest = tl.zeros((ROWS, REST or 16), tl.float32)
        state = acc, acc_rest, tl.full((ROWS,), -float("inf"), tl.float32), tl.zeros((ROWS,), tl.float32)
        whole = begin + (end - begin) // COLUMNS * COLUMNS
        for start in range(begin, whole, COLUMNS):
            state = _look(
                state, query, query_rest, keys + shift, values + shift, key_stride, value_stride,
                start, end, scale, False, COLUMNS, WIDTH, WIDE, REST,
            )  # fmt: skip
        if whole < end:
            state = _look(
                state, query, query_rest, keys + shift, values + shift, key_stride, value_stride,
                whole, end, scale, True, COLUMNS, WIDTH, WIDE, REST,
            )  # fmt: skip
        acc, acc_rest, _, total = state
        left = out + at[:, None].to(tl.int64) * heads * WIDTH + shift
        tl.store(left + column[None, :], (acc / total[:, None]).to(out.dtype.element_ty), there)
        if REST:
            result = (acc_rest / total[:, None]).to(out.dtype.element_ty)
            tl.store(left + far[None, :], result, there & (far < WIDTH)[None, :])


def attend(parts: tuple[Tensor, Tensor, Tensor], segments: tuple[Tensor, int], scale: float) -> Tensor:
    """Let each place attend to all places of its segment.

    Args:
        parts: Queries, keys and values, whose width is one of `WIDTHS`. Shape (places, heads, width) each.
        segments: Where they begin, and the end of the last one; and places of the longest, or more.
            Shape (segments + 1,), int32.
        scale: Of products of queries and keys.

    Returns:
        Shape (places, heads, width).
    """
    places, heads, width = parts[0].shape
    rows_of = [one if one.stride()[1:] == (width, 1) else one.contiguous() for one in parts]
    out = parts[0].new_empty(places, heads, width)
    borders, longest = segments
    count = len(borders) - 1
    rows, columns, warps, stages = SHORT if longest <= WINDOW else LONG
    wide = 1 << (width.bit_length() - 1)
    rest = triton.next_power_of_2(max(width - wide, 16)) if width > wide else 0
    _attend[(triton.cdiv(places, rows) + count, heads)](
        *rows_of, *(one.stride(0) for one in rows_of), out, borders, count, heads, scale * LOG2E,
        SEGMENTS=triton.next_power_of_2(count), ROWS=rows, COLUMNS=columns,
        WIDTH=width, WIDE=wide, REST=rest, ALIGNED=width & -width, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return out
