"""Linear layers that read the same input, laid side by side: one product for all of them and for their adapters.

The frozen weights W and the adapters' A matrices are rows of one matrix, so `x [W; A]^T` gives the
outputs of the layers and what the adapters' B matrices need. The backward pass is one product as well. Source
of the adapters: Hu et al. (2021), arXiv 2106.09685.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from holdwater.train.finetune.fused.frozen import Frozen, WeightPlacement
from holdwater.train.finetune.fused.plain_kernels import LoraB
from holdwater.train.finetune.model.lora import LoraLinear


def add_product(into: Tensor, left: Tensor, right: Tensor, *, scale: float = 1.0, add: bool) -> None:
    """Write `scale * left @ right` into a matrix, or add it to what is there; gradients may be wider than factors.

    Args:
        into: Shape (rows, columns).
        left: Shape (rows, inner).
        right: Shape (inner, columns).
        scale: Of the product.
        add: Add to what `into` holds.
    """
    beta = 1.0 if add else 0.0
    if into.dtype == left.dtype:
        torch.addmm(into, left, right, beta=beta, alpha=scale, out=into)
    else:
        torch.addmm(into, left, right, out_dtype=into.dtype, beta=beta, alpha=scale, out=into)


def add_products(into: Tensor, left: Tensor, right: Tensor, *, scale: float, add: bool) -> None:
    """As `add_product`, for several products at once; the first dimension counts them."""
    if len(into) == 1:
        add_product(into[0], left[0], right[0], scale=scale, add=add)
        return
    beta = 1.0 if add else 0.0
    if into.dtype == left.dtype:
        torch.baddbmm(into, left, right, beta=beta, alpha=scale, out=into)
    else:
        torch.baddbmm(into, left, right, out_dtype=into.dtype, beta=beta, alpha=scale, out=into)


@dataclass(slots=True)
class _Run:
    """The adapters of some layers of a group that are alike and lie side by side."""

    columns: slice
    """Of the group's output."""
    small: slice
    """Of what the A matrices give, behind the outputs."""
    lora_b: Tensor
    """Their B matrices, in the type of the products. Shape (count, width, rank)."""
    layers: list[LoraLinear]
    grad: Tensor
    """The gradient of the B matrices, once `bind` was called. Shape as `lora_b`."""

    @property
    def count(self) -> int:
        """Layers."""
        return len(self.layers)

    @property
    def rank(self) -> int:
        """Of each."""
        return int(self.lora_b.shape[2])

    def masters(self) -> Tensor:
        """The B matrices as they are trained: laid out one after another. Shape as `lora_b`."""
        weight = self.layers[0].lora_B.data
        return torch.as_strided(weight, self.lora_b.shape, self.lora_b.stride())

    def bind(self) -> None:
        """Take the place of the gradient."""
        grad = self.layers[0].lora_B.grad
        assert grad is not None  # noqa: S101 - FlatWeights laid it out
        self.grad = torch.as_strided(grad, self.lora_b.shape, self.lora_b.stride())


