"""Rows of examples with pictures: like rows of text, with rotary positions and the pictures of each row."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from holdwater.train.finetune.data.examples import Example
from holdwater.train.finetune.data.held_out import Chosen
from holdwater.train.finetune.data.packing import Examples, Packed, PackedBatches, pack
from holdwater.train.finetune.vision.examples import PassedOver, PictureExample, PlacedPicture

ROWS_AHEAD = 2
"""Micro-batches whose pictures are decoded ahead, if an example fills a row."""


@dataclass(frozen=True)
class PackedPictures(Packed):
    """Rows of examples, and their pictures."""

    axes: Tensor
    """Rotary positions in three dimensions; counted ones where a model has no others. Shape (rows, 3, length)."""
    pictures: tuple[tuple[PlacedPicture, ...], ...]
    """Of each row, in the order of their tokens."""

    def part(self, begin: int, end: int) -> "PackedPictures":
        """The rows from one number to another."""
        if begin == 0 and end >= len(self.tokens):
            return self
        return self._with([tensor[begin:end] for tensor in self._tensors()], self.pictures[begin:end])

    def to(self, device: str | torch.device) -> "PackedPictures":
        """The same on another device; pictures stay where they are."""
        if self.tokens.device == torch.device(device):
            return self
        return self._with([tensor.to(device) for tensor in self._tensors()], self.pictures)

    @staticmethod
    def _with(tensors: list[Tensor], pictures: tuple[tuple[PlacedPicture, ...], ...]) -> "PackedPictures":
        """Rows of these parts."""
        tokens, targets, positions, segments, weights, axes = tensors
        return PackedPictures(tokens, targets, positions, segments, weights, axes, pictures)

    def _tensors(self) -> list[Tensor]:
        """All tensors."""
        return [self.tokens, self.targets, self.positions, self.segments, self.weights, self.axes]


def pack_pictures(examples: Sequence[list[Example]], length: int, *, weighs: bool = False) -> PackedPictures:
    """Lay examples with and without pictures out in rows.

    Args:
        examples: Of each row; what goes beyond its end is cut off.
        length: Tokens in a row.
        weighs: Weigh the examples by their sources.
    """
    plain = pack(list(examples), length, weighs=weighs)
    axes = plain.positions[:, None].repeat(1, 3, 1).numpy()
    for number, row in enumerate(examples):
        at = 0
        for example in row:
            count = min(len(example.tokens), length - at)
            if isinstance(example, PictureExample) and example.axes is not None:
                axes[number, :, at : at + count] = example.axes[:, :count]
            at += count
    pictures = tuple(
        tuple(one for example in row if isinstance(example, PictureExample) for one in example.pictures)
        for row in examples
    )
    return PackedPictures(
        plain.tokens, plain.targets, plain.positions, plain.segments, plain.weights,
        torch.from_numpy(np.ascontiguousarray(axes)), pictures,
    )  # fmt: skip


class PictureBatches(PackedBatches):
    """Batches of examples with pictures; those of the next examples are decoded ahead."""

    def __init__(self, examples: "PictureExamples", *, ahead: int = 0, **options: Any) -> None:  # noqa: ANN401
        """Begin with the first epoch.

        Args:
            examples: What is packed.
            ahead: Examples whose pictures are decoded before their turn.
            options: As for `PackedBatches`.
        """
        super().__init__(examples, **options)
        self._pictured, self._ahead = examples, ahead
        self.passed_over = 0
        """Examples so far that were passed over, since a picture could not be read."""

    def lay_out(self, rows: list[list[Example]]) -> PackedPictures:
        """Pack the examples of a batch."""
        return pack_pictures(rows, self.length, weighs=self.weighs)

    def state(self) -> dict[str, Any]:
        """The place in the order, as JSON."""
        return super().state() | {"passed_over": self.passed_over}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a place."""
        super().restore(state)
        self.passed_over = int(state["passed_over"])
        self._pictured.forget()

    def _read(self, number: int) -> Example | None:
        """Read an example, and let the next ones be decoded; None where a picture cannot be read."""
        if self._ahead:
            begin = self._taken + (self._waiting is not None)  # the one that waits is decoded already
            self._pictured.expect(self._order[begin : self._taken + self._ahead].tolist())
        try:
            return super()._read(number)
        except PassedOver:
            self.passed_over += 1
            return None


class PictureExamples(Examples, Protocol):
    """Examples by number, whose pictures can be decoded ahead."""

    def expect(self, numbers: Iterable[int]) -> None:
        """Decode these ahead."""
        ...

    def forget(self) -> None:
        """Forget what was decoded ahead."""
        ...


class ChosenPictures(Chosen):
    """Some of the examples of a corpus with pictures."""

    def __init__(self, corpus: PictureExamples, numbers: Sequence[int]) -> None:
        super().__init__(corpus, numbers)
        self._pictured = corpus

    def expect(self, numbers: Iterable[int]) -> None:
        """Decode these ahead."""
        self._pictured.expect([self.numbers[number] for number in numbers])

    def forget(self) -> None:
        """Forget what was decoded ahead."""
        self._pictured.forget()
