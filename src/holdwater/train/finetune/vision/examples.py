"""Examples with pictures: their tokens, how many features their pictures will have, and the pictures."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from holdwater.errors import DataError
from holdwater.frameworks.transformers.picture_files import Picture
from holdwater.train.finetune.data.examples import Example
from holdwater.train.finetune.vision.families import Family, Grid, Integers


class PassedOver(DataError):  # noqa: N818 - says what becomes of it
    """An example has a picture that cannot be read, and such examples are passed over."""


@dataclass(slots=True, eq=False)
class PlacedPicture:
    """A picture in an example, and what it takes there."""

    picture: Picture
    grid: Grid
    key: str = ""
    """Identifies its features: of its content and the settings of the processor; empty if none is needed."""
    inputs: dict[str, Tensor] | None = None
    """What the model's code takes for it; None until it is decoded, and where its features are kept."""
    kept: dict[str, Tensor] | None = None
    """Its features where they were kept when the example was read."""

    @property
    def features(self) -> int:
        """Tokens that stand for it."""
        return self.grid.height * self.grid.width

    def free(self) -> None:
        """Forget the decoded picture, and kept features: they have been used."""
        self.inputs = self.kept = None


@dataclass(frozen=True, slots=True)
class PictureExample(Example):
    """Tokens with those that stand for pictures, and the pictures in their order."""

    pictures: tuple[PlacedPicture, ...] = ()
    axes: Integers | None = field(default=None, compare=False)
    """Rotary positions in three dimensions. Shape (3, count)."""


class PictureTokenizer:
    """A tokenizer that writes a placeholder for each picture of one example."""

    def __init__(self, tokenizer: Any, family: Family, sizes: Sequence[tuple[int, int]]) -> None:  # noqa: ANN401
        """Take the pictures of an example.

        Args:
            tokenizer: Of the model.
            family: Of the model.
            sizes: Width and height of each picture, in pixels.
        """
        self._tokenizer, self._family = tokenizer, family
        self._placeholders = [family.placeholder(*size) for size in sizes]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """Everything else is the tokenizer's own."""
        return getattr(self._tokenizer, name)

    def __call__(self, text: str, **options: Any) -> Any:  # noqa: ANN401
        """Tokens of a text whose placeholders are written already."""
        return self._tokenizer(text, **options)

    @property
    def eos_token_id(self) -> int | None:
        """Ends a text."""
        token: int | None = self._tokenizer.eos_token_id
        return token

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Tokens of a text without pictures."""
        return list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens))

    def apply_chat_template(
        self,
        conversation: Sequence[dict[str, Any]],
        *,
        tokenize: bool = True,
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Write messages by the model's own template, with the placeholders of their pictures."""
        written = self._tokenizer.apply_chat_template(conversation, **options | {"tokenize": False})
        waiting = iter(self._placeholders)
        text = re.sub(re.escape(self._family.marker), lambda _: next(waiting, ""), written)
        return self.encode(text, add_special_tokens=False) if tokenize else text


def with_features(
    example: Example, family: Family, pictures: Sequence[Picture], *, length: int, tower: str = ""
) -> PictureExample:
    """Lay pictures beside the tokens that stand for them.

    Args:
        example: By a `PictureTokenizer`.
        family: Of the model.
        pictures: In their order.
        length: Tokens of a row: what lies beyond is cut off.
        tower: Identifies the weights that make features; empty where none are kept.

    Raises:
        DataError: Tokens of a picture would be cut off, or the template has left out a picture.
    """
    tokens = np.asarray(example.tokens, np.int64)
    placed = tuple(
        PlacedPicture(one, family.grid(*one.size()), feature_key(one, family, tower) if tower else "")
        for one in pictures
    )
    found, wanted = int((tokens == family.image_token).sum()), sum(one.features for one in placed)
    if found != wanted:
        raise DataError(
            f"its {len(placed)} pictures need {wanted} tokens, but the model's chat template leaves {found} for "
            "them; write each picture as a part of a message that the template shows"
        )
    end = int(np.flatnonzero(tokens == family.image_token)[-1]) + 1 if wanted else 0
    if end > length:
        raise DataError(
            f"its pictures end at token {end}, but a row has {length}; use a larger --train-seq-length, or fewer "
            "pixels (--max-pixels)"
        )
    axes = family.axes(tokens, [one.grid for one in placed])
    own = {one.name: getattr(example, one.name) for one in fields(Example)}
    return PictureExample(**own, pictures=placed, axes=axes)


def feature_key(picture: Picture, family: Family, tower: str) -> str:
    """Identifies the features of a picture: by its content, the processor's settings and the tower's weights."""
    about = f"{picture.digest()} {family.settings} {tower}"
    return hashlib.blake2b(about.encode(), digest_size=16).hexdigest()


def folder_of(path: Path) -> Path:
    """Where relative paths of pictures begin: beside the file of the examples, or in their folder."""
    return path if path.is_dir() else path.parent
