"""Batches for MLX: each example has a row of its own, padded to one of a few lengths.

The models of `mlx_lm` take no mask of segments, so examples that share a row would see each other. Lengths are
rounded up to a few buckets, since each length is compiled and cached for itself.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from holdwater.train.finetune.data.examples import Example
from holdwater.train.finetune.data.packing import PackedBatches, pack
from holdwater.train.finetune.losses import IGNORED

SHORTEST = 32
"""The smallest bucket, in tokens."""


@dataclass(frozen=True)  # no slots: a cached property is kept with the fields
class ExampleRows:
    """Rows of one example each. Shapes: (rows, length)."""

    tokens: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]
    """The next token, or 0 where `weights` is 0."""
    weights: npt.NDArray[np.float32]
    """What a token counts in the loss; 0 where nothing is learned."""

    def part(self, begin: int, end: int) -> "ExampleRows":
        """The rows from one number to another."""
        return ExampleRows(self.tokens[begin:end], self.targets[begin:end], self.weights[begin:end])

    def learned(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Places, targets and weights of the learned tokens only: nothing else needs logits.

        Places count the tokens of all rows one after another. The number of learned tokens is rounded up to a
        bucket by tokens whose weight is 0. Shape (bucket,) each.
        """
        places = np.flatnonzero(self.weights).astype(np.int32)
        padded = np.zeros(bucket(len(places), self.weights.size), np.int32)
        padded[: len(places)] = places
        weights = self.weights.ravel()[padded]
        weights[len(places) :] = 0
        return padded, self.targets.ravel()[padded], weights

    @cached_property
    def weight(self) -> float:
        """What the learned tokens count together."""
        return float(self.weights.sum())


def bucket(longest: int, most: int) -> int:
    """The length of rows whose longest example has so many tokens: 32, 48, 64, 96, 128 and so on.

    Args:
        longest: Tokens of the longest example.
        most: The largest length, whatever that is.
    """
    length = SHORTEST
    while length < longest:
        length = length * 3 // 2 if length & (length - 1) == 0 else length * 4 // 3
    return min(length, most)


class RowBatches(PackedBatches):
    """Batches of rows of one example each; can resume from any batch."""

    packs: ClassVar[bool] = False

    def draw(self, device: object = "") -> ExampleRows:  # type: ignore[override] # rows of another kind
        """Return the next batch, in the host's memory: MLX copies it when a step begins."""
        del device
        examples = [self._fill_row()[0] for _ in range(self.size)]
        batch = self._pad(examples)
        self.places += batch.tokens.size
        self.filled += sum(min(len(example.tokens), self.length) for example in examples)
        return batch

    def _pad(self, examples: list[Example]) -> ExampleRows:
        """Lay examples out in rows of the smallest bucket that holds them."""
        length = bucket(max(len(example.tokens) for example in examples), self.length)
        packed = pack([[example] for example in examples], length, weighs=self.weighs)
        targets = packed.targets.numpy().astype(np.int32)
        learned = targets != IGNORED
        weights: Any = np.where(learned, packed.weights.numpy(), np.float32(0))
        return ExampleRows(packed.tokens.numpy().astype(np.int32), np.where(learned, targets, 0), weights)
