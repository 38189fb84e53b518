"""Losses of vision-language models on packed rows: features of frozen towers in the places of their tokens.

Features depend on the picture alone and are the same in every packing, in every epoch and after every resume,
whether they are kept or made anew: the tower sees one picture at a time, or several where that changes no bit.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from holdwater.train.finetune.attention_masks import attention_masks
from holdwater.train.finetune.data.packing import Packed
from holdwater.train.finetune.fused.decoder import Inputs
from holdwater.train.finetune.fused.shape import body_of
from holdwater.train.finetune.losses import CHUNK, chunked_cross_entropy
from holdwater.train.finetune.step.autograd import AutogradStep, packed_of
from holdwater.train.finetune.vision.families import Family
from holdwater.train.finetune.vision.packing import PackedPictures
from holdwater.train.flat import FlatWeights

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
    """For the hidden states of early layers: at the pictures' places, one after another."""


class PictureStep(AutogradStep):
    """Losses and gradients of a model with a frozen tower, on inputs and features that stay where they are."""

    def __init__(self, model: Any, family: Family, weights: FlatWeights, *, length: int) -> None:  # noqa: ANN401
        """Take a model.

        Args:
            model: Of Transformers, on its device.
            family: Of the model.
            weights: Its trained ones, laid out.
            length: Tokens in a row.
        """
        super().__init__(model, weights, length=length)
        self._family = family
        if added_layers(model):  # the model's own way looks places up, which a captured step cannot wait for
            body_of(model)._deepstack_process = _add_everywhere  # noqa: SLF001 - there is no public name

    def _loss(self, inputs: Inputs) -> Tensor:
        """The weighted sum of cross-entropies."""
        plain, pictures = packed_of(inputs, self._length), inputs.pictures
        assert pictures is not None, "a model with pictures takes them"  # noqa: S101 - a mistake of ours
        shape = len(plain.tokens), self._length
        known = [features.view(*shape, -1) for features in pictures.features]
        pictured, axes = pictures.pictured.view(shape), pictures.axes.view(3, *shape)
        hidden = torch.where(pictured[..., None], known[0], self._model.get_input_embeddings()(plain.tokens))
        embedded = Embedded(hidden, pictured, tuple(known[1:]))
        return _embedded_loss(self._model, self._family, plain, axes, embedded, chunk=CHUNK)


def _add_everywhere(hidden: Tensor, places: Tensor, features: Tensor) -> Tensor:
    """Add features to hidden states; they are zero where there is no picture. Shapes (rows, length, width)."""
    del places
    return hidden + features


def added_layers(model: Any) -> int:  # noqa: ANN401 - of Transformers
    """Behind how many early layers features are added to hidden states."""
    return len(getattr(model.config.vision_config, "deepstack_visual_indexes", None) or ())


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
    embedded = embed(model, family, packed, features)
    return _embedded_loss(model, family, packed, packed.axes.transpose(0, 1), embedded, chunk=chunk)


def _embedded_loss(  # noqa: PLR0913 - as `picture_loss`
    model: Any,  # noqa: ANN401 - of Transformers
    family: Family,
    packed: Packed,
    axes: Tensor,
    embedded: Embedded,
    *,
    chunk: int,
) -> Tensor:
    """As `picture_loss`, of tokens and features that were embedded; axes have the shape (3, rows, length)."""
    config = model.config.get_text_config()
    inputs: dict[str, Any] = {
        "inputs_embeds": embedded.hidden,
        "position_ids": axes if family.has_axes else packed.positions,
        "attention_mask": attention_masks(config, _mask(model, packed, embedded.pictured)),
        "use_cache": False,
    }
    if embedded.added:
        inputs |= {"visual_pos_masks": embedded.pictured, "deepstack_visual_embeds": list(embedded.added)}
    hidden = body_of(model)(**inputs).last_hidden_state.flatten(0, 1)
    targets, weights = packed.targets.flatten(), packed.weights.flatten()
    return chunked_cross_entropy(hidden, model.get_output_embeddings().weight, targets, weights, chunk=chunk)


def _mask(model: Any, packed: Packed, pictured: Tensor) -> Tensor:  # noqa: ANN401
    """Who may look at whom; tokens of a picture of Gemma 3 see each other. Shape (rows, 1, length, length)."""
    mask = packed.mask()
    if model.config.model_type != "gemma3":
        return mask
    begins = pictured & ~nn.functional.pad(pictured, (1, 0))[:, :-1]
    number = torch.where(pictured, begins.cumsum(1), 0)
    same = (number[:, :, None] == number[:, None, :]) & pictured[:, :, None]
    return mask | same[:, None]
