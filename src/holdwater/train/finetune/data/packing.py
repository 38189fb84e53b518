"""Rows of a fixed length, filled with whole examples one after another; none of them sees another.

Shapes never change, so memory does not, and a step can be captured. What is wasted on padding is counted. Source:
Krell et al. (2021), "Efficient Sequence Packing without Cross-contamination", arXiv 2107.02027.
"""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from holdwater.errors import DataError
from holdwater.train.finetune.data.distrust import example_weights
from holdwater.train.finetune.data.examples import Example
from holdwater.train.finetune.data.selective import SelectiveCounts
from holdwater.train.finetune.losses import IGNORED

NEUTRAL = 1.0
"""The weight of an example whose source is not known."""


@dataclass(frozen=True)  # no slots: cached properties are kept with the fields
class Packed:
    """Rows of examples, whose tensors do not change any more. Shapes: (rows, length) each."""

    tokens: Tensor
    targets: Tensor
    """The next token, or `IGNORED` where nothing is learned."""
    positions: Tensor
    """The place of a token in its own example, from 0."""
    segments: Tensor
    """Which example of the row a token belongs to, from 1; 0 for padding."""
    weights: Tensor
    """What a token counts in the loss."""

    def part(self, begin: int, end: int) -> "Packed":
        """The rows from one number to another; these themselves where that is all of them."""
        if begin == 0 and end >= len(self.tokens):
            return self
        return Packed(*(part[begin:end] for part in self._parts()))

    def to(self, device: str | torch.device) -> "Packed":
        """The same on another device, or these where they are there already."""
        if self.tokens.device == torch.device(device):
            return self
        return Packed(*(part.to(device) for part in self._parts()))

    def _parts(self) -> list[Tensor]:
        """All of them."""
        return [getattr(self, field.name) for field in fields(self)]

    def prepare(self) -> "Packed":
        """Work out what a step will ask for, while no device waits for it; return the same."""
        _ = self.weight, self.spans
        return self

    @cached_property
    def weight(self) -> float:
        """What its learned tokens count together."""
        return float(self.weights[self.targets != IGNORED].sum())

    @property
    def learned(self) -> int:
        """Tokens that are learned."""
        return int((self.targets != IGNORED).sum())

    @cached_property
    def spans(self) -> Tensor:
        """Where the example of each token begins and ends, all rows one after another; padding stands alone.

        Shape (2, rows * length), int32.
        """
        flat = self.positions.flatten()
        starts = torch.nonzero(flat == 0)[:, 0]
        ends = torch.cat([starts[1:], starts.new_tensor([len(flat)])])
        return torch.stack([starts, ends]).repeat_interleave(ends - starts, dim=1).int()

    def mask(self) -> Tensor:
        """Who may look at whom: earlier tokens of the same example. Shape (rows, 1, length, length)."""
        same = self.segments[:, :, None] == self.segments[:, None, :]
        earlier = torch.ones(same.shape[-2:], dtype=torch.bool, device=same.device).tril()
        return (same & earlier)[:, None]


def pack(examples: list[list[Example]], length: int, *, padding: int = 0, weighs: bool = False) -> Packed:
    """Lay examples out in rows.

    Args:
        examples: Of each row; what goes beyond its end is cut off.
        length: Tokens in a row.
        padding: The token that fills a row up.
        weighs: Weigh the examples by their sources.

    Returns:
        The rows.
    """
    rows = len(examples)
    tokens, targets, positions, segments = (np.zeros((rows, length), np.int64) for _ in range(4))
    weights = np.ones((rows, length), np.float32)
    tokens[:], targets[:] = padding, IGNORED
    known = iter(_weights([one for row in examples for one in row]) if weighs else ())
    for number, row in enumerate(examples):
        at = 0
        for segment, example in enumerate(row, start=1):
            weight = next(known, NEUTRAL)
            count = min(len(example.tokens), length - at)
            place = slice(at, at + count)
            tokens[number, place] = example.tokens[:count]
            positions[number, place] = np.arange(count)
            segments[number, place] = segment
            weights[number, place] = weight
            after = [
                token if learned else IGNORED
                for token, learned in zip(example.tokens[1:count], example.learned[1:count], strict=True)
            ]
            targets[number, at : at + len(after)] = after
            at += count
    return Packed(*map(torch.from_numpy, (tokens, targets, positions, segments, weights)))


def _weights(examples: list[Example]) -> list[float]:
    """What each example of a batch counts; one without a source counts 1, the others 1 in the mean."""
    known = iter(example_weights([example.source for example in examples if example.source is not None]))
    return [NEUTRAL if example.source is None else next(known) for example in examples]


