"""Vision towers that run on tensors of fixed shapes: several pictures one after another, padded up to a budget.

What follows from the shapes of pictures is made on the host and sent along, so that the device runs the same
kernels on the same addresses each time, waits for nothing, and can be captured.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from holdwater.train.finetune.vision.families import Grid

Inputs = Mapping[str, Tensor]
"""What a family makes of one decoded picture, in the host's memory."""
Parts = dict[str, Tensor]
"""What a pass of the tower reads, in buffers of fixed shapes."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One of the tensors that a pass reads."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """In bytes."""
        return prod(self.shape) * self.dtype.itemsize


class StaticTower(Protocol):
    """A vision tower and its projector; pictures take places: of patches, or of squares of one size."""

    unit: str
    """What a place holds, for people."""
    patches: int
    """In a place."""
    step: int
    """Budgets are multiples of so many places."""
    most: int
    """Pictures in a pass, at most."""

    def places(self, grid: Grid) -> int:
        """How many places a picture takes, by the rows and columns of its features."""
        ...

    def size(self, inputs: Inputs) -> int | None:
        """How many places a picture takes; None if it needs a pass of its own."""
        ...

    def features(self, places: int) -> int:
        """How many features so many places have."""
        ...

    def example(self, places: int, seed: int) -> Inputs:
        """A picture of noise of so many places, or somewhat fewer."""
        ...

    def layout(self, budget: int) -> dict[str, TensorSpec]:
        """What a pass of a budget reads."""
        ...

    def write(self, parts: Parts, pictures: Sequence[Inputs], budget: int) -> None:
        """Write pictures into what a pass reads, in the host's memory.

        Args:
            parts: As `layout` says; all that a picture's features follow from is overwritten.
            pictures: One or more, that together take no more places than the budget.
            budget: Places of the pass.
        """
        ...

    def tensors(self) -> list[Tensor]:
        """What it has allocated that is no part of the model."""
        ...

    def ready(self) -> AbstractContextManager[object]:
        """Change what `forward` needs changed in the model, until it is left."""
        ...

    def forward(self, parts: Parts, budget: int) -> tuple[Tensor, ...]:
        """Features of all places, and what early layers add. Shapes (features, width).

        Args:
            parts: As `layout` says, on the device.
            budget: Places of the pass.
        """
        ...
