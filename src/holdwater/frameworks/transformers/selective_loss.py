"""A data collator that leaves the structure of JSON answers out of the loss, for trainers of Transformers and TRL.

    collator = selective_loss(DataCollatorForSeq2Seq(tokenizer), tokenizer)
    trainer = Trainer(..., data_collator=collator)

An answer is a run of labels other than -100. Its text is decoded from these: exact for tokenizers that
give back a text as it was (byte-level BPE, SentencePiece, characters); others, such as WordPiece, are refused.
An answer is learned whole if it holds no complete JSON object or array, or an unknown token, or if its tokens do
not give back their text one by one. Labels that cover prompts too are one run, so JSON in a prompt is left out as
well.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from holdwater.errors import ConfigError
from holdwater.frameworks.transformers.json_structure import json_structure, structure_tokens
from holdwater.frameworks.transformers.token_spans import text_and_spans

IGNORED = -100
"""The label of a token that does not count in the loss, as in Transformers."""
SAMPLE = '{"a": ["b c", "d\\"e"],\n  "b": 0}'
"""A text that a tokenizer must give back as it is."""


@dataclass(slots=True)
class SelectiveLossCollator:
    """Collates with another collator, then sets the labels of structure to -100, and counts."""

    collator: Callable[[Any], Any]
    """Returns `labels` as a tensor, among others."""
    tokenizer: Any
    keys: bool = False
    """Also leave out keys of objects, and `null`."""
    answer_tokens: int = 0
    """Labels of answers so far; each worker of a loader counts its own."""
    structure_tokens: int = 0
    """Those of them that were left out."""
    whole_answers: int = 0
    """Answers that were learned whole."""

    def __call__(self, features: Any) -> Any:  # noqa: ANN401 - of any collator
        """Collate features.

        Args:
            features: What the other collator takes.

        Returns:
            What it returns, with other labels.
        """
        batch = self.collator(features)
        labels = batch["labels"]
        left_out = labels.new_tensor([self._left_out(row) for row in labels.tolist()]).bool()
        batch["labels"] = labels.masked_fill(left_out, IGNORED)
        return batch

    def _left_out(self, labels: list[int]) -> list[bool]:
        """Which labels of a row are structure."""
        flags = [False] * len(labels)
        for begin, end in _answers(labels):
            found = self._structure(labels[begin:end])
            self.answer_tokens += end - begin
            if found is None:
                self.whole_answers += 1
            else:
                flags[begin:end] = found
        self.structure_tokens += sum(flags)
        return flags

    def _structure(self, answer: list[int]) -> list[bool] | None:
        """Which tokens of an answer are structure; None if it is learned whole."""
        unknown = self.tokenizer.unk_token_id
        ends = (self.tokenizer.eos_token_id, self.tokenizer.bos_token_id, self.tokenizer.pad_token_id)
        if unknown in answer and unknown not in ends:
            return None
        read = text_and_spans(self.tokenizer, answer)
        if read is None:
            return None
        text, spans = read
        structure = json_structure(text, keys=self.keys)
        return None if structure is None else structure_tokens(spans, structure)


def selective_loss(
    collator: Callable[[Any], Any],
    tokenizer: Any,  # noqa: ANN401 - of Transformers
    *,
    keys: bool = False,
) -> SelectiveLossCollator:
    """Wrap a data collator so that the structure of JSON answers is not learned.

    Args:
        collator: Returns `labels` as a PyTorch tensor, with the tokens of answers and -100 elsewhere.
        tokenizer: Made the tokens.
        keys: Also leave out keys of objects, and `null`.

    Returns:
        A collator for the same features.

    Raises:
        ConfigError: The tokenizer does not give back a text as it was.
    """
    tokens = tokenizer.encode(SAMPLE, add_special_tokens=False)
    back = tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if back != SAMPLE:
        raise ConfigError(
            f"selective_loss needs a tokenizer that gives back a text as it was, but this one makes {back!r} of "
            f"{SAMPLE!r}; use the tokenizer of a model that generates text"
        )
    return SelectiveLossCollator(collator, tokenizer, keys)


def _answers(labels: list[int]) -> Iterator[tuple[int, int]]:
    """Where each run of labels that count begins, and where it ends."""
    at = 0
    for counts, run in groupby(labels, key=lambda label: label != IGNORED):
        end = at + len(list(run))
        if counts:
            yield at, end
        at = end
