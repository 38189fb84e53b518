"""Text that a vision-language model writes of pictures: what it is asked, and Transformers' own generation."""

from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from holdwater.train.finetune.vision.examples import PictureExample
from holdwater.train.finetune.vision.families import Family


def prompt_of(example: PictureExample, family: Family, most: int) -> PictureExample:
    """The beginning of an example, which a model may continue; a picture is left out unless all of it is there.

    Args:
        example: With its pictures.
        family: Of the model.
        most: Tokens, at most.
    """
    begin = example.beginning[:most]
    places = [number for number, token in enumerate(example.tokens) if token == family.image_token]
    ends = list(accumulate(one.features for one in example.pictures))
    shown = sum(places[end - 1] < len(begin) for end in ends)
    kept = ends[shown - 1] if shown else 0
    if kept < len(places):  # the next picture is not there as a whole
        begin = begin[: places[kept]]
    axes = None if example.axes is None else example.axes[:, : len(begin)]
    return replace(
        example, tokens=begin, learned=[False] * len(begin), structure=None, pictures=example.pictures[:shown],
        axes=axes,
    )  # fmt: skip


@torch.no_grad()
def describe(
    model: Any,  # noqa: ANN401 - of Transformers
    family: Family,
    prompt: PictureExample,
    count: int,
    *,
    padding: int,
) -> list[int]:
    """Let a model continue a prompt with the likeliest tokens.

    Args:
        model: Of the family, on its device, in training mode.
        family: Its family.
        prompt: With its pictures.
        count: Tokens to add, at most.
        padding: The token that stands for none.

    Returns:
        What was added.
    """
    device = model.device
    tokens = torch.tensor([prompt.tokens], device=device)
    inputs: dict[str, Tensor] = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if prompt.pictures:
        decoded = [family.inputs(one.picture.load()) for one in prompt.pictures]
        inputs |= {name: value.to(device) for name, value in family.join(decoded).items()}
        if family.kinds_name:
            inputs[family.kinds_name] = (tokens == family.image_token).long()
    found = model.eval().generate(**inputs, max_new_tokens=count, do_sample=False, pad_token_id=padding)
    model.train()
    added: list[int] = found[0].tolist()[len(prompt.tokens) :]
    return added
