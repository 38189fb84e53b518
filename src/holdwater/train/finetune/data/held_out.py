"""The examples of a run: where they are, what identifies them, and which of them are held out."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from holdwater.errors import DataError
from holdwater.train.finetune.data.distrust import added_term
from holdwater.train.finetune.data.examples import Example
from holdwater.train.finetune.data.packing import Examples
from holdwater.train.finetune.data.rows import WRITE
from holdwater.train.finetune.data.shards import shards_of
from holdwater.train.settings import TrainSettings

log = logging.getLogger("holdwater")

CHECKING = 30.0
"""Seconds that examples may be read before a run begins."""


class Checked(Protocol):
    """Examples that can be checked before a run begins."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def check(self, *, seconds: float) -> int:
        """Read them for so long; return how many were read.

        Raises:
            DataError: One is wrong.
        """
        ...


class Chosen:
    """Some of the examples of a corpus."""

    def __init__(self, corpus: Examples, numbers: Sequence[int]) -> None:
        self._corpus, self.numbers = corpus, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int) -> Example:
        """Return one."""
        return self._corpus[self.numbers[number]]


def data_file(data: str | None) -> Path:
    """Where the examples are.

    Args:
        data: As it was asked for.

    Raises:
        DataError: Nothing was, or it is not there.
    """
    if data is None:
        raise DataError(f"fine-tuning needs examples; {WRITE}")
    path = Path(data).expanduser()
    if not path.exists():
        raise DataError(f"--data {data}: there is no such file; {WRITE}")
    return path


def split(corpus: Examples, settings: TrainSettings) -> tuple[list[int], list[int]]:
    """The numbers of the examples that are learned, and of those that are held out.

    Args:
        corpus: All of them.
        settings: Say how many, and the seed.

    Raises:
        DataError: There are too few.
    """
    count = max(int(len(corpus) * settings.validation_share), 1)
    if len(corpus) <= count:
        raise DataError(f"--data {settings.data} has {len(corpus)} example, but one is held out; give two or more")
    order = np.random.Generator(np.random.PCG64(settings.seed)).permutation(len(corpus)).tolist()
    return sorted(order[count:]), sorted(order[:count])


def check_examples(corpus: "Checked") -> None:
    """Read examples before a run begins, so that a wrong one does not end it in the third night.

    Args:
        corpus: All examples.

    Raises:
        DataError: One is wrong.
    """
    count = corpus.check(seconds=CHECKING)
    if count < len(corpus):
        log.info("%d of %d examples were read and are as they should be; the others are read in their turn", count,
                 len(corpus))  # fmt: skip


def say_added_term(corpus: Examples, alpha: float) -> None:
    """Say what the published term comes to; it changes no gradient.

    Args:
        corpus: All examples.
        alpha: The factor.
    """
    sources = [example.source for number in range(len(corpus)) if (example := corpus[number]).source is not None]
    term = added_term(sources, alpha=alpha)
    log.info(
        "the distrust term of %d examples with a source is %.4g: it does not depend on the weights, so it changes "
        "the loss by that and nothing that is learned; --distrust weighted lets sources count",
        len(sources),
        term,
    )


def fingerprint(path: Path) -> str:
    """Identifies examples: the size, the beginning and the end of their files.

    Args:
        path: A file or a folder; may be larger than memory.
    """
    files = shards_of(path) or (sorted(path.rglob("*.arrow")) if path.is_dir() else [path])
    size, digest = sum(file.stat().st_size for file in files), hashlib.sha256()
    for one in files:
        with one.open("rb") as file:
            digest.update(file.read(1 << 20))
            file.seek(max(one.stat().st_size - (1 << 20), 0))
            digest.update(file.read(1 << 20))
    return f"{size}-{digest.hexdigest()}"
