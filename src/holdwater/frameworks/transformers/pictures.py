"""Pictures for the trainers of Transformers and TRL: decoded when a batch is made, bounded, and kept nowhere.

    Trainer(..., train_dataset=rows, data_collator=PictureCollator(processor, max_pixels=500_000))

Rows are those that `holdwater train` takes: a list, a map-style dataset, or a dataset of Hugging Face's library.
Set `remove_unused_columns=False`, since a trainer otherwise removes the columns before the collator sees them. For
other collators, `dataset.set_transform(PictureTransform(max_pixels=500_000))` gives messages and decoded pictures.
"""

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from holdwater.errors import ConfigError, DataError
from holdwater.frameworks.transformers.picture_files import rgb
from holdwater.frameworks.transformers.picture_messages import picture_name, picture_of, with_sources
from holdwater.signal_errors import not_the_scripts

if TYPE_CHECKING:
    from PIL.Image import Image

IGNORED = -100
"""The label of a token that does not count in the loss, as in Transformers."""
Range = tuple[int, int]
"""Where characters begin, and where they end."""


@dataclass(frozen=True, slots=True)
class PictureTransform:
    """Decodes pictures of rows when they are asked for; for `set_transform` or `with_transform` of a dataset."""

    max_pixels: int | None = None
    """Larger pictures are scaled down to so many pixels; None leaves them as they are."""
    folder: Path | str = Path()
    """Relative paths of pictures begin here."""

    def __post_init__(self) -> None:
        _check_pixels(self.max_pixels)

    def __call__(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Decode the pictures of some rows.

        Args:
            columns: The values of each column.

        Returns:
            The columns `messages`, with a part {"type": "image"} for each picture, and `images`, with the pictures
            of each row in RGB.

        Raises:
            DataError: A row is wrong, or a picture cannot be read.
        """
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        made = _decoded(rows, Path(self.folder), self.max_pixels)
        return {"messages": [messages for messages, _ in made], "images": [images for _, images in made]}


@dataclass(slots=True)
class PictureCollator:
    """Makes a batch of rows with pictures, for any model of `AutoModelForImageTextToText`."""

    processor: Any
    """Of the model, with a chat template and a fast tokenizer."""
    max_pixels: int | None = None
    """Larger pictures are scaled down to so many pixels; None leaves that to the processor."""
    folder: Path | str = Path()
    """Relative paths of pictures begin here."""
    learn: Literal["answers", "everything"] = "answers"
    """Whether labels are those of the assistant's messages only; tokens of pictures never count."""
    _options: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_pixels(self.max_pixels)
        if self.learn not in {"answers", "everything"}:
            raise ConfigError(f"learn is {self.learn!r}; write answers or everything")
        if not getattr(getattr(self.processor, "tokenizer", None), "is_fast", False):
            raise ConfigError(
                "PictureCollator needs a processor whose tokenizer tells which characters a token holds; use the "
                "processor of a vision-language model whose folder has a tokenizer.json"
            )
        self._options = _bounds(self.processor.image_processor, self.max_pixels)

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Any:  # noqa: ANN401 - a BatchFeature
        """Make a batch.

        Args:
            rows: With `messages`, with `prompt` and `completion`, or with `text` and pictures. A picture is a
                path, bytes, base64, or decoded already.

        Returns:
            What the processor returns, and `labels`.

        Raises:
            DataError: A row is wrong, or a picture cannot be read.
            ConfigError: This version of Transformers does not tell where it has put pictures.
        """
        conversations = _decoded(rows, Path(self.folder), self.max_pixels)
        texts = [self._text(messages) for messages, _ in conversations]
        answers = [self._answers(messages, text) for (messages, _), text in zip(conversations, texts, strict=True)]
        images = [pictures for _, pictures in conversations]
        shown = {"images": images, **self._options} if any(images) else {}
        batch = self.processor(
            text=texts, padding=True, add_special_tokens=False, return_tensors="pt", return_offsets_mapping=True,
            return_text_replacement_offsets=True, **shown,
        )  # fmt: skip
        offsets, placed = batch.pop("offset_mapping"), batch.pop("text_replacement_offsets", None)
        if placed is None and shown:
            raise ConfigError(
                "PictureCollator needs a processor that tells where it has put pictures, and that of this version "
                "of Transformers does not; upgrade Transformers"
            )
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
        for number, ranges in enumerate(answers):
            counts = _counted(offsets[number], ranges, placed[number] if placed else [])
            batch["labels"][number, ~counts] = IGNORED
        return batch

    def _text(self, messages: list[dict[str, Any]], *, begins_answer: bool = False) -> str:
        """The text of messages, by the processor's chat template.

        Raises:
            DataError: It has none, or that fails.
        """
        try:
            return str(
                self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=begins_answer)
            )
        except not_the_scripts(Exception) as error:  # a template is a program, and may fail in any way
            raise DataError(f"the processor's chat template fails ({error}); write messages it takes") from None

    def _answers(self, messages: list[dict[str, Any]], text: str) -> list[Range]:
        """Where what is learned begins and ends in a text.

        Raises:
            DataError: The template writes the beginning of a conversation in another way than the whole.
        """
        if self.learn == "everything":
            return [(0, len(text))]
        found = []
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._text(messages[:number], begins_answer=True) if number else ""
            if not text.startswith(before):
                before = self._text(messages[:number])
            until = self._text(messages[: number + 1])
            if not until.startswith(before) or not text.startswith(until):
                raise DataError(
                    f"the processor's chat template writes message {number + 1} in another way when more messages "
                    "follow, so its tokens cannot be told; write one answer a row, or set learn to everything"
                )
            found.append((len(before), len(until)))
        return found


