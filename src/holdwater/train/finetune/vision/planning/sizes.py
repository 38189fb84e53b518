"""The pictures of a run, as far as its memory depends on them: how large they are, read from their headers."""

import time
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holdwater.errors import DataError
from holdwater.train.finetune.data.held_out import CHECKING
from holdwater.train.finetune.vision.corpus import PictureCorpus, decoding_bound
from holdwater.train.finetune.vision.examples import PictureExample
from holdwater.train.finetune.vision.families import Family
from holdwater.train.finetune.vision.histogram import histogram
from holdwater.train.finetune.vision.tower_setup import Sampled, sample
from holdwater.train.settings import TuneSettings

LARGEST_SIDE = 8192
"""Sides of the pictures that are tried where none are given, in pixels."""
SMALL_SIDE = 64
"""Of the picture that is planned where no example has one, in pixels."""


@dataclass(frozen=True, slots=True)
class PictureSize:
    """The size of a picture."""

    width: int
    """Of its file, in pixels."""
    height: int
    patches: int
    """That the vision tower takes for it, once it is resized."""
    tokens: int
    """That stand for it in an example."""

    def __str__(self) -> str:
        """For people."""
        return f"{self.patches:,} patches, {self.tokens:,} tokens"


@dataclass(frozen=True, slots=True)
class PictureSizes:
    """The sizes of all pictures of a run."""

    smallest: PictureSize
    median: PictureSize
    largest: PictureSize
    heaviest: PictureSize
    """The one whose decoding takes most."""
    density: float
    """Most tokens of pictures for each token of an example: rows hold at most so many."""
    in_example: int
    """Most tokens of pictures in one example."""
    decoding: int
    """Most bytes that decoding one takes, by the bound that decoding ahead keeps."""
    count: int = 0
    """Pictures that were read."""
    all_tokens: int = 0
    """Of all pictures of the file; 0 where it is not known."""
    tokens: tuple[int, ...] = ()
    """Of each example that was read."""
    examples: int = 0
    """In the file."""
    sampled: tuple[Sampled, ...] = ()
    """Examples from which the budgets of a captured tower are chosen."""

    def in_rows(self, rows: int, length: int) -> int:
        """Most tokens of pictures in some rows.

        Args:
            rows: Of a micro-batch.
            length: Tokens of a row.
        """
        return rows * min(length, max(int(length * self.density), self.in_example))

    def told(self, *, length: int) -> str:
        """The sizes, for people.

        Args:
            length: Tokens of a row.
        """
        if not self.tokens:
            return f"no examples were read: rows are planned full of pictures; the largest has {self.largest}"
        read = len(self.tokens)
        if not self.count:
            return f"pictures: none in {read:,} examples"
        some = "" if read == self.examples else f" of {self.examples:,}; larger ones are assumed in the others"
        return (
            f"pictures: the largest has {self.largest}; the median {self.median}; {self.count:,} were read\n"
            f"tokens of {read:,} examples{some}, and how many have so many:\n"
            f"{histogram(self.tokens, limit=length)}"
        )


