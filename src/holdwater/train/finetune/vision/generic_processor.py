"""The processor of any vision-language model of Transformers: tokens of an example, and what its pictures become.

Texts are written by the model's chat template, and the processor is called as its authors wrote it. What an answer
is follows from the tokens of the conversation up to it, so a picture may stand for any number of tokens. Pictures
are processed once for an example, though several of its texts show them.
"""

import copy
import inspect
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from holdwater.errors import DataError
from holdwater.signal_errors import not_the_scripts

Messages = list[dict[str, Any]]
"""As chat templates take them."""
Inputs = dict[str, Tensor]
"""What a model's forward takes, by its names; the first dimension is 1 where it counts examples."""
KINDS_OF_TOKENS = "mm_token_type_ids"
"""Says which tokens are a picture's; processors make it on demand."""


class GenericProcessor(NamedTuple):
    """What makes tokens and inputs for a model whose family has no code of its own here."""

    processor: Any
    """Of Transformers."""
    tokenizer: Any
    """Of the model, with the chat template of its processor."""
    takes: frozenset[str]
    """The names that the model's forward takes."""
    image_token: int
    """Stands for pictures in tokens."""
    settings: str
    """Of the processor, as text: what pictures become depends on them."""

    @property
    def has_suffix(self) -> bool:
        """Whether the model sees its question as a whole, and learns what follows: PaliGemma does.

        Such a model needs to be told which tokens are the answer, or it would see the answer too. A chat template
        cannot say that, so none is used. Versions of Transformers name it among the options, or as an argument.
        """
        text = self.processor.valid_processor_kwargs.__annotations__.get("text_kwargs")
        arguments = inspect.signature(type(self.processor).__call__).parameters
        return "suffix" in arguments or "suffix" in getattr(text, "__annotations__", {})

    @property
    def padding(self) -> int:
        """The token that fills rows up."""
        given = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        return next((token for token in given if token is not None), 0)

    def of_example(self, pictures: Sequence[Any]) -> "ExampleProcessor":
        """The processor for one example.

        Args:
            pictures: Decoded, in their order.
        """
        return ExampleProcessor(self, pictures)


class ExampleProcessor:
    """A tokenizer of one example, whose chat template writes the tokens that its pictures need."""

    def __init__(self, known: GenericProcessor, pictures: Sequence[Any]) -> None:
        """Take the pictures of an example.

        Args:
            known: Of the model.
            pictures: Decoded, in their order.
        """
        self._known, self._pictures = known, list(pictures)
        self._processor, self._tokenizer = copy.copy(known.processor), _Recorder(known.tokenizer)
        self._processor.tokenizer = self._tokenizer
        self._processor.image_processor = _Once(known.processor.image_processor)
        self._processor.get_text_with_replacements = self._with_replacements
        self._replacements: list[str] | None = None
        self._inputs: Inputs | None = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """Everything else is the tokenizer's own."""
        return getattr(self._known.tokenizer, name)

    def __call__(self, text: str, **options: Any) -> Any:  # noqa: ANN401
        """Tokens of a text in which pictures have their tokens already."""
        return self._known.tokenizer(text, **options)

    @property
    def inputs(self) -> Inputs:
        """What the model's forward takes for the first text, beside its tokens; nothing before there was one."""
        return self._inputs or {}

    @property
    def eos_token_id(self) -> int | None:
        """Ends a text."""
        token: int | None = self._known.tokenizer.eos_token_id
        return token

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Tokens of a text without pictures."""
        return list(self._known.tokenizer.encode(text, add_special_tokens=add_special_tokens))

    def apply_chat_template(
        self,
        conversation: Sequence[dict[str, Any]],
        *,
        tokenize: bool = True,
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Write messages by the model's own template, with the tokens of their pictures.

        Returns:
            Tokens, or the text that they are made from.

        Raises:
            DataError: The processor does not take the pictures.
        """
        written = self._known.tokenizer.apply_chat_template(conversation, **options | {"tokenize": False})
        found = self.process(written, pictures_in(conversation))
        tokens: list[int] = found["input_ids"][0].tolist()
        return tokens if tokenize else self._tokenizer.text

    def process(self, text: str, pictures: int, **options: Any) -> Inputs:  # noqa: ANN401 - of processors
        """Call the processor; inputs of the first text are kept.

        Args:
            text: With the processor's own mark for each picture.
            pictures: How many of the example's pictures it shows: the first ones.
            options: Of this processor.

        Returns:
            What the model's forward takes.

        Raises:
            DataError: The processor does not take the pictures.
        """
        if KINDS_OF_TOKENS in self._known.takes:
            options["return_mm_token_type_ids"] = True
        if pictures:
            options["images"] = [self._pictures[:pictures]]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of numpy, about processors of Transformers
                made = self._processor(text=[text], add_special_tokens=False, return_tensors="pt", **options)
        except not_the_scripts(Exception) as error:  # each processor has errors of its own
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(f"the model's processor does not take its text and pictures ({first[:300]})") from None
        found = {name: value for name, value in made.items() if name in self._known.takes}
        ragged = [name for name, value in found.items() if not isinstance(value, Tensor)]
        if ragged:
            raise DataError(
                f"the model's processor gives {', '.join(ragged)} in several parts, which is not supported here"
            )
        if self._inputs is None:
            rest = found.keys() - {"input_ids", "attention_mask"}
            self._inputs = {name: value for name, value in found.items() if name in rest}
        return found

    def _with_replacements(self, text: Any, replacements: Sequence[str] = (), *others: Any) -> Any:  # noqa: ANN401
        """Put the tokens of pictures in their places: those of the first text, also where a text shows fewer.

        Some processors give a picture fewer tokens where there are several.
        """
        if self._replacements is None:
            self._replacements = list(replacements)
        shown = self._replacements[: len(replacements)]
        return self._known.processor.get_text_with_replacements(text, shown, *others)


class _Once:
    """An image processor that processes the same pictures once."""

    def __init__(self, real: Any) -> None:  # noqa: ANN401 - of Transformers
        self._real = real
        self._found: dict[tuple[int, str], Any] = {}

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """Everything else is its own."""
        return getattr(self._real, name)

    def __call__(self, images: Any, **options: Any) -> Any:  # noqa: ANN401 - as the image processor has it
        """What it makes of the first so many pictures of an example."""
        count = sum(len(one) if isinstance(one, list | tuple) else 1 for one in images)
        key = count, repr(sorted(options.items(), key=lambda option: option[0]))
        if key not in self._found:
            self._found[key] = self._real(images, **options)
        return copy.copy(self._found[key])


class _Recorder:
    """A tokenizer that keeps the last text of which it made tokens."""

    def __init__(self, real: Any) -> None:  # noqa: ANN401 - of Transformers
        self._real, self.text = real, ""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """Everything else is its own."""
        return getattr(self._real, name)

    def __call__(self, text: Any, **options: Any) -> Any:  # noqa: ANN401 - as the tokenizer has it
        """Its tokens."""
        self.text = text[0] if isinstance(text, list) and len(text) == 1 else str(text)
        return self._real(text, **options)


def pictures_in(messages: Sequence[dict[str, Any]]) -> int:
    """How many pictures messages show.

    Args:
        messages: As chat templates take them.
    """
    contents = [message["content"] for message in messages if isinstance(message["content"], list)]
    return sum(part["type"] == "image" for content in contents for part in content)


def before_answer(messages: Messages) -> Messages:
    """The messages before the first answer.

    Args:
        messages: Of an example.
    """
    number = next((at for at, one in enumerate(messages) if one["role"] == "assistant"), len(messages))
    return messages[:number]
