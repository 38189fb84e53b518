"""Examples for fine-tuning: plain text, a prompt and its completion, or messages, made tokens in their turn."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from holdwater.errors import DataError
from holdwater.train.finetune.data.distrust import ExampleSource
from holdwater.train.finetune.data.rows import KINDS, open_rows
from holdwater.train.finetune.data.selective import SelectiveLoss, Structure


class Tokenizer(Protocol):
    """What is needed of a tokenizer of Transformers."""

    @property
    def eos_token_id(self) -> int | None:
        """Ends a text; None where the tokenizer has no such token."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Turn a text into tokens."""
        ...

    def apply_chat_template(self, conversation: Sequence[dict[str, str]], **options: Any) -> Any:  # noqa: ANN401
        """Turn messages into tokens, by the model's own template."""
        ...


@dataclass(frozen=True, slots=True)
class Example:
    """Tokens, and which of them are learned."""

    tokens: list[int]
    learned: list[bool]
    """Whether each token counts in the loss, as long as `tokens`."""
    source: ExampleSource | None = None
    """None where the example says nothing of it."""
    structure: list[bool] | None = None
    """Which tokens of answers are not learned since they are structure; None where answers are learned whole."""
    whole_answers: int = 0
    """Answers in which no structure was found."""

    @property
    def whole(self) -> "Example":
        """The same example, whose structure is learned too."""
        if self.structure is None:
            return self
        both = [learned or left_out for learned, left_out in zip(self.learned, self.structure, strict=True)]
        return replace(self, learned=both, structure=None, whole_answers=0)

    def without(self, structure: Structure) -> "Example":
        """The same example, whose structure is not learned.

        Args:
            structure: Of its tokens.
        """
        flags = structure.tokens + [False] * (len(self.tokens) - len(structure.tokens))
        learned = [yes and not left_out for yes, left_out in zip(self.learned, flags, strict=True)]
        return replace(self, learned=learned, structure=flags, whole_answers=structure.whole_answers)

    @property
    def beginning(self) -> list[int]:
        """What a model may continue: what comes before the first answer; else one half."""
        flags = self.whole.learned
        learned = next((at for at, yes in enumerate(flags) if yes and at), len(self.tokens))
        before = learned if learned < len(self.tokens) and not flags[0] else len(self.tokens) // 2
        return self.tokens[: max(before, 1)]


def example_of(
    row: dict[str, Any],
    tokenizer: Tokenizer,
    *,
    answers_only: bool = True,
    selective: SelectiveLoss | None = None,
) -> Example:
    """Turn a row into tokens.

    Args:
        row: With `text`, with `prompt` and `completion`, or with `messages`; `authority` and
            `provenance_entropy` may come with them, both or neither.
        tokenizer: Of the model.
        answers_only: Learn the completion, or what the assistant says; else everything.
        selective: Leave structure out of completions and of what the assistant says; None learns it too.

    Returns:
        The example; its end is learned too.

    Raises:
        DataError: A field is missing, of the wrong kind or out of its range.
    """
    source = _source(row)
    if "messages" in row:
        example = _of_messages(row["messages"], tokenizer, answers_only=answers_only, selective=selective)
        return replace(example, source=source)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if "text" in row:
        tokens = tokenizer.encode(_text(row, "text")) + end
        return Example(tokens, [True] * len(tokens), source)
    if "prompt" in row and "completion" in row:
        prompt, completion = tokenizer.encode(_text(row, "prompt")), _text(row, "completion")
        answer = tokenizer.encode(completion, add_special_tokens=False)
        learned = [not answers_only] * len(prompt) + [True] * len(answer + end)
        example = Example(prompt + answer + end, learned, source)
        if selective is None:
            return example
        found = selective.structure_of(tokenizer, completion, answer, [(0, len(answer))])
        return example.without(found._replace(tokens=[False] * len(prompt) + found.tokens))
    raise DataError(f"it has {', '.join(row) or 'no field'}, but an example needs {KINDS}")


def _by_template(
    tokenizer: Tokenizer, messages: list[dict[str, str]], *, tokenize: bool = True, begins_answer: bool = False
) -> Any:  # noqa: ANN401 - a list of tokens, or a text
    """Tokens or text of messages, by the model's own chat template.

    Raises:
        DataError: It has none, or that fails.
    """
    try:
        made = tokenizer.apply_chat_template(
            messages, tokenize=tokenize, add_generation_prompt=begins_answer, return_dict=False
        )
        return list(made) if tokenize else str(made)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - a template is a program, and may fail in any way
        lacking = getattr(tokenizer, "chat_template", None) is None
        reason = "this model has no chat template" if lacking else f"the model's chat template fails ({error})"
        raise DataError(f"a row has messages, but {reason}; write prompt and completion, or text") from None


