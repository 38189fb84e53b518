"""Choose the budgets of a run's vision tower from the pictures of its examples, and capture the tower for them."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from holdwater.errors import DataError
from holdwater.train.finetune.vision.budgets import choose_budgets
from holdwater.train.finetune.vision.captured_tower import CapturedTower
from holdwater.train.finetune.vision.corpus import PictureCorpus
from holdwater.train.finetune.vision.families import Grid
from holdwater.train.finetune.vision.static_patches import PatchTower
from holdwater.train.finetune.vision.static_squares import SquareTower, TileTower
from holdwater.train.finetune.vision.static_tower import StaticTower

log = logging.getLogger("holdwater")

EXAMPLES = 256
"""That are read, at most: their tokens, and the sizes of their pictures."""
MOST_PATCHES = 32_768
"""Of the largest budget: what a pass needs grows with it. A picture that is larger has a pass of its own."""
KINDS = 4
"""Budgets, at most: each is captured, and has its own pass at the start."""


class Sampled(NamedTuple):
    """What an example takes."""

    tokens: int
    pictures: tuple[Grid, ...]
    """Rows and columns of the features of each."""


def sample(corpus: PictureCorpus, numbers: Sequence[int]) -> list[Sampled]:
    """Read some examples, spread evenly; the same ones each time, so that a resumed run has the same budgets.

    Args:
        corpus: Of the run; no picture is decoded.
        numbers: Of the examples that are learned.
    """
    found = []
    for number in numbers[:: max(1, len(numbers) // EXAMPLES)][:EXAMPLES]:
        try:
            example = corpus.undecoded(number)
        except DataError:
            continue
        found.append(Sampled(len(example.tokens), tuple(one.grid for one in example.pictures)))
    return found


def micro_batches(tower: StaticTower, sampled: Sequence[Sampled], *, tokens: int) -> list[list[int]]:
    """The places that pictures take, for each micro-batch of a sample; those with none are left out.

    Args:
        tower: Says how many places a picture takes.
        sampled: Examples.
        tokens: Of a micro-batch.
    """
    most = _largest(tower)
    found: list[list[int]] = [[]]
    taken = 0
    for one in sampled:
        if taken + one.tokens > tokens:
            found.append([])
            taken = 0
        taken += one.tokens
        found[-1] += [size for grid in one.pictures if (size := tower.places(grid)) <= most]
    return [counts for counts in found if counts]


def budgets_for(tower: StaticTower, steps: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Budgets for single pictures and for whole micro-batches, with the least padding for a sample.

    Args:
        tower: Says how large budgets are, and how fine.
        steps: The places that pictures take, for each micro-batch.

    Returns:
        Ascending; empty without pictures.
    """
    counts = [count for step in steps for count in (*step, sum(step))]
    rounded = [-(-count // tower.step) * tower.step for count in counts]
    if not rounded:
        return ()
    return choose_budgets(rounded, most=min(_largest(tower), max(rounded)), kinds=KINDS)


def _largest(tower: StaticTower) -> int:
    """Places of the largest budget, at most."""
    return MOST_PATCHES // tower.patches // tower.step * tower.step


def static_tower_of(model: Any, device: torch.device | str) -> StaticTower | None:  # noqa: ANN401 - of Transformers
    """The tower of a vision-language model; None where Transformers is too old to take positions as arguments.

    Args:
        model: Of a known family; on its device, or moved there afterwards.
        device: Where the tower runs.
    """
    kind = str(model.config.model_type)
    if kind == "gemma3":
        return SquareTower(model)
    if kind in ("idefics3", "smolvlm"):
        return TileTower(model, device)
    return PatchTower(model, device) if PatchTower.is_known() else None


def capture_tower(
    tower: StaticTower | None,
    sampled: Sequence[Sampled],
    *,
    device: str,
    dtype: torch.dtype,
    tokens: int,
) -> CapturedTower | None:
    """Capture a tower; None where it runs eagerly, one picture at a time.

    That is so where no example has a picture, where Transformers is too old, and where passes fail at the start:
    for want of memory, or since the device has no flash attention.

    Args:
        tower: Frozen, on its device; None where Transformers is too old.
        sampled: Examples.
        device: Where.
        dtype: Of features, as they are needed.
        tokens: Of a micro-batch.
    """
    steps = [] if tower is None else micro_batches(tower, sampled, tokens=tokens)
    if tower is None or not steps:
        return None
    try:
        return CapturedTower(tower, budgets_for(tower, steps), device=device, dtype=dtype, steps=steps)
    except RuntimeError as error:
        why = str(error).split("\n", 1)[0]
        log.warning("the vision tower cannot be captured (%s): it takes one picture at a time", why)
        return None
