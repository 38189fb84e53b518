"""Rows of one example each, with what the processor of any vision-language model has made of its pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from holdwater.train.finetune.data.examples import Example
from holdwater.train.finetune.data.packing import Packed, pack
from holdwater.train.finetune.vision.generic_corpus import ProcessedExample
from holdwater.train.finetune.vision.generic_processor import Inputs
from holdwater.train.finetune.vision.packing import PictureBatches, PictureExamples


@dataclass(frozen=True)
class ProcessedRows(Packed):
    """Rows of one example each, and what the model's forward takes for each of them."""

    inputs: tuple[Inputs, ...]
    """Of each row, without tokens and attention mask."""

    def part(self, begin: int, end: int) -> "ProcessedRows":
        """The rows from one number to another."""
        if begin == 0 and end >= len(self.tokens):
            return self
        return self._with([tensor[begin:end] for tensor in self._tensors()], self.inputs[begin:end])

    def to(self, device: str | torch.device) -> "ProcessedRows":
        """The same on another device; inputs stay where they are."""
        if self.tokens.device == torch.device(device):
            return self
        return self._with([tensor.to(device) for tensor in self._tensors()], self.inputs)

    def rows(self) -> list["ProcessedRows"]:
        """Each row for itself."""
        return [self.part(number, number + 1) for number in range(len(self.tokens))]

    @staticmethod
    def _with(tensors: list[Tensor], inputs: tuple[Inputs, ...]) -> "ProcessedRows":
        """Rows of these parts."""
        tokens, targets, positions, segments, weights = tensors
        return ProcessedRows(tokens, targets, positions, segments, weights, inputs)

    def _tensors(self) -> list[Tensor]:
        """All tensors that are the same for all models."""
        return [self.tokens, self.targets, self.positions, self.segments, self.weights]


def lay_out_rows(examples: Sequence[Example], length: int, *, padding: int, weighs: bool = False) -> ProcessedRows:
    """Lay examples out, one in each row.

    Args:
        examples: What goes beyond the end of a row is cut off.
        length: Tokens in a row.
        padding: The token that fills a row up, on the right.
        weighs: Weigh the examples by their sources.
    """
    plain = pack([[example] for example in examples], length, padding=padding, weighs=weighs)
    inputs = tuple(
        _lengthened(example.inputs, len(example.tokens), length) if isinstance(example, ProcessedExample) else {}
        for example in examples
    )
    return ProcessedRows(plain.tokens, plain.targets, plain.positions, plain.segments, plain.weights, inputs)


def _lengthened(inputs: Inputs, count: int, length: int) -> Inputs:
    """Inputs whose parts for each token have a row's length: zeros are added, or their end is cut off."""
    return {
        name: _to_length(value, length) if _is_by_token(name, value, count) else value
        for name, value in inputs.items()
    }


def _is_by_token(name: str, value: Tensor, count: int) -> bool:
    """Whether an input has something for each token of its example. What is of pixels may have the same shape."""
    return value.dim() > 1 and value.shape[:2] == (1, count) and not name.startswith(("pixel", "image"))


def _to_length(value: Tensor, length: int) -> Tensor:
    """Bring the second dimension to a row's length."""
    made = value.new_zeros(1, length, *value.shape[2:])
    made[:, : value.shape[1]] = value[:, :length]
    return made


class ProcessedBatches(PictureBatches):
    """Batches of rows of one example each."""

    packs: ClassVar[bool] = False

    def __init__(self, examples: PictureExamples, *, padding: int, **options: Any) -> None:  # noqa: ANN401
        """Begin with the first epoch.

        Args:
            examples: What is laid out.
            padding: The token that fills rows up.
            options: As for `PackedBatches`.
        """
        super().__init__(examples, **options)
        self._padding = padding

    def lay_out(self, rows: list[list[Example]]) -> ProcessedRows:  # type: ignore[override] # rows of another kind
        """Lay out the examples of a batch."""
        return lay_out_rows([row[0] for row in rows], self.length, padding=self._padding, weighs=self.weighs)