class ProductGroup:
    """Some linear layers of the same input."""

    def __init__(self, name: str, layers: Sequence[nn.Module], where: WeightPlacement) -> None:
        """Lay the layers' weights side by side; the layers themselves keep views of them.

        Args:
            name: The same in each process.
            layers: Linear ones, with or without adapters. In few bits they cannot be used themselves.
            where: The frozen weights are put.
        """
        bases: list[Any] = [one.base if isinstance(one, LoraLinear) else one for one in layers]
        self.adapted = [one for one in layers if isinstance(one, LoraLinear)]
        self._layers, sizes = len(layers), [base.weight.shape[0] for base in bases]
        self.frozen = Frozen(name, bases, sum(one.lora_A.shape[0] for one in self.adapted), where)
        self.outer, self.rank, self.inner = self.frozen.outer, self.frozen.rank, self.frozen.inner
        """Widths: of all outputs together, of all adapters together, and of the input."""
        self.lora_a = self.frozen.lora_a
        """The A matrices in the type of the products. Shape (rank, inner)."""
        self.scaling = self.adapted[0].scaling if self.adapted else 1.0
        self.dropout = self.adapted[0].dropout if self.adapted else 0.0
        self.bias = _bias(f"{name}.bias", bases, sizes, where)
        self._runs = list(_runs(layers, sizes, self.lora_a))
        self.lora_a_master = self.lora_a
        """The A matrices as they are trained, once `bind` was called. Shape (rank, inner)."""
        self._lora_a_grad: Tensor | None = None

    @property
    def width(self) -> int:
        """Columns of what `forward` writes: all outputs, then what the A matrices give."""
        return int(self.outer + self.rank)

    def bind(self) -> None:
        """Take the places of weights and gradients, once they are laid out: A matrices lie side by side."""
        if self.adapted:
            weight, size = self.adapted[0].lora_A, (self.rank, self.inner)
            assert weight.grad is not None  # noqa: S101 - FlatWeights laid it out
            self.lora_a_master = torch.as_strided(weight.data, size, (self.inner, 1))
            self._lora_a_grad = torch.as_strided(weight.grad, size, (self.inner, 1))
        for run in self._runs:
            run.bind()

    def copies(self) -> list[tuple[Tensor, Tensor]]:
        """Each copy of trained weights that the products read, and what it is a copy of."""
        lora_a_copies = [(self.lora_a, self.lora_a_master)] if self.rank else []
        return lora_a_copies + [(run.lora_b, run.masters()) for run in self._runs]

    def lora_b_of_runs(self) -> list[Tensor]:
        """The B matrices in the type of the products. Shape (count, width, rank) each."""
        return [run.lora_b for run in self._runs]

    def lora_b_gradients(self) -> list[Tensor]:
        """The gradients of the B matrices, once `bind` was called. Shape (width, rank) each."""
        return [grad for run in self._runs for grad in run.grad]

    @property
    def lora_b(self) -> LoraB | None:
        """The B matrices and their scale, where all layers have adapters of one rank; else None."""
        matrices = [lora_b for run in self._runs for lora_b in run.lora_b]
        ranks = {matrix.shape[1] for matrix in matrices}
        return (matrices, self.scaling) if len(matrices) == self._layers and len(ranks) == 1 else None

    def forward(self, rows: Tensor, out: Tensor, dropped: Tensor | None = None) -> None:
        """Apply the layers, and the A matrices of their adapters.

        Args:
            rows: Shape (tokens, inner).
            out: Gets the outputs, and what the A matrices give. Shape (tokens, outer + rank).
            dropped: The rows after dropout, for the adapters; None where there is none. Shape as `rows`.
        """
        if dropped is None:
            torch.mm(rows, self.frozen.whole().t(), out=out)
        else:
            add_product(out[:, : self.outer], rows, self.frozen.whole()[: self.outer].t(), add=False)
            add_product(out[:, self.outer :], dropped, self.lora_a.t(), add=False)

    def add_lora_b(self, out: Tensor) -> None:
        """Add the products of the B matrices and what the A matrices gave.

        Args:
            out: As `forward` left it. Shape (tokens, outer + rank).
        """
        tokens = len(out)
        for run in self._runs:
            into = out[:, run.columns].view(tokens, run.count, -1).transpose(0, 1)
            small = out[:, run.small].view(tokens, run.count, -1).transpose(0, 1)
            add_products(into, small, run.lora_b.transpose(1, 2), scale=self.scaling, add=True)

    def backward_lora_b(self, grad: Tensor, small: Tensor, *, add: bool) -> None:
        """Make the gradients of the B matrices.

        Args:
            grad: Of the outputs. Shape (tokens, outer + rank).
            small: What the A matrices gave; may be the last columns of `grad`. Shape (tokens, rank).
            add: Add to gradients that are there.
        """
        tokens = len(grad)
        for run in self._runs:
            begin = run.small.start - self.outer
            grad_out = grad[:, run.columns].view(tokens, run.count, -1).transpose(0, 1)
            given = small[:, begin : begin + run.count * run.rank].view(tokens, run.count, -1).transpose(0, 1)
            add_products(run.grad, grad_out.transpose(1, 2), given, scale=self.scaling, add=add)

    def fold(self, grad: Tensor) -> None:
        """Make the gradient of what the A matrices gave, in the last columns of `grad`.

        Args:
            grad: Of the outputs; its last columns get the result. Shape (tokens, outer + rank).
        """
        tokens = len(grad)
        for run in self._runs:
            grad_out = grad[:, run.columns].view(tokens, run.count, -1).transpose(0, 1)
            grad_small = grad[:, run.small].view(tokens, run.count, -1).transpose(0, 1)
            add_products(grad_small, grad_out, run.lora_b, scale=self.scaling, add=False)

    def backward_lora_a(self, grad: Tensor, rows: Tensor, *, add: bool) -> None:
        """Make the gradient of the A matrices.

        Args:
            grad: As `fold` leaves it. Shape (tokens, outer + rank).
            rows: What the adapters have read. Shape (tokens, inner).
            add: Add to a gradient that is there.
        """
        if self._lora_a_grad is not None:
            add_product(self._lora_a_grad, grad[:, self.outer :].t(), rows, add=add)

    def backward_small(self, grad: Tensor, into: Tensor) -> None:
        """Make the gradient of what the adapters have read.

        Args:
            grad: As `fold` leaves it. Shape (tokens, outer + rank).
            into: Gets it. Shape (tokens, inner).
        """
        torch.mm(grad[:, self.outer :], self.lora_a, out=into)

    def backward_rows(self, grad: Tensor, into: Tensor, *, adapters: bool = True) -> None:
        """Make the gradient of the input.

        Args:
            grad: As `fold` leaves it. Shape (tokens, outer + rank).
            into: Gets it. Shape (tokens, inner).
            adapters: With what comes back through the adapters.
        """
        if adapters:
            torch.mm(grad, self.frozen.whole(), out=into)
        else:
            torch.mm(grad[:, : self.outer], self.frozen.whole()[: self.outer], out=into)


