"""Losses of vision-language models on packed rows: features of frozen towers in the places of their tokens.

The tower sees one picture at a time, so features depend on the picture alone and are the same in every packing, in
every epoch and after every resume, whether they are kept or made anew.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from holdwater.train.finetune.attention_masks import attention_masks
from holdwater.train.finetune.losses import chunked_cross_entropy
from holdwater.train.finetune.vision.families import Family
from holdwater.train.finetune.vision.packing import PackedPictures

Features = tuple[Tensor, ...]
"""Of one picture: those in the places of its tokens, and what is added to hidden states of early layers.
Shapes (count, width)."""


class Embedded(NamedTuple):
    """What a language model takes instead of tokens."""

    hidden: Tensor
    """Shape (rows, length, width)."""
    pictured: Tensor
    """Which places are a picture's. Shape (rows, length)."""
    added: tuple[Tensor, ...]
    """For the hidden states of early layers, at these places."""


def language_model(model: Any) -> Any:  # noqa: ANN401 - of Transformers
    """The language model of a vision-language model."""
    return model.model.text_model if hasattr(model.model, "text_model") else model.model.language_model


def embed(model: Any, family: Family, packed: PackedPictures, features: Sequence[Features]) -> Embedded:  # noqa: ANN401
    """Embed tokens, and put features in the places of pictures.

    Args:
        model: Of the family.
        family: Its family.
        packed: The rows, on the model's device.
        features: Of their pictures, in order.
    """
    hidden = model.get_input_embeddings()(packed.tokens)
    pictured = packed.tokens == family.image_token
    if not features:
        return Embedded(hidden, pictured, ())
    joined = [torch.cat(parts).to(hidden.device, hidden.dtype) for parts in zip(*features, strict=True)]
    hidden = hidden.masked_scatter(pictured[..., None], joined[0])
    return Embedded(hidden, pictured, tuple(joined[1:]))


def picture_loss(
    model: Any,  # noqa: ANN401 - of Transformers
    family: Family,
    packed: PackedPictures,
    features: Sequence[Features],
    *,
    chunk: int,
) -> Tensor:
    """The weighted sum of cross-entropies over the tokens of some rows, in nats.

    Args:
        model: Of the family, with or without adapters.
        family: Its family.
        packed: The rows, on the model's device.
        features: Of their pictures, in order.
        chunk: Tokens whose logits exist at once.

    Returns:
        The sum, in float32. Shape ().
    """
    body, config = language_model(model), model.config.get_text_config()
    embedded = embed(model, family, packed, features)
    inputs: dict[str, Any] = {
        "inputs_embeds": embedded.hidden,
        "position_ids": packed.axes.transpose(0, 1) if family.has_axes else packed.positions,
        "attention_mask": attention_masks(config, _mask(model, packed, embedded.pictured)),
        "use_cache": False,
    }
    if embedded.added:
        inputs |= {"visual_pos_masks": embedded.pictured, "deepstack_visual_embeds": list(embedded.added)}
    hidden = body(**inputs).last_hidden_state.flatten(0, 1)
    targets, weights = packed.targets.flatten(), packed.weights.flatten()
    return chunked_cross_entropy(hidden, model.get_output_embeddings().weight, targets, weights, chunk=chunk)


def _mask(model: Any, packed: PackedPictures, pictured: Tensor) -> Tensor:  # noqa: ANN401
    """Who may look at whom; tokens of a picture of Gemma 3 see each other. Shape (rows, 1, length, length)."""
    mask = packed.mask()
    if model.config.model_type != "gemma3":
        return mask
    begins = pictured & ~nn.functional.pad(pictured, (1, 0))[:, :-1]
    number = torch.where(pictured, begins.cumsum(1), 0)
    same = (number[:, :, None] == number[:, None, :]) & pictured[:, :, None]
    return mask | same[:, None]
