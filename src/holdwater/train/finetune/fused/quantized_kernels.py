"""Weights of few bits made whole again, as one Triton kernel."""

import triton
import triton.language as tl
from torch import Tensor

from holdwater.train.finetune.fused.quantized import Quantized

SIZE = 4096
"""Weights that a program makes."""


@triton.jit
def _dequantize(codes, maxima, scales, mean, table, out, count, FOUR: tl.constexpr, SIZE: tl.constexpr):
    begin = tl.program_id(0).to(tl.int64) * SIZE
    at = begin + tl.arange(0, SIZE)
    block = at // 64
    step = tl.load(maxima + block, at < count, 0).to(tl.float32)
    largest = step * tl.load(scales + block // 256, at < count, 0.0) + tl.load(mean)
    largest = tl.maximum(largest, 0.0)
    if FOUR:
        two = begin // 2 + tl.arange(0, SIZE // 2)
        code = tl.load(codes + two, two * 2 < count, 0).to(tl.int32)
        unit = tl.interleave(tl.load(table + (code >> 4)), tl.load(table + (code & 15)))
    else:
        unit = tl.load(codes + at, at < count, 0).to(tl.float32) / 127
    tl.store(out + at, (unit * largest).to(out.dtype.element_ty), at < count)


def dequantize(quantized: Quantized, out: Tensor) -> None:
    """As its namesake in plain torch; the matrix is contiguous."""
    count = out.numel()
    _dequantize[(triton.cdiv(count, SIZE),)](
        quantized.codes, quantized.maxima, quantized.scales, quantized.mean, quantized.table, out, count,
        FOUR=len(quantized.table) > 0, SIZE=SIZE, num_warps=8,
    )  # fmt: skip
