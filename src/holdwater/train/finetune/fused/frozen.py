"""The frozen weights of layers that read the same input, and behind them the A matrices of their adapters."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from holdwater.train.finetune.fused.quantized import Quantized, dequantize, quantize, sized
from holdwater.train.finetune.weight_server.client import WeightClient
from holdwater.train.flat import point_at


@dataclass(frozen=True, slots=True)
class WeightPlacement:
    """Where frozen weights are put, and how."""

    device: str
    bits: int | None = None
    """Of a frozen weight, 4 or 8; None leaves them as they are."""
    weight_client: WeightClient = WeightClient()  # noqa: RUF009 - it holds nothing
    """Whose memory they lie in."""
    name: str = ""
    """Identifies the model."""

    def take(self, name: str, weight: nn.Parameter) -> Tensor:
        """Put one weight there as it is; its module uses it from there.

        Args:
            name: The same in each process.
            weight: Of a module.
        """
        place = self.weight_client.place(name, tuple(weight.shape), weight, device=self.device)
        if self.weight_client.facts is None:
            place.copy_(weight.data)
        point_at(weight, place)
        return place

    def take_trained(self, name: str, size: int) -> Tensor:
        """Allocate memory for trained values, in float32: all zero, or as the process before has left them.

        Args:
            name: The same in each process.
            size: Elements.
        """
        like = torch.empty(0, dtype=torch.float32)
        place = self.weight_client.place(f"trained.{name}", (size,), like, device=self.device)
        return place.zero_() if self.weight_client.facts is None else place


class Frozen:
    """One matrix of all of them, kept as it is, or in few bits and made whole for each product."""

    def __init__(self, name: str, bases: Sequence[Any], rank: int, where: WeightPlacement) -> None:
        """Lay the weights one below the other.

        Args:
            name: The same in each process.
            bases: Linear layers of the same input; they keep views of the matrix, unless it is in few bits.
            rank: Of all adapters together.
            where: The matrix lies.
        """
        sizes = [base.weight.shape[0] for base in bases]
        like: Tensor = bases[0].weight
        self.outer, self.rank, self.inner = sum(sizes), rank, int(like.shape[1])
        """Rows of frozen weights, rows of A matrices, and columns."""
        self.quantized: Quantized | None = None
        """The frozen weights in few bits; None where they are kept as they are."""
        if where.bits is None:
            self._whole = where.weight_client.place(
                name, (self.outer + rank, self.inner), like, device=where.device
            )
            parts = [self._whole[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]
            for base, part in zip(bases, parts, strict=True):
                if where.weight_client.facts is None:
                    part.copy_(base.weight.data)
                point_at(base.weight, part)
            self.lora_a = self._whole[self.outer :]
            """The A matrices in the type of the products. Shape (rank, inner)."""
            return
        self._whole = torch.empty(0, dtype=like.dtype, device=where.device)
        self.lora_a = torch.empty(rank, self.inner, dtype=like.dtype, device=where.device)
        self.quantized = _few(name, bases, where, where.bits)
        for base in bases:
            point_at(base.weight, self._whole)

    @property
    def size(self) -> int:
        """Elements of the whole matrix."""
        return int((self.outer + self.rank) * self.inner)

    def tensors(self) -> list[Tensor]:
        """Everything that lies in memory, but for the workspace that others share."""
        few = self.quantized
        return (
            [self._whole] if few is None else [self.lora_a, few.codes, few.maxima, few.scales, few.mean, few.table]
        )

    def use_workspace(self, workspace: Tensor) -> None:
        """Take a place in which weights of few bits are made whole; others use it too.

        Args:
            workspace: Shape (at least `size`,).
        """
        self._whole = workspace[: self.size].view(-1, self.inner)

    def whole(self) -> Tensor:
        """The whole matrix; in few bits until another one is asked for. Shape (outer + rank, inner)."""
        if self.quantized is not None:
            make_whole(self.quantized, self._whole[: self.outer])
            self._whole[self.outer :].copy_(self.lora_a)
        return self._whole


def _few(name: str, bases: Sequence[Any], where: WeightPlacement, bits: int) -> Quantized:
    """The weights in few bits, in their place."""
    weight_client, device = where.weight_client, where.device
    known = weight_client.facts is not None
    count = sum(base.weight.numel() for base in bases)
    made = sized(count, bits) if known else quantize(torch.cat([base.weight.data for base in bases]), bits, device)
    placed = []
    for field in fields(made):
        part: Tensor = getattr(made, field.name)
        place = weight_client.place(f"{name}.{field.name}", tuple(part.shape), part, device=device)
        placed.append(place if known else place.copy_(part))
    return Quantized(*placed)


def make_whole(quantized: Quantized, out: Tensor) -> None:
    """Make a matrix whole again, by the kernel of its device.

    Args:
        quantized: The matrix in few bits.
        out: Gets it; contiguous. Shape (rows, columns).
    """
    if out.is_cuda:
        from holdwater.train.finetune.fused import quantized_kernels  # noqa: PLC0415 - Triton is with CUDA only

        quantized_kernels.dequantize(quantized, out)
    elif not out.is_meta:  # a plan needs sizes only, and the kernel allocates nothing but its result
        dequantize(quantized, out)
