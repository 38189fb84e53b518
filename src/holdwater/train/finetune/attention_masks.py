"""Attention masks of packed rows, in the form that each model's own code takes.

A model gets a finished mask, since several examples lie in a row. A sliding window must be in it already:
Transformers applies the window only to masks that it makes itself.
"""

from typing import Any

import torch
from torch import Tensor


def attention_masks(config: Any, mask: Tensor) -> Tensor | dict[str, Tensor]:  # noqa: ANN401 - of Transformers
    """The mask of each kind of layer.

    Args:
        config: Of the language model.
        mask: Who may look at whom, before any window. Shape (rows, 1, length, length).

    Returns:
        By the kind of layer where a model has several kinds; else the mask itself.
    """
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if window is None or getattr(config, "use_sliding_window", True) is False:
        window = None
    if kinds == {"full_attention", "sliding_attention"}:
        return {"full_attention": mask, "sliding_attention": _within(mask, window)}
    return _within(mask, window) if kinds <= {"sliding_attention"} else mask


def _within(mask: Tensor, window: int | None) -> Tensor:
    """A mask, and nothing further back than a window."""
    if window is None or mask.shape[-1] <= window:
        return mask
    places = torch.arange(mask.shape[-1], device=mask.device)
    return mask & (places[None, :] > places[:, None] - window)