def _decoded(
    rows: Sequence[dict[str, Any]], folder: Path, max_pixels: int | None
) -> list[tuple[list[dict[str, Any]], list["Image"]]]:
    """The messages and the pictures of rows.

    Raises:
        DataError: A row is wrong, or a picture cannot be read.
    """
    found = []
    for number, row in enumerate(rows):
        where = f"example {number + 1} of a batch"
        messages, sources = with_sources(row, where=where)
        if not messages:
            raise DataError(f"{where}: it has {', '.join(row)}; write messages, or prompt and completion")
        pictures = [_picture(source, folder, picture_name(where, at)) for at, source in enumerate(sources)]
        found.append((messages, [_shrunk(one, max_pixels) for one in pictures]))
    return found


def _picture(source: Any, folder: Path, where: str) -> "Image":  # noqa: ANN401 - from a row: may be anything
    """A picture in RGB."""
    decoded = importlib.import_module("PIL.Image").Image
    return rgb(source) if isinstance(source, decoded) else picture_of(source, folder, where).load()


def _shrunk(picture: "Image", max_pixels: int | None) -> "Image":
    """A picture of so many pixels at most, of the same shape."""
    width, height = picture.size
    if max_pixels is None or width * height <= max_pixels:
        return picture
    scale = math.sqrt(max_pixels / (width * height))
    return picture.resize((max(1, int(width * scale)), max(1, int(height * scale))))


def _bounds(processor: Any, max_pixels: int | None) -> dict[str, Any]:  # noqa: ANN401 - of Transformers
    """What an image processor is told so that it makes no larger pictures than these."""
    if max_pixels is None:
        return {}
    if hasattr(processor, "merge_size"):  # of Qwen, whose edges are numbers of pixels
        shortest, longest = (int(processor.size[name]) for name in ("shortest_edge", "longest_edge"))
        return {"size": {"shortest_edge": min(shortest, max_pixels), "longest_edge": min(longest, max_pixels)}}
    if hasattr(processor, "max_image_size"):  # of Idefics3 and SmolVLM, which enlarge pictures to whole tiles
        tile, longest = int(processor.max_image_size["longest_edge"]), int(processor.size["longest_edge"])
        return {"size": {"longest_edge": min(longest, max(1, math.isqrt(max_pixels) // tile) * tile)}}
    return {}


def _counted(offsets: Tensor, answers: Sequence[Range], placed: Sequence[Mapping[str, Any]]) -> Tensor:
    """Which tokens of a row are learned.

    Args:
        offsets: Where the characters of each token begin and end. Shape (length, 2).
        answers: Where answers begin and end in the text before pictures were put into it.
        placed: Where each picture was put: `span` in the text before, `new_span` in the text after.

    Returns:
        Shape (length,).
    """

    def moved(at: int) -> int:
        """Where a character is in the text after."""
        before = [one for one in placed if one["span"][1] <= at]
        return at + sum(_length(one["new_span"]) - _length(one["span"]) for one in before)

    begins, ends = offsets.unbind(1)
    counts = torch.zeros(len(offsets), dtype=torch.bool)
    for begin, end in answers:
        counts |= (begins >= moved(begin)) & (ends <= moved(end))
    for one in placed:
        begin, end = one["new_span"]
        counts &= (ends <= begin) | (begins >= end)
    return counts


def _length(span: Range) -> int:
    """How many characters."""
    return span[1] - span[0]


def _check_pixels(max_pixels: int | None) -> None:
    """Refuse a bound that no picture can keep.

    Raises:
        ConfigError: It is below 1.
    """
    if max_pixels is not None and max_pixels < 1:
        raise ConfigError(f"max_pixels is {max_pixels}, but a picture has pixels; write 500000, say")