def _of_messages(
    messages: object, tokenizer: Tokenizer, *, answers_only: bool, selective: SelectiveLoss | None
) -> Example:
    """Turn a conversation into tokens by the model's own template; what the assistant says is learned."""
    messages = _messages(messages)

    def tokens_of(count: int, *, begins_answer: bool = False) -> list[int]:
        """Tokens of the first messages, up to where an answer begins if that is asked for."""
        made: list[int] = _by_template(tokenizer, messages[:count], begins_answer=begins_answer)
        return made

    tokens = tokens_of(len(messages))
    example = Example(tokens, [not answers_only] * len(tokens))
    if not answers_only and selective is None:
        return example
    answers = []
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            begin, end = len(tokens_of(number, begins_answer=True)), len(tokens_of(number + 1))
            answers.append((begin, min(end, len(tokens))))
            example.learned[begin:end] = [True] * (answers[-1][1] - begin)
    if selective is None:
        return example
    text = _by_template(tokenizer, messages, tokenize=False)
    return example.without(selective.structure_of(tokenizer, text, tokens, answers))


def _messages(messages: object) -> list[dict[str, Any]]:
    """Messages that have a role and a content."""
    if not isinstance(messages, list) or not messages:
        raise DataError("messages is empty or no list; write a list of objects with role and content")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str) or "content" not in message:
            raise DataError(f"a message is {message!r}; write an object with role and content")
    return messages


def _text(row: dict[str, Any], name: str) -> str:
    """A field that is a text."""
    value = row[name]
    if not isinstance(value, str):
        raise DataError(f"{name} is {value!r}, but it is a text; write it in quotes")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        lone = ascii(value[error.start])
        raise DataError(f"{name} holds {lone}, half of a pair of surrogates; write the character itself") from None
    return value


def _source(row: dict[str, Any]) -> ExampleSource | None:
    """What the row says of where it comes from."""
    names = ("authority", "provenance_entropy")
    given = [name for name in names if name in row]
    if not given:
        return None
    if len(given) == 1:
        missing = next(name for name in names if name not in given)
        raise DataError(f"{given[0]} is given without {missing}; write both, or neither")
    return ExampleSource(row["authority"], row["provenance_entropy"])


class Corpus:
    """The examples of a file, by number."""

    def __init__(
        self,
        path: Path,
        tokenizer: Tokenizer,
        *,
        answers_only: bool = True,
        selective: SelectiveLoss | None = None,
    ) -> None:
        """Find where they begin; each is read when its turn comes.

        Args:
            path: A .jsonl or .parquet file, or the folder of a saved dataset.
            tokenizer: Of the model.
            answers_only: As for `example_of`.
            selective: As for `example_of`.

        Raises:
            DataError: The file cannot be read, or holds nothing.
        """
        self._path, self._tokenizer = path, tokenizer
        self._answers_only, self._selective = answers_only, selective
        self._rows = open_rows(path)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Example:
        """Read one.

        Args:
            number: From 0.

        Raises:
            DataError: It is wrong; the message names the file and the example.
        """
        return self._read(number, self._tokenizer, self._selective)

    def _read(self, number: int, tokenizer: Tokenizer, selective: SelectiveLoss | None = None) -> Example:
        """Read one with some tokenizer."""
        row = self._rows[number]
        try:
            return example_of(row, tokenizer, answers_only=self._answers_only, selective=selective)
        except DataError as error:
            raise DataError(f"--data {self._path}, example {number + 1}: {error}") from None

    def check(self, *, seconds: float) -> int:
        """Read the examples in their order, without making tokens of them.

        Args:
            seconds: Stop after so long.

        Returns:
            How many were read.

        Raises:
            DataError: One is wrong.
        """
        until, none = time.monotonic() + seconds, _NoTokens(self._tokenizer)
        for number in range(len(self)):
            self._read(number, none)
            if time.monotonic() > until:
                return number + 1
        return len(self)


class _NoTokens:
    """A tokenizer that makes none; conversations still go through the model's template."""

    eos_token_id = None

    def __init__(self, real: Tokenizer) -> None:
        self._real = real
        self.chat_template = getattr(real, "chat_template", None)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Nothing."""
        del text, add_special_tokens
        return []

    def apply_chat_template(self, conversation: Sequence[dict[str, str]], **options: Any) -> list[int]:  # noqa: ANN401
        """Nothing, if the template takes them."""
        self._real.apply_chat_template(conversation, **options | {"tokenize": False}).encode()
        return []
