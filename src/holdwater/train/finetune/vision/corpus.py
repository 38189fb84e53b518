"""The examples of a file with pictures: undecoded until their turn comes, decoded ahead in threads, kept nowhere.

What an example is made of does not depend on the threads: an example is asked for by its number, and waits for its
own pictures only.
"""

import logging
import os
import time
from abc import ABC, abstractmethod
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdwater.errors import DataError
from holdwater.frameworks.transformers.picture_messages import with_pictures
from holdwater.train.finetune.data.examples import Example, Tokenizer, example_of
from holdwater.train.finetune.data.rows import Rows, open_rows
from holdwater.train.finetune.data.selective import SelectiveLoss
from holdwater.train.finetune.vision.examples import (
    PassedOver,
    PictureExample,
    PictureTokenizer,
    PlacedPicture,
    folder_of,
    with_features,
)
from holdwater.train.finetune.vision.families import Family
from holdwater.train.finetune.vision.histogram import histogram
from holdwater.train.finetune.vision.passed_over import PassedOverExamples
from holdwater.train.finetune.vision.prefetch import Prefetcher
from holdwater.units import Bytes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log = logging.getLogger("holdwater")

AHEAD = Bytes(256_000_000)
"""Most that pictures may take which are decoded before their turn."""
PER_PIXEL, PER_RESIZED_PIXEL = 14, 64
"""Bytes that decoding takes for each pixel of a file, and for each of the resized picture, at most: grey of 16
bits takes most, and JPEG four to six."""
THREADS = 4


def decoding_bound(width: int, height: int, family: Family) -> int:
    """Bytes that decoding a picture takes, at most.

    Args:
        width: Of its file, in pixels.
        height: In pixels.
        family: Of the model.
    """
    return PER_PIXEL * width * height + PER_RESIZED_PIXEL * family.pixels(width, height)


class CheckedRows(ABC):
    """The examples of a file with pictures: read once before a run, and named where one is wrong."""

    def __init__(self, path: Path, *, length: int, passed_over: PassedOverExamples | None) -> None:
        """Find where examples begin.

        Args:
            path: A .jsonl or .parquet file, a tar shard, or a folder.
            length: Tokens of a row.
            passed_over: Names examples with a picture that cannot be read; None makes them an error.

        Raises:
            DataError: The file cannot be read, or holds nothing.
        """
        self._path, self._length, self._passed_over = path, length, passed_over
        self._rows: Rows = open_rows(path)

    def __len__(self) -> int:
        return len(self._rows)

    @abstractmethod
    def tokens(self, number: int) -> int:
        """How many tokens an example has.

        Args:
            number: From 0.

        Raises:
            DataError: It is wrong.
        """

    def check(self, *, seconds: float) -> int:
        """Read examples in their order.

        Args:
            seconds: Stop after so long.

        Returns:
            How many were read.

        Raises:
            DataError: One is wrong, and is not to be passed over.
        """
        until, counts, done = time.monotonic() + seconds, array("i"), 0
        for number in range(len(self)):
            try:
                counts.append(self.tokens(number))
            except DataError as error:
                failure = self.failure(number, error)
                if not isinstance(failure, PassedOver):
                    raise failure from None
            done += 1
            if time.monotonic() > until:
                break
        log.info("tokens of %d examples, and how many have so many:\n%s", len(counts),
                 histogram(counts, limit=self._length))  # fmt: skip
        return done

    def failure(self, number: int, error: DataError) -> DataError:
        """What follows from an error: it ends the run, or the example is passed over.

        Args:
            number: Of the example, from 0.
            error: Of the example.
        """
        said, place = str(error), f"example {number + 1}"
        text = f"--data {self._path}, {said if said.startswith(place) else f'{place}: {said}'}"
        if self._passed_over is None:
            return DataError(f"{text}; or pass such examples over with --bad-pictures skip")
        self._passed_over.name(number, text)
        return PassedOver(text)


