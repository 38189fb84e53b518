"""Text for training: found, checked, turned into tokens, and split; batches are drawn at random places.

By default the text is the Python standard library's own sources, which every user has.
"""

import glob
import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdwater.errors import DataError
from holdwater.train.settings import TokenLevel

MOST_CHARACTERS = 60_000
"""A vocabulary of characters larger than this is no longer one of characters."""


def standard_library() -> list[Path]:
    """The sources of the Python that is running: the modules at the top of its library."""
    return sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))


def find_files(pattern: str | None) -> list[Path]:
    """Find the files of a pattern, sorted by name.

    Args:
        pattern: A file or a glob (`**` goes through folders); None takes the standard library.

    Returns:
        At least one file.

    Raises:
        DataError: Nothing matches.
    """
    if pattern is None:
        return standard_library()
    names = sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))  # noqa: PTH207 - absolute globs
    files = [Path(name) for name in names if Path(name).is_file()]
    if not files:
        raise DataError(
            f"--data {pattern} matches no file; name a UTF-8 text file or a glob such as 'texts/*.txt'"
        )
    return files


def read_text(files: list[Path]) -> bytes:
    """Read files one behind the other.

    Args:
        files: UTF-8 texts.

    Returns:
        Their bytes.

    Raises:
        DataError: A file cannot be read or is not UTF-8 text, or all are empty.
    """
    parts = []
    for file in files:
        try:
            part = file.read_bytes()
        except OSError as error:
            raise DataError(f"--data {file} cannot be read: {error.strerror}") from error
        try:
            part.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"--data {file} is not UTF-8 text (byte {error.start} is 0x{part[error.start]:02x}); "
                "convert it to UTF-8, or name another file"
            ) from None
        if b"\0" in part:
            raise DataError(f"--data {file} is not text (byte {part.index(0)} is 0x00); name a UTF-8 text file")
        parts.append(part)
    text = b"".join(parts)
    if not text:
        raise DataError(f"--data {files[0]} is empty; name a file with text in it")
    return text


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text as numbers, and how to decode them."""

    train: Tensor
    """Shape (tokens,), of the smallest integer type that holds the vocabulary."""
    validation: Tensor
    """The end of the text. Shape (tokens,)."""
    characters: str | None
    """The vocabulary of characters, in the order of their numbers; None for bytes."""
    fingerprint: str
    """SHA-256 of the text: a run resumes with the same text only."""

    @property
    def vocabulary(self) -> int:
        """The number of different tokens."""
        return 256 if self.characters is None else len(self.characters)

    def decode(self, tokens: list[int]) -> str:
        """Turn numbers into text; bytes that are no UTF-8 become the replacement character."""
        if self.characters is None:
            return bytes(tokens).decode("utf-8", errors="replace")
        return "".join(self.characters[token] for token in tokens)


def tokenise(text: bytes, level: TokenLevel, *, validation_share: float, length: int) -> Tokens:
    """Turn a text into tokens and hold its end out for validation.

    Args:
        text: UTF-8.
        level: What a token is.
        validation_share: The part that is held out, between 0 and 1.
        length: Tokens in a training sequence; each part must hold more than that.

    Returns:
        The tokens.

    Raises:
        DataError: The text is too short, or has too many different characters.
    """
    characters = None
    numbers: npt.NDArray[Any] = np.frombuffer(text, dtype=np.uint8)
    if level == "character":
        points = np.frombuffer(text.decode("utf-8").encode("utf-32-le"), dtype=np.uint32)
        known, numbers = np.unique(points, return_inverse=True)
        if len(known) > MOST_CHARACTERS:
            raise DataError(f"the text has {len(known)} different characters; use --level byte")
        characters = "".join(map(chr, known.tolist()))
        numbers = numbers.astype(np.uint8 if len(known) <= 256 else np.int32)
    held_out = max(int(len(numbers) * validation_share), length + 2)
    if len(numbers) - held_out < length + 2:
        raise DataError(
            f"the text has {len(numbers)} tokens, too few for sequences of {length} and a held-out part; "
            "give more text or a smaller --train-seq-length"
        )
    tokens = torch.from_numpy(numbers.copy())
    return Tokens(tokens[:-held_out], tokens[-held_out:], characters, hashlib.sha256(text).hexdigest())


class Batches:
    """Draws sequences from random places of a text, the same ones for the same seed."""

    def __init__(self, tokens: Tensor, *, size: int, length: int, seed: int) -> None:
        """Set up the draw.

        Args:
            tokens: Shape (tokens,).
            size: Sequences in a batch.
            length: Tokens in a sequence.
            seed: Of the order.
        """
        self._tokens = tokens
        self._size, self._length = size, length
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._places = len(tokens) - length

    def draw(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Return the next batch: tokens, and the tokens that follow them. Shapes: (size, length)."""
        starts = self._random.integers(0, self._places, size=self._size).tolist()
        rows = torch.stack([self._tokens[start : start + self._length + 1] for start in starts])
        rows = rows.to(device=device, dtype=torch.int64)
        return rows[:, :-1], rows[:, 1:]

    @property
    def steps_in_epoch(self) -> float:
        """Batches that hold as many tokens as the text."""
        return len(self._tokens) / (self._size * self._length)

    def state(self) -> dict[str, Any]:
        """The position in the order, as JSON."""
        return dict(self._random.bit_generator.state)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a position."""
        self._random.bit_generator.state = state
