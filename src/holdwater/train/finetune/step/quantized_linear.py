"""Linear layers of any model with frozen weights in few bits, for steps under autograd.

Source of training adapters of such weights: Dettmers et al. (2023), "QLoRA", arXiv 2305.14314.
"""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from holdwater.train.finetune.fused.frozen import make_whole
from holdwater.train.finetune.fused.quantized import BLOCK, Quantized, quantize
from holdwater.train.finetune.model.lora import is_linear, is_transposed


class QuantizedLinear(nn.Module):
    """A linear layer whose frozen weight is made whole for each product, and once more in the backward pass."""

    def __init__(self, base: nn.Module, bits: int, device: str) -> None:
        """Take the place of a layer.

        Args:
            base: With a frozen weight of a multiple of 64 elements.
            bits: 4 or 8.
            device: Where the weight is to lie.
        """
        super().__init__()
        weight: Tensor = base.weight  # type: ignore[assignment] # every linear layer has one
        self.transposed = is_transposed(base)
        self.size, self.weight_dtype = weight.shape, weight.dtype
        few = quantize(weight.data, bits, device)
        for field in fields(few):
            self.register_buffer(field.name, getattr(few, field.name), persistent=False)
        self.bias: nn.Parameter | None = base.bias  # type: ignore[assignment]

    @property
    def weight(self) -> Tensor:
        """The same, for code of models that reads it."""
        return self.whole()

    def whole(self) -> Tensor:
        """The weight, as its layer had it. Shape (outer, inner); the other way round where that was so."""
        few = Quantized(*(getattr(self, field.name) for field in fields(Quantized)))
        out = torch.empty(self.size, dtype=self.weight_dtype, device=few.codes.device)
        make_whole(few, out)
        return out

    def forward(self, rows: Tensor) -> Tensor:
        """Return what the layer makes of its input. Shapes: (..., inner) in, (..., outer) out."""
        out: Tensor = _Product.apply(rows, self)  # type: ignore[no-untyped-call]
        return out if self.bias is None else out + self.bias


class _Product(torch.autograd.Function):
    """The product with a weight that is not kept whole in between."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, layer: QuantizedLinear) -> Tensor:  # noqa: ANN401 - autograd's own
        """Make the output; nothing is kept but the layer."""
        ctx.layer = layer
        weight = layer.whole()
        return rows @ (weight if layer.transposed else weight.t())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        """Make the gradient of the input."""
        weight = ctx.layer.whole()
        return grads[0] @ (weight.t() if ctx.layer.transposed else weight), None


def quantize_linear_layers(
    model: Any,  # noqa: ANN401 - of Transformers
    bits: int,
    device: str,
    *,
    within: str = "",
) -> tuple[int, float]:
    """Put the weights of a model's linear layers in few bits, one after another; its head stays as it is.

    Args:
        model: Frozen, with adapters; its layers are replaced in place.
        bits: 4 or 8.
        device: Where they are to lie.
        within: Only layers whose names begin so.

    Returns:
        How many layers were replaced, and the share of all frozen weights that lies in them.
    """
    head = model.get_output_embeddings()
    head = getattr(head, "base", head)
    frozen = sum(weight.numel() for weight in model.parameters() if not weight.requires_grad)
    quantized = 0
    chosen = [
        (name, module)
        for name, module in model.named_modules()
        if name.startswith(within)
        and is_linear(module)
        and module is not head
        and module.weight.numel() % BLOCK == 0
    ]
    for name, module in chosen:
        parent, _, child = name.rpartition(".")
        quantized += module.weight.numel()
        setattr(model.get_submodule(parent), child, QuantizedLinear(module, bits, device))
    return len(chosen), quantized / frozen
