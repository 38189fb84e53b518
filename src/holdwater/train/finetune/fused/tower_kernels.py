"""The rotation of queries and keys in a vision tower, as a Triton kernel: one pass over the data, in place."""

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _rotate(
    rows, row_stride, head_stride, cosines, sines, table_stride, heads, half,
    HALF: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, HALF)[None, :]
    head = tl.arange(0, HEADS)[:, None]
    there = (at < half) & (head < heads)
    table = row * table_stride + at
    near = rows + row * row_stride + head * head_stride + at
    first = tl.load(near, there, 0.0)
    second = tl.load(near + half, there, 0.0)
    dtype = first.dtype
    first, second = first.to(tl.float32), second.to(tl.float32)
    left = first * tl.load(cosines + table, at < half, 0.0).to(tl.float32)
    left -= second * tl.load(sines + table, at < half, 0.0).to(tl.float32)
    right = second * tl.load(cosines + table + half, at < half, 0.0).to(tl.float32)
    right += first * tl.load(sines + table + half, at < half, 0.0).to(tl.float32)
    tl.store(near, left.to(dtype), there)
    tl.store(near + half, right.to(dtype), there)


def rotate(queries: Tensor, keys: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate queries and keys, in place: as `apply_rotary_pos_emb_vision` of Transformers.

    Args:
        queries: Shape (tokens, heads, width), of any width; values of a head lie side by side.
        keys: As queries.
        cosines: Of each token. Shape (tokens, width).
        sines: As cosines.
    """
    half = queries.shape[2] // 2
    for rows in (queries, keys):
        _rotate[(len(rows),)](
            rows, rows.stride(0), rows.stride(1), cosines, sines, cosines.stride(0), rows.shape[1], half,
            HALF=triton.next_power_of_2(half), HEADS=triton.next_power_of_2(rows.shape[1]), num_warps=4,
        )  # fmt: skip
    return queries, keys