def _bias(name: str, bases: Sequence[Any], sizes: Sequence[int], where: WeightPlacement) -> Tensor | None:
    """The biases side by side; None where no layer has one."""
    if all(base.bias is None for base in bases):
        return None
    like = next(base.bias.data for base in bases if base.bias is not None)
    parts = [
        like.new_zeros(size) if base.bias is None else base.bias.data
        for base, size in zip(bases, sizes, strict=True)
    ]
    return where.take(name, nn.Parameter(torch.cat(parts), requires_grad=False))


def _runs(layers: Sequence[nn.Module], sizes: Sequence[int], like: Tensor) -> Iterator[_Run]:
    """Adapters that are alike, side by side."""
    column, small = 0, sum(sizes)
    for (size, rank), alike in groupby(zip(layers, sizes, strict=True), key=_kind):
        adapted = [layer for layer, _ in alike if isinstance(layer, LoraLinear)]
        count = len(adapted)
        if count:
            lora_b = torch.empty(count, size, rank, dtype=like.dtype, device=like.device)
            columns, smalls = slice(column, column + count * size), slice(small, small + count * rank)
            yield _Run(columns, smalls, lora_b, adapted, lora_b)
        column, small = column + max(count, 1) * size, small + count * rank


def _kind(one: tuple[nn.Module, int]) -> tuple[int, int]:
    """The output and the rank of a layer; layers without adapters stand alone."""
    layer, size = one
    return size, layer.lora_A.shape[0] if isinstance(layer, LoraLinear) else -id(layer)
