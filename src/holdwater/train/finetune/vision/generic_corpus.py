"""The examples of a file, made by the processor of any vision-language model, each when its turn comes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from holdwater.errors import DataError
from holdwater.frameworks.transformers.picture_files import Picture
from holdwater.frameworks.transformers.picture_messages import with_pictures
from holdwater.train.finetune.data.examples import Example, example_of
from holdwater.train.finetune.data.selective import SelectiveLoss
from holdwater.train.finetune.vision.corpus import CheckedRows, about_source
from holdwater.train.finetune.vision.examples import folder_of
from holdwater.train.finetune.vision.generic_processor import (
    ExampleProcessor,
    GenericProcessor,
    Inputs,
    Messages,
    before_answer,
    pictures_in,
)
from holdwater.train.finetune.vision.passed_over import PassedOverExamples

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ProcessedExample(Example):
    """Tokens, and what else the model's forward takes."""

    inputs: Inputs = field(default_factory=dict, compare=False)
    """By the names of the model's forward, without tokens and attention mask."""


class GenericCorpus(CheckedRows):
    """The examples of a file, by number; some or all have pictures."""

    def __init__(  # noqa: PLR0913 - what examples follow from
        self,
        path: Path,
        processor: GenericProcessor,
        *,
        length: int,
        answers_only: bool = True,
        passed_over: PassedOverExamples | None = None,
        selective: SelectiveLoss | None = None,
    ) -> None:
        """Find where examples begin.

        Args:
            path: A .jsonl or .parquet file, a tar shard, or a folder.
            processor: Of the model.
            length: Tokens of a row.
            answers_only: Learn what the assistant says; else everything.
            passed_over: Names examples with a picture that cannot be read; None makes them an error.
            selective: Leave the structure of JSON out of answers; None learns it too.

        Raises:
            DataError: The file cannot be read, or holds nothing.
        """
        super().__init__(path, length=length, passed_over=passed_over)
        self._processor, self._answers_only, self._selective = processor, answers_only, selective

    def __getitem__(self, number: int) -> ProcessedExample:
        """Read an example, with its pictures processed.

        Args:
            number: From 0.

        Raises:
            PassedOver: A picture cannot be read, and the example is to be passed over.
            DataError: The example is wrong; the message names the file and the example.
        """
        return self._named(number, self._read)

    def tokens(self, number: int) -> int:
        """How many tokens an example has; its pictures are processed.

        Args:
            number: From 0.

        Raises:
            DataError: It is wrong.
        """
        return len(self._read(number).tokens)

    def expect(self, numbers: Iterable[int]) -> None:
        """Decode nothing ahead: a processor is called when its example's turn comes."""

    def forget(self) -> None:
        """Nothing is decoded ahead."""

    def _read(self, number: int) -> ProcessedExample:
        """Read an example; errors do not name the file."""
        row, messages, pictures = self._row(number)
        made = self._processor.of_example([one.load() for one in pictures])
        if self._processor.has_suffix:
            example = _with_suffix(made, self._processor, messages)
        else:
            said = about_source(row) | {"messages": messages} if messages else row
            example = example_of(said, made, answers_only=self._answers_only, selective=self._selective)
        _check_pictures(example, self._processor.image_token, len(pictures), length=self._length)
        own = {one.name: getattr(example, one.name) for one in fields(Example)}
        return ProcessedExample(**own, inputs=made.inputs)

    def prompt(self, number: int) -> Inputs:
        """What comes before the first answer of an example, as the model's forward takes it.

        Args:
            number: From 0.

        Raises:
            PassedOver: A picture cannot be read, and the example is to be passed over.
            DataError: The example is wrong; the message names the file and the example.
        """
        return self._named(number, self._prompt)

    def _named(self, number: int, read: Callable[[int], T]) -> T:
        """Read something of an example; an error names the file and the example."""
        try:
            return read(number)
        except DataError as error:
            raise self.failure(number, error) from None

    def _prompt(self, number: int) -> Inputs:
        """As `prompt`; errors do not name the file."""
        _, messages, pictures = self._row(number)
        asked = before_answer(messages)
        if not asked:
            return {"input_ids": torch.tensor([self._read(number).beginning])}
        count = pictures_in(asked)
        made = self._processor.of_example([one.load() for one in pictures[:count]])
        if self._processor.has_suffix:
            return made.process(_question(asked, self._processor), count)
        text = self._processor.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        return made.process(text, count)

    def _row(self, number: int) -> tuple[dict[str, Any], Messages, Sequence[Picture]]:
        """A row, its messages and its pictures."""
        row = self._rows[number]
        return row, *with_pictures(row, folder=folder_of(self._path), where=f"example {number + 1}")


def _with_suffix(made: ExampleProcessor, known: GenericProcessor, messages: Messages) -> Example:
    """A question and its answer, for a model that sees its question as a whole and learns the answer.

    Raises:
        DataError: The messages are others.
    """
    question = _question(before_answer(messages), known)
    answers = messages[len(before_answer(messages)) :]
    if len(answers) != 1:
        raise DataError(
            "this model learns one answer to one question, without a chat template; write prompt, completion and "
            "an image"
        )
    found = made.process(question, pictures_in(messages), suffix=[_said(answers[0])])
    learned = (found["token_type_ids"][0] == 1).tolist()
    return Example(found["input_ids"][0].tolist(), learned)


def _question(asked: Messages, known: GenericProcessor) -> str:
    """Messages before an answer as one text, with the processor's mark for each picture at its beginning."""
    marks = str(known.processor.image_token) * pictures_in(asked)
    return marks + "\n".join(_said(message) for message in asked)


def _said(message: dict[str, Any]) -> str:
    """The text of a message."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def _check_pictures(example: Example, image_token: int, pictures: int, *, length: int) -> None:
    """Refuse an example whose pictures have no tokens, or tokens that would be cut off.

    Raises:
        DataError: It is one.
    """
    places = np.flatnonzero(np.asarray(example.tokens, np.int64) == image_token)
    if pictures and not len(places):
        raise DataError(
            f"the model's chat template and processor leave no token for its {pictures} pictures; write each "
            "picture as a part of a message that the template shows"
        )
    end = int(places[-1]) + 1 if len(places) else 0
    if end > length:
        raise DataError(
            f"its pictures end at token {end}, but a row has {length}; use a larger --train-seq-length, or fewer "
            "or smaller pictures"
        )
