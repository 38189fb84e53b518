"""Cosines and sines of rotary positions: by a token's place in its example, or by three positions of its own.

Where positions have three dimensions each frequency follows one of them (Qwen2.5-VL: in blocks; Qwen3-VL: in
turns). Which one is read off the model's own code.
"""

from typing import Any

import torch
from torch import Tensor


class RotaryTables:
    """The tables of a model, and those of a micro-batch whose positions have three dimensions."""

    def __init__(self, rotary: Any, like: Tensor, *, length: int, tokens: int) -> None:  # noqa: ANN401
        """Ask the model's code for all positions.

        Args:
            rotary: Of Transformers, on its device.
            like: A weight, for type and device.
            length: Positions.
            tokens: Of a micro-batch, at most.
        """
        positions = torch.arange(length, device=like.device)
        axes = takes_axes(rotary)
        cosine, sine = rotary(like[:1][None], positions.expand(3, 1, -1) if axes else positions[None])
        half = cosine.shape[-1] // 2
        self.by_position = torch.stack([cosine[0, :, :half], sine[0, :, :half]]).contiguous()
        """Shape (2, length, head_width / 2)."""
        self._axis = _axis_of_each(rotary, half, like.device) if axes else None
        if axes:
            self._index = positions.new_empty(half, tokens)
            self._own = like.new_empty(2, tokens, half)
            self._zero = torch.zeros(tokens, dtype=torch.int32, device=like.device)

    def of(self, axes: Tensor | None, begins: Tensor) -> tuple[Tensor, Tensor]:
        """The tables of a micro-batch, and which place of its example each token counts from.

        Args:
            axes: Positions in three dimensions; None where they are counted. Shape (3, tokens), int64.
            begins: Where the example of each token begins. Shape (tokens,), int32.

        Returns:
            Cosines and sines, of which the token at `place` reads row `place - begin`, and these begins.
        """
        if axes is None or self._axis is None:
            return self.by_position, begins
        count = axes.shape[1]
        index = self._index.flatten()[: self._index.shape[0] * count].view(-1, count)
        torch.index_select(axes, 0, self._axis, out=index)
        own = self._own.flatten()[: 2 * count * len(index)].view(2, count, -1)
        for table, into in zip(self.by_position, own, strict=True):
            torch.gather(table, 0, index.t(), out=into)
        return own, self._zero[:count]


def takes_axes(rotary: Any) -> bool:  # noqa: ANN401 - of Transformers
    """Whether a model's rotary positions have three dimensions.

    Args:
        rotary: Of Transformers.
    """
    return hasattr(rotary, "mrope_section")


def _axis_of_each(rotary: Any, half: int, device: torch.device) -> Tensor:  # noqa: ANN401
    """Which dimension of the positions each frequency follows. Shape (half,), int64."""
    like = torch.empty(1, device=device)  # in float32: a slow frequency must be seen to turn
    turned = []
    for axis in range(3):
        positions = torch.zeros(3, 1, 1, dtype=torch.int64, device=device)
        positions[axis] = 1
        turned.append(rotary(like, positions)[1].flatten()[:half] != 0)
    return torch.stack(turned).to(torch.int64).argmax(0)
