"""The backward pass through the B matrices of adapters, for few tokens: two launches for a group of layers.

Products with a side as narrow as a rank leave most of a device idle, and launching one costs more than its
work. Here some programs of a launch make the gradients of the B matrices, and others parts of the
sums that the A matrices' backward pass begins with; a second launch adds these up.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from holdwater.train.finetune.fused.adapter_kernels import ROWS, WIDEST, padded
from holdwater.train.finetune.fused.plain_kernels import LoraB

COLUMNS = 64
"""That a program takes at once, and twice as many of a sum: the fastest of twenty tilings on an H200."""
CHUNKS = (256, 512, 896, 1024, 2048, 4096)
"""Columns that one program of a sum takes: the fewest for which the workspace is large enough."""
MANY = 2048
"""Tokens from which on cuBLAS makes all these gradients."""
TOGETHER = 16_384
"""Columns up to which one launch for both kinds is faster: cuBLAS makes the gradients of wider matrices well."""


@triton.jit
def _part(number, one, two, three, SIZE: tl.constexpr):
    """Which of three matrices a part belongs to, its number there, and the columns before that matrix."""
    end_one = tl.cdiv(one, SIZE)
    end_two = end_one + tl.cdiv(two, SIZE)
    kind = tl.where(number < end_one, 0, tl.where(number < end_two, 1, 2))
    begin = tl.where(kind == 0, 0, tl.where(kind == 1, end_one, end_two))
    width = tl.multiple_of(tl.where(kind == 0, one, tl.where(kind == 1, two, three)), 16)
    before = tl.multiple_of(tl.where(kind == 0, 0, tl.where(kind == 1, one, one + two)), 16)
    return kind, number - begin, width, before


@triton.jit
def _gradients(
    grad, stride, small, small_stride, of_one, of_two, of_three, widths, tokens, rank, scale, number,
    ADD: tl.constexpr, RANK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    kind, part, width, before = _part(number, widths[0], widths[1], widths[2], COLUMNS)
    into = of_one
    if kind == 1:
        into = of_two
    if kind == 2:
        into = of_three
    own, each = part * COLUMNS + tl.arange(0, COLUMNS), tl.arange(0, RANK)
    there, few = own < width, each < rank
    acc = tl.zeros((COLUMNS, RANK), tl.float32)
    for start in range(0, tokens, ROWS):
        at = start + tl.arange(0, ROWS)
        row, known = at[:, None].to(tl.int64), (at < tokens)[:, None]
        grad_out = tl.load(grad + row * stride + before + own[None, :], known & there[None, :], 0.0)
        given = tl.load(small + row * small_stride + kind * rank + each[None, :], known & few[None, :], 0.0)
        acc = tl.dot(tl.trans(grad_out), given, acc)
    place, kept = own[:, None] * rank + each[None, :], there[:, None] & few[None, :]
    acc *= scale
    if ADD:
        acc += tl.load(into + place, kept, 0.0)
    tl.store(into + place, acc, kept)


@triton.jit
def _parts(
    grad, stride, one, two, three, widths, parts, tokens, rank, block, chunk,
    RANK: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    kind, part, width, before = _part(chunk, widths[0], widths[1], widths[2], CHUNK)
    matrix = one
    if kind == 1:
        matrix = two
    if kind == 2:
        matrix = three
    at, each = block * ROWS + tl.arange(0, ROWS), tl.arange(0, RANK)
    row, known, few = at[:, None].to(tl.int64), (at < tokens)[:, None], (each < rank)[None, :]
    acc = tl.zeros((ROWS, RANK), tl.float32)
    for start in range(0, CHUNK, COLUMNS):
        own = part * CHUNK + start + tl.arange(0, COLUMNS)
        there = own < width
        grad_out = tl.load(grad + row * stride + before + own[None, :], known & there[None, :], 0.0)
        tile = tl.load(matrix + own[:, None] * rank + each[None, :], there[:, None] & few, 0.0)
        acc = tl.dot(grad_out, tile, acc)
    tl.store(parts + (chunk * tokens + at[:, None]) * rank + each[None, :], acc, known & few)


@triton.jit
def _lora_b_backward(
    grad, stride, small, small_stride, one, two, three, of_one, of_two, of_three,
    width_one, width_two, width_three, parts, tokens, rank, scale, wholes,
    ADD: tl.constexpr, RANK: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    number = tl.program_id(0)
    widths = (width_one, width_two, width_three)
    if number < wholes:
        _gradients(
            grad, stride, small, small_stride, of_one, of_two, of_three, widths, tokens, rank, scale, number,
            ADD, RANK, ROWS, COLUMNS,
        )  # fmt: skip
    else:
        blocks = tl.cdiv(tokens, ROWS)
        block, chunk = (number - wholes) % blocks, (number - wholes) // blocks
        _parts(
            grad, stride, one, two, three, widths, parts, tokens, rank, block, chunk,
            RANK, CHUNK, ROWS, 2 * COLUMNS,
        )  # fmt: skip


@triton.jit
def _add_up(
    parts, out, stride, width_one, width_two, width_three, tokens, rank, scale,
    RANK: tl.constexpr, CHUNK: tl.constexpr, MOST: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    kind = tl.program_id(1)
    end_one = tl.cdiv(width_one, CHUNK)
    end_two = end_one + tl.cdiv(width_two, CHUNK)
    begin = tl.where(kind == 0, 0, tl.where(kind == 1, end_one, end_two))
    width = tl.where(kind == 0, width_one, tl.where(kind == 1, width_two, width_three))
    flat = tl.arange(0, ROWS * RANK)
    at, each = tl.program_id(0) * ROWS + flat // RANK, flat % RANK
    there = (at < tokens) & (each < rank)
    chunk = tl.arange(0, MOST)[:, None]
    place = ((begin + chunk) * tokens + at[None, :]) * rank + each[None, :]
    value = tl.load(parts + place, (chunk < tl.cdiv(width, CHUNK)) & there[None, :], 0.0)
    total = (tl.sum(value, 0) * scale).to(out.dtype.element_ty)
    tl.store(out + at.to(tl.int64) * stride + kind * rank + each, total, there)


def chunk_of(grad: Tensor, lora_b: LoraB | None, workspace: Tensor) -> int | None:
    """Columns that one program of a sum takes; None where others are to make these gradients.

    Args:
        grad: As for `lora_b_backward`.
        lora_b: As for `lora_b_backward`; None where not all of the layers have adapters, or of several ranks.
        workspace: As for `lora_b_backward`.
    """
    if lora_b is None or len(grad) >= MANY:
        return None
    matrices, _ = lora_b
    rank, widths = matrices[0].shape[1], [len(matrix) for matrix in matrices]
    if rank > WIDEST or len(widths) > 3 or any(width % 16 for width in widths):
        return None
    most = workspace.nbytes // (4 * len(grad) * rank)
    return next((size for size in CHUNKS if sum(-(-width // size) for width in widths) <= most), None)


def lora_b_backward(
    grad: Tensor, small: Tensor, lora_b: LoraB, into: Sequence[Tensor], workspace: Tensor, *, chunk: int, add: bool
) -> None:
    """Make the gradients of B matrices, and of what the A matrices gave.

    Args:
        grad: Of the outputs; its last columns get the result. Shape (tokens, sum(widths) + count * rank).
        small: What the A matrices gave; may be the last columns of `grad`. Shape (tokens, count * rank).
        lora_b: The B matrices and their scale. Shape (width, rank) each.
        into: Get the gradients of the B matrices, in float32; empty where these are made elsewhere. Shape
            (width, rank) each.
        workspace: For parts of the sums; what it holds is lost.
        chunk: As `chunk_of` says.
        add: Add to gradients that are there.
    """
    matrices, scale = lora_b
    tokens, rank, widths = len(grad), matrices[0].shape[1], [len(matrix) for matrix in matrices]
    none, parts = 3 - len(widths), workspace.flatten().view(torch.float32)
    sizes, several = [*widths, *[0] * none], [*matrices, *[matrices[0]] * none]
    grads = [*into, *[into[0]] * none] if into else [parts] * 3
    counts = [triton.cdiv(width, chunk) for width in widths]
    wholes = sum(triton.cdiv(width, COLUMNS) for width in widths) if into else 0
    _lora_b_backward[(wholes + triton.cdiv(tokens, ROWS) * sum(counts),)](
        grad, grad.stride(0), small, small.stride(0), *several, *grads, *sizes, parts, tokens, rank, scale, wholes,
        ADD=add, RANK=padded(rank), CHUNK=chunk, ROWS=ROWS, COLUMNS=COLUMNS,
        num_warps=4, num_stages=3 if rank <= ROWS else 2,
    )  # fmt: skip
    _add_up[(triton.cdiv(tokens, 4), len(widths))](
        parts, grad[:, sum(widths) :], grad.stride(0), *sizes, tokens, rank, scale,
        RANK=padded(rank), CHUNK=chunk, MOST=triton.next_power_of_2(max(counts)), ROWS=4, num_warps=4,
    )  # fmt: skip
