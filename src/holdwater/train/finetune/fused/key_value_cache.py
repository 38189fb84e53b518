"""Keys and values of earlier tokens, so that each generated token takes one row and not all before it again."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from holdwater.train.finetune.fused.shape import DecoderShape

if TYPE_CHECKING:
    from holdwater.train.finetune.fused.buffers import StepBuffers


@dataclass(slots=True)
class KeyValueCache:
    """Keys and values of each layer, in the buffers of the residual stream: only a backward pass needs these."""

    shape: DecoderShape
    streams: list[Tensor]
    """A buffer for each layer. Shape (tokens, width) each."""
    tokens: int = field(default=0, init=False)
    """Whose keys and values all layers hold."""

    @classmethod
    def of(cls, buffers: "StepBuffers", shape: DecoderShape) -> "KeyValueCache | None":
        """Take the buffers of a step; None where layers share them, or keys and values are wider.

        Args:
            buffers: Of the step.
            shape: Of the decoder.
        """
        streams = buffers.streams[: shape.layers]
        shared = len({stream.data_ptr() for stream in streams}) < len(streams)
        return None if shared or 2 * _width(shape) > shape.width else cls(shape, streams)

    def keep(self, layer: int, rotated: Tensor) -> None:
        """Take the keys and values of new tokens.

        Args:
            layer: From 0; its buffer holds nothing else from here on.
            rotated: Queries, keys and values side by side. Shape (new tokens, attention_width).
        """
        first, width = self.shape.query_width, 2 * _width(self.shape)
        self.streams[layer][self.tokens : self.tokens + len(rotated), :width].copy_(
            rotated[:, first : first + width]
        )

    def attend(self, layer: int, rotated: Tensor, out: Tensor) -> None:
        """Let one new token look at itself and at all before it.

        Args:
            layer: From 0.
            rotated: Queries, keys and values of the token. Shape (1, attention_width).
            out: Gets the result. Shape (1, query_width).
        """
        self.keep(layer, rotated)
        heads, each = self.shape.kv_heads, self.shape.head_width
        queries = rotated[0, : self.shape.query_width].view(heads, -1, each).float()
        known = self.streams[layer][: self.tokens + 1, : 2 * _width(self.shape)].float()
        keys, values = known.view(len(known), 2, heads, each).unbind(1)
        probs = (torch.einsum("hgd,khd->hgk", queries, keys) * each**-0.5).softmax(-1)
        out.copy_(torch.einsum("hgk,khd->hgd", probs, values).reshape(1, -1))


def _width(shape: DecoderShape) -> int:
    """Of the keys of a token, and of its values."""
    return shape.kv_heads * shape.head_width
