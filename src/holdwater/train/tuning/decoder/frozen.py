"""The frozen weights of layers that read the same input, and behind them the first matrices of their adapters."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from holdwater.train.tuning.decoder.quantized import Quantized, dequantize, quantize


class Frozen:
    """One matrix of all of them, kept as it is, or in few bits and made whole for each product."""

    def __init__(self, bases: Sequence[Any], rank: int, *, device: str, bits: int | None) -> None:
        """Lay the weights one below the other.

        Args:
            bases: Linear layers of the same input; they go on with views of the matrix, unless it is in few bits.
            rank: Of all adapters together.
            device: Where the matrix lies.
            bits: Of a frozen weight, 4 or 8; None leaves them as they are.
        """
        sizes = [base.weight.shape[0] for base in bases]
        kind = bases[0].weight.dtype
        self.outer, self.rank, self.inner = sum(sizes), rank, int(bases[0].weight.shape[1])
        """Rows of frozen weights, rows of first matrices, and columns."""
        self.quantized: Quantized | None = None
        """The frozen weights in few bits; None where they are kept as they are."""
        if bits is None:
            self._whole = torch.empty(self.outer + rank, self.inner, dtype=kind, device=device)
            parts = [self._whole[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]
            for base, part in zip(bases, parts, strict=True):
                base.weight.data = part.copy_(base.weight.data)
            self.first = self._whole[self.outer :]
            """The first matrices in the type of the products. Shape (rank, inner)."""
            return
        self._whole = torch.empty(0, dtype=kind, device=device)
        self.first = torch.empty(rank, self.inner, dtype=kind, device=device)
        self.quantized = quantize(torch.cat([base.weight.data for base in bases]), bits, device)
        for base in bases:
            base.weight.data = self._whole

    @property
    def size(self) -> int:
        """Elements of the whole matrix."""
        return int((self.outer + self.rank) * self.inner)

    def tensors(self) -> list[Tensor]:
        """Everything that lies in memory, but for the room that others use too."""
        few = self.quantized
        return (
            [self._whole] if few is None else [self.first, few.codes, few.maxima, few.scales, few.mean, few.table]
        )

    def use_room(self, room: Tensor) -> None:
        """Take a place in which weights of few bits are made whole; others use it too.

        Args:
            room: Shape (at least `size`,).
        """
        self._whole = room[: self.size].view(-1, self.inner)

    def whole(self) -> Tensor:
        """The whole matrix; in few bits until another one is asked for. Shape (outer + rank, inner)."""
        if self.quantized is not None:
            _dequantize(self.quantized, self._whole[: self.outer])
            self._whole[self.outer :].copy_(self.first)
        return self._whole


def _dequantize(quantized: Quantized, out: Tensor) -> None:
    """Make a matrix whole again, by the kernel of its device."""
    if out.is_cuda:
        from holdwater.train.tuning.decoder import quantized_kernels  # noqa: PLC0415 - Triton is with CUDA only

        quantized_kernels.dequantize(quantized, out)
    else:
        dequantize(quantized, out)
