"""Frozen weights in 4 or 8 bits, made whole again where a product needs them.

4 bits are the NormalFloat of Dettmers et al. (2023), "QLoRA", arXiv 2305.14314: the nearest of 16 values, times
the largest magnitude of a block of 64 weights. 8 bits are the nearest of 255 equal steps. The largest magnitudes
are kept in 8 bits themselves: their distance from the mean of all, in equal steps, 256 of them to a scale.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 64
"""Weights that share a largest magnitude."""
GROUP = 256
"""Largest magnitudes that share a scale."""
AT_ONCE = 1 << 22
"""Weights that are quantized at once, so that little memory is needed for it."""
NORMAL_FLOAT = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""Quantiles of the normal distribution, as published with QLoRA."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """A matrix in few bits."""

    codes: Tensor
    """Two weights a byte, the first one in the high half; or one a byte, as int8. Shape (bytes,)."""
    maxima: Tensor
    """Of each block, as steps from the mean. Shape (blocks,), int8."""
    scales: Tensor
    """Of a step. Shape (groups,), float32."""
    mean: Tensor
    """Of all maxima. Shape (1,), float32."""
    table: Tensor
    """The 16 values; empty for 8 bits. Shape (16,) or (0,), float32."""

    @property
    def nbytes(self) -> int:
        """Of all parts together."""
        return sum(part.nbytes for part in (self.codes, self.maxima, self.scales, self.mean, self.table))


def quantize(weight: Tensor, bits: int, device: str) -> Quantized:
    """Quantize a matrix.

    Args:
        weight: Its size is a multiple of 64. Shape (rows, columns).
        bits: 4 or 8.
        device: Where the result lies.
    """
    flat = weight.detach().flatten()
    if flat.is_meta:
        return sized(len(flat), bits)
    maxima = torch.cat([
        part.to(device).float().view(-1, BLOCK).abs().amax(1) for part in torch.split(flat, AT_ONCE)
    ])
    mean = maxima.mean().view(1)
    groups = -(-len(maxima) // GROUP)
    padded = torch.nn.functional.pad(maxima - mean, (0, groups * GROUP - len(maxima))).view(groups, GROUP)
    scales = (padded.abs().amax(1) / 127).clamp_(min=1e-12)
    steps = torch.round(padded / scales[:, None]).to(torch.int8).flatten()[: len(maxima)].clone()
    table = torch.tensor(NORMAL_FLOAT if bits == 4 else (), device=device)
    empty = torch.empty(len(flat) // 2 if bits == 4 else len(flat), dtype=torch.uint8 if bits == 4 else torch.int8)
    made = Quantized(empty.to(device), steps, scales, mean, table)
    whole = _maxima(made)
    for begin in range(0, len(flat), AT_ONCE):
        part = flat[begin : begin + AT_ONCE].to(device).float().view(-1, BLOCK)
        first = begin // BLOCK
        unit = (part / whole[first : first + len(part), None].clamp(min=1e-12)).flatten()
        codes = _nearest(unit, table) if bits == 4 else torch.round(unit.clamp(-1, 1) * 127).to(torch.int8)
        size = len(codes)
        made.codes[begin * size // len(unit) :][:size] = codes
    return made


def sized(count: int, bits: int) -> Quantized:
    """What so many weights come to, on no device.

    Args:
        count: Of weights.
        bits: 4 or 8.
    """
    blocks = -(-count // BLOCK)
    sizes = (count * bits // 8, blocks, -(-blocks // GROUP), 1, 16 if bits == 4 else 0)
    dtypes = (torch.uint8 if bits == 4 else torch.int8, torch.int8, torch.float32, torch.float32, torch.float32)
    return Quantized(
        *(torch.empty(size, dtype=dtype, device="meta") for size, dtype in zip(sizes, dtypes, strict=True))
    )


def _nearest(unit: Tensor, table: Tensor) -> Tensor:
    """The nearest of the 16 values, two to a byte. Shape (values / 2,), uint8."""
    codes = torch.bucketize(unit, (table[1:] + table[:-1]) / 2, out_int32=True).to(torch.uint8).view(-1, 2)
    return (codes[:, 0] << 4) | codes[:, 1]


def _maxima(quantized: Quantized) -> Tensor:
    """The largest magnitude of each block. Shape (blocks,), float32."""
    group = torch.arange(len(quantized.maxima), device=quantized.maxima.device) // GROUP
    return (quantized.maxima.float() * quantized.scales[group] + quantized.mean).clamp_(min=0)


def dequantize(quantized: Quantized, out: Tensor) -> None:
    """Make a matrix whole again.

    Args:
        quantized: The matrix in few bits.
        out: Gets it. Shape (rows, columns).
    """
    codes = quantized.codes
    if len(quantized.table):
        unit = quantized.table[torch.stack([codes >> 4, codes & 15], dim=1).long()]
    else:
        unit = codes.float() / 127
    out.copy_((unit.view(-1, BLOCK) * _maxima(quantized)[:, None]).view_as(out))