def size_of(family: Family, width: int, height: int, *, patch: int) -> PictureSize:
    """The size of a picture once it is resized.

    Args:
        family: Of the model.
        width: Of its file, in pixels.
        height: In pixels.
        patch: Edge of a patch, in pixels.
    """
    grid = family.grid(width, height)
    return PictureSize(width, height, family.pixels(width, height) // patch**2, grid.height * grid.width)


def sizes_without_data(family: Family, *, length: int, patch: int) -> PictureSizes:
    """The largest picture that the processor makes and a row holds: no run can meet a larger one.

    Args:
        family: Of the model.
        length: Tokens of a row.
        patch: Edge of a patch, in pixels.

    Raises:
        DataError: A row holds no picture.
    """
    found = [size for size in _shrinking(family, patch) if size.tokens <= length]
    if not found:
        raise DataError(f"a row has {length} tokens, but a picture has more; use a larger --train-seq-length")
    largest = max(found, key=lambda size: (size.patches, -size.width * size.height))
    decoding = decoding_bound(largest.width, largest.height, family)
    grid = family.grid(largest.width, largest.height)
    return PictureSizes(
        largest, largest, largest, largest, density=1.0, in_example=length, decoding=decoding,
        sampled=(Sampled(largest.tokens, (grid,)),) * 8,
    )  # fmt: skip


def _shrinking(family: Family, patch: int) -> Iterator[PictureSize]:
    """Pictures of several shapes, each shape in many sizes."""
    for shape in (1.0, 0.75, 0.5):
        side = LARGEST_SIDE
        while side >= patch:
            yield size_of(family, side, max(int(side * shape), patch), patch=patch)
            side = side * 49 // 50 if side > 50 else side - 1


def read_sizes(  # noqa: PLR0913 - what sizes follow from
    path: Path,
    tokenizer: Any,  # noqa: ANN401 - of Transformers
    family: Family,
    tuning: TuneSettings,
    *,
    length: int,
    patch: int,
) -> PictureSizes:
    """Read the sizes of the pictures of a run's examples; where time does not allow all, assume the largest too.

    Where no example has a picture, one small picture is planned.

    Args:
        path: The examples.
        tokenizer: Of the model.
        family: Of the model.
        tuning: What is done about pictures that cannot be read.
        length: Tokens of a row.
        patch: Edge of a patch, in pixels.

    Raises:
        DataError: An example is wrong, and is not to be passed over.
    """
    corpus = PictureCorpus(path, tokenizer, family, length=length, answers_only=tuning.learn == "answers")
    counts, sizes = array("i"), Counter[PictureSize]()
    density, in_example, decoding, until = 0.0, 0, 0, time.monotonic() + CHECKING
    for example in _readable(corpus, path, skips=tuning.bad_pictures == "skip"):
        own = [size_of(family, *one.picture.size(), patch=patch) for one in example.pictures]
        sizes.update(own)
        pictured = sum(size.tokens for size in own)
        counts.append(len(example.tokens))
        density, in_example = max(density, pictured / len(example.tokens)), max(in_example, pictured)
        decoding = max([decoding, *(decoding_bound(size.width, size.height, family) for size in own)])
        if time.monotonic() > until:
            break
    if not sizes:
        return _without_pictures(family, counts, len(corpus), patch=patch)
    heaviest = max(sizes, key=lambda size: decoding_bound(size.width, size.height, family))
    found = sorted(sizes, key=lambda size: (size.patches, size.tokens))
    read = PictureSizes(
        found[0], _median(found, sizes), found[-1], heaviest, density, in_example, decoding, sizes.total(),
        sum(size.tokens * count for size, count in sizes.items()), tuple(counts), len(corpus),
        tuple(sample(corpus, range(len(corpus)))),
    )  # fmt: skip
    if len(counts) == len(corpus):
        return read
    most = sizes_without_data(family, length=length, patch=patch)
    return replace(
        read,
        largest=most.largest,
        density=1.0,
        in_example=length,
        decoding=max(decoding, most.decoding),
        all_tokens=0,
    )


def _without_pictures(family: Family, counts: Sequence[int], examples: int, *, patch: int) -> PictureSizes:
    """Examples of text: one small picture is planned."""
    one = size_of(family, SMALL_SIDE, SMALL_SIDE, patch=patch)
    return PictureSizes(
        one, one, one, one, density=0.0, in_example=0, decoding=decoding_bound(SMALL_SIDE, SMALL_SIDE, family),
        tokens=tuple(counts), examples=examples,
    )  # fmt: skip


def _readable(corpus: PictureCorpus, path: Path, *, skips: bool) -> Iterator[PictureExample]:
    """All examples that can be read; of their pictures the headers only."""
    for number in range(len(corpus)):
        try:
            yield corpus.undecoded(number)
        except DataError as error:
            if not skips:
                said = f"--data {path}, example {number + 1}: {error}"
                raise DataError(f"{said}; or pass such examples over with --bad-pictures skip") from None


def _median(ordered: Sequence[PictureSize], sizes: Counter[PictureSize]) -> PictureSize:
    """The size in the middle, each counted as often as it was met."""
    before = 0
    for size in ordered:
        before += sizes[size]
        if 2 * before >= sizes.total():
            break
    return size