class Examples(Protocol):
    """Examples by number: a list, or a file."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, number: int, /) -> Example:
        """Return one."""
        ...


class PackedBatches:
    """Goes through examples in an order of their own for each epoch, and packs them; can resume from any batch."""

    packs: ClassVar[bool] = True
    """Whether a row takes further examples while there is room."""

    def __init__(  # noqa: PLR0913 - what an order of rows follows from
        self,
        examples: Examples,
        *,
        size: int,
        length: int,
        seed: int,
        weighs: bool = False,
        prepared: bool = False,
        selective_from: int = 0,
    ) -> None:
        """Begin with the first epoch.

        Args:
            examples: What is packed.
            size: Rows in a batch.
            length: Tokens in a row.
            seed: Of the order.
            weighs: Weigh the examples by their sources.
            prepared: Work out what a step will ask of a batch as soon as that is drawn.
            selective_from: The first epoch whose examples leave out their structure; earlier ones learn it.
        """
        self._examples, self._seed, self._prepared = examples, seed, prepared
        self.size, self.length, self.weighs, self._selective_from = size, length, weighs, selective_from
        self._epoch, self._taken = 0, 0
        self._order = self._order_of(0)
        self._waiting: tuple[int, Example] | None = None
        self.places, self.filled, self.cut = 0, 0, 0
        """Places for tokens so far, those that hold one, and examples whose end was cut off."""
        self.selective = SelectiveCounts()
        """What was left out as structure so far."""

    @property
    def epochs(self) -> float:
        """Times that the examples were gone through."""
        return self.epochs_at(self.state())

    def epochs_at(self, state: dict[str, Any]) -> float:
        """Times that the examples were gone through at some place in the order.

        Args:
            state: The place.
        """
        return float(state["epoch"] + state["taken"] / len(self._examples))

    def draw(self, device: str | torch.device = "cpu") -> Packed:
        """Return the next batch."""
        rows = [self._fill_row() for _ in range(self.size)]
        batch = self.lay_out(rows)
        self.places += batch.tokens.numel()
        self.filled += int((batch.segments > 0).sum())
        return (batch.prepare() if self._prepared else batch).to(device)

    def lay_out(self, rows: list[list[Example]]) -> Packed:
        """Pack the examples of a batch.

        Args:
            rows: The examples of each row.
        """
        return pack(rows, self.length, weighs=self.weighs)

    def _fill_row(self) -> list[Example]:
        """Take examples until the next one does not fit; it opens the next row. At least one is taken.

        Raises:
            DataError: Nothing of any example would be learned.
        """
        row: list[Example] = []
        left, passed = self.length, 0
        while left > 0:
            if self._taken == len(self._examples):
                self._epoch, self._taken = self._epoch + 1, 0
                self._order = self._order_of(self._epoch)
            number = int(self._order[self._taken])
            example = self._read(number)
            if example is not None and self._epoch < self._selective_from:
                example = example.whole
            if example is None or not any(example.learned[1 : self.length]):
                self._taken, passed = self._taken + 1, passed + 1
                if passed > len(self._examples):
                    raise DataError(
                        f"no example has anything to learn within {self.length} tokens: answers lie behind long "
                        "prompts, or texts are empty; use a larger --train-seq-length, or --learn everything"
                    )
                continue
            if row and len(example.tokens) > left:
                self._waiting = number, example
                break
            self._taken += 1
            self.cut += len(example.tokens) > left
            self._count(example, left)
            row.append(example)
            left = left - len(example.tokens) if self.packs else 0
        return row

    def _count(self, example: Example, room: int) -> None:
        """Count what of an example is left out as structure, within the room that it has."""
        if example.structure is not None:
            self.selective.add(example.learned[:room], example.structure[:room], example.whole_answers)

    def _read(self, number: int) -> Example | None:
        """Read an example, or return the one that did not fit into the last row; None to pass it over."""
        waiting, self._waiting = self._waiting, None
        return waiting[1] if waiting is not None and waiting[0] == number else self._examples[number]

    def _order_of(self, epoch: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """The order of an epoch."""
        return np.random.Generator(np.random.PCG64([self._seed, epoch])).permutation(len(self._examples))

    def state(self) -> dict[str, Any]:
        """The place in the order, as JSON."""
        return {
            "epoch": self._epoch, "taken": self._taken,
            "places": self.places, "filled": self.filled, "cut": self.cut, **self.selective.state(),
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a place."""
        self._epoch, self._taken = int(state["epoch"]), int(state["taken"])
        self._order = self._order_of(self._epoch)
        self._waiting = None
        self.places, self.filled, self.cut = (int(state[name]) for name in ("places", "filled", "cut"))
        self.selective = SelectiveCounts.restored(state)