class PictureCorpus(CheckedRows):
    """The examples of a file, by number; some or all have pictures."""

    def __init__(  # noqa: PLR0913 - what examples follow from
        self,
        path: Path,
        tokenizer: Tokenizer,
        family: Family,
        *,
        length: int,
        answers_only: bool = True,
        passed_over: PassedOverExamples | None = None,
        selective: SelectiveLoss | None = None,
        tower: str = "",
        is_kept: Callable[[str], bool] = lambda _: False,
        fetch: "Callable[[str], dict[str, Tensor] | None]" = lambda _: None,
        dtype: "torch.dtype | None" = None,
    ) -> None:
        """Find where examples begin.

        Args:
            path: A .jsonl or .parquet file, a tar shard, or a folder.
            tokenizer: Of the model.
            family: Of the model.
            length: Tokens of a row.
            answers_only: Learn what the assistant says; else everything.
            passed_over: Names examples with a picture that cannot be read; None makes them an error.
            selective: Leave the structure of JSON out of answers; None learns it too.
            tower: Identifies the weights that make features; empty where none are kept.
            is_kept: Says whether the features of a key are kept, so that nothing is decoded.
            fetch: Reads them.
            dtype: Of decoded pictures: the tower's; None leaves them in float32.

        Raises:
            DataError: The file cannot be read, or holds nothing.
        """
        super().__init__(path, length=length, passed_over=passed_over)
        self._tokenizer, self._family, self._answers_only = tokenizer, family, answers_only
        self._selective, self._tower, self._is_kept, self._dtype = selective, tower, is_kept, dtype
        self._fetch = fetch
        self._prefetcher: Prefetcher[PlacedPicture, dict[str, Tensor]] = Prefetcher(
            self._prepare, weigh=self._weigh, most=AHEAD, threads=min(THREADS, os.cpu_count() or 1)
        )  # fmt: skip
        self._ahead: dict[int, PictureExample | DataError] = {}

    def __getitem__(self, number: int) -> Example:
        """Read an example, with its pictures decoded but where their features are kept.

        Args:
            number: From 0.

        Raises:
            PassedOver: A picture cannot be read, and the example is to be passed over.
            DataError: The example is wrong; the message names the file and the example.
        """
        try:
            example = self._taken(number)
            self._decode(example.pictures)
        except DataError as error:
            raise self.failure(number, error) from None
        return example

    def _decode(self, pictures: Sequence[PlacedPicture]) -> None:
        """Give pictures their decoded inputs; what was decoded ahead and is not needed is let go of.

        Raises:
            DataError: One cannot be decoded.
        """
        waiting = deque(pictures)
        try:
            while waiting:
                one = waiting.popleft()
                if self._is_kept(one.key):  # its features may have been made since it was announced
                    self._prefetcher.drop(one)
                    one.kept = self._fetch(one.key)
                else:
                    one.inputs = self._prefetcher.take(one)
        finally:
            for one in waiting:
                self._prefetcher.drop(one)

    def expect(self, numbers: Iterable[int]) -> None:
        """Decode examples ahead that will be asked for in this order.

        Args:
            numbers: Of the examples; those that are under way already are left alone.
        """
        for number in numbers:
            if number in self._ahead:
                continue
            try:
                example = self.undecoded(number)
            except DataError as error:
                self._ahead[number] = error
                continue
            self._ahead[number] = example
            for one in example.pictures:
                if not self._is_kept(one.key):
                    self._prefetcher.expect(one)

    def forget(self) -> None:
        """Forget what was decoded ahead: other examples come next."""
        self._ahead.clear()
        self._prefetcher.forget()

    def tokens(self, number: int) -> int:
        """How many tokens an example has; of its pictures the headers are read.

        Args:
            number: From 0.

        Raises:
            DataError: It is wrong.
        """
        return len(self.undecoded(number).tokens)

    def undecoded(self, number: int) -> PictureExample:
        """Read an example, and of its pictures the sizes only.

        Args:
            number: From 0.

        Raises:
            DataError: It is wrong.
        """
        row = self._rows[number]
        messages, pictures = with_pictures(row, folder=folder_of(self._path), where=f"example {number + 1}")
        said = about_source(row) | {"messages": messages} if messages else row
        tokenizer = PictureTokenizer(self._tokenizer, self._family, [one.size() for one in pictures])
        example = example_of(said, tokenizer, answers_only=self._answers_only, selective=self._selective)
        return with_features(example, self._family, pictures, length=self._length, tower=self._tower)

    def _taken(self, number: int) -> PictureExample:
        """An example that was expected, or else read now."""
        found = self._ahead.pop(number, None)
        if isinstance(found, DataError):
            raise found
        return self.undecoded(number) if found is None else found

    def _prepare(self, placed: PlacedPicture) -> "dict[str, Tensor]":
        """Decode a picture, to what the model's code takes."""
        inputs = self._family.inputs(placed.picture.load())
        return {
            name: tensor.to(self._dtype) if tensor.is_floating_point() else tensor
            for name, tensor in inputs.items()
        }

    def _weigh(self, placed: PlacedPicture) -> int:
        """Bytes that decoding a picture takes, at most."""
        return decoding_bound(*placed.picture.size(), self._family)


def about_source(row: dict[str, Any]) -> dict[str, Any]:
    """What a row says of its source.

    Args:
        row: Of the file.
    """
    return {name: row[name] for name in ("authority", "provenance_entropy") if name in row}
