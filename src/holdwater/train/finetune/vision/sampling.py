"""Text that a vision-language model writes of pictures, by Transformers' own generation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from holdwater.train.finetune.vision.examples import PictureExample, PlacedPicture
from holdwater.train.finetune.vision.families import Family


@torch.no_grad()
def describe(  # noqa: PLR0913 - what a text follows from
    model: Any,  # noqa: ANN401 - of Transformers
    family: Family,
    example: PictureExample,
    count: int,
    *,
    most: int,
    padding: int,
) -> tuple[list[int], list[int]]:
    """Let a model answer the beginning of an example with the likeliest tokens.

    Args:
        model: Of the family, on its device, in training mode.
        family: Its family.
        example: With its pictures.
        count: Tokens to add, at most.
        most: Tokens of the beginning, at most.
        padding: The token that stands for none.

    Returns:
        The beginning, and what was added.
    """
    begin, device = example.beginning[:most], model.device
    tokens = torch.tensor([begin], device=device)
    shown = int((tokens == family.image_token).sum())
    inputs: dict[str, Tensor] = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    pictures = _whole(example.pictures, shown)
    if pictures:
        decoded = [family.inputs(one.picture.load()) for one in pictures]
        inputs |= {name: value.to(device) for name, value in family.join(decoded).items()}
        if family.kinds_name:
            inputs[family.kinds_name] = (tokens == family.image_token).long()
    found = model.eval().generate(**inputs, max_new_tokens=count, do_sample=False, pad_token_id=padding)
    model.train()
    return begin, found[0].tolist()[len(begin) :]


def _whole(pictures: Sequence[PlacedPicture], tokens: int) -> list[PlacedPicture]:
    """The first pictures that have all their tokens."""
    found: list[PlacedPicture] = []
    for one in pictures:
        tokens -= one.features
        if tokens < 0:
            break
        found.append(one)
    return found
