"""The loss of answers that are JSON without their structure: `--selective-loss json`.

Brackets, quotes, colons and commas are the same in every answer of one form, and easy to predict. Left out of the
loss, they do not outweigh the values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from holdwater.frameworks.transformers.json_structure import json_structure, structure_tokens
from holdwater.frameworks.transformers.token_spans import Span, spans_in_text
from holdwater.train.settings import TuneSettings


class Structure(NamedTuple):
    """Which tokens of an example are structure."""

    tokens: list[bool]
    """One flag a token; False outside of answers."""
    whole_answers: int
    """Answers that hold no complete JSON object or array, and are learned whole."""


@dataclass(frozen=True, slots=True)
class SelectiveLoss:
    """What of the answers is left out of the loss."""

    keys: bool = False
    """Also leave out keys of objects, and `null`."""

    @classmethod
    def of(cls, tuning: TuneSettings) -> "SelectiveLoss | None":
        """As the settings have it; None where answers are learned whole.

        Args:
            tuning: Of the run.
        """
        return None if tuning.selective_loss == "none" else cls(keys=tuning.selective_loss_keys == "leave-out")

    def structure_of(
        self,
        tokenizer: Any,  # noqa: ANN401 - of Transformers
        text: str,
        tokens: list[int],
        answers: Sequence[Span],
    ) -> Structure:
        """Find the tokens that are structure; each answer is scanned by itself.

        Args:
            tokenizer: Made the tokens.
            text: What they were made from.
            tokens: The text's.
            answers: Where the tokens of each answer begin and end.

        Raises:
            DataError: The text has other tokens, or the tokenizer does not tell where they are.
        """
        spans = spans_in_text(tokenizer, text, tokens)
        flags, whole = [False] * len(tokens), 0
        for first, last in answers:
            own = spans[first:last]
            if not own:
                continue
            start = own[0][0]
            structure = json_structure(text[start : own[-1][1]], keys=self.keys)
            if structure is None:
                whole += 1
            else:
                own = [(begin - start, end - start) for begin, end in own]
                flags[first:last] = structure_tokens(own, structure)
        return Structure(flags, whole)


@dataclass(slots=True)
class SelectiveCounts:
    """Targets of the steps that leave structure out."""

    answer_tokens: int = 0
    """Those of answers, with their structure."""
    structure_tokens: int = 0
    """Those that were left out."""
    whole_answers: int = 0
    """Answers that were learned whole, since they hold no complete JSON object or array."""

    def add(self, learned: Sequence[bool], structure: Sequence[bool], whole_answers: int) -> None:
        """Count an example; its first token is no target.

        Args:
            learned: Which tokens are learned.
            structure: Which are left out.
            whole_answers: Those of the example.
        """
        left_out = sum(structure[1:])
        self.answer_tokens += sum(learned[1:]) + left_out
        self.structure_tokens += left_out
        self.whole_answers += whole_answers

    def state(self) -> dict[str, int]:
        """The counts, as JSON."""
        return asdict(self)

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> "SelectiveCounts":
        """The counts of a state; one of before there were any begins at 0.

        Args:
            state: May hold more than the counts.
        """
        return cls(*(int(state.get(name, 0)) for name in cls.__slots__))

    def told(self, what: str) -> str:
        """Say how much was left out; empty where nothing was counted.

        Args:
            what: The counted tokens, in words.
        """
        if not self.answer_tokens:
            return ""
        share = self.structure_tokens / self.answer_tokens
        whole = f", {self.whole_answers} answers without JSON were learned whole" if self.whole_answers else ""
        return f"; {share:.1%} of the {what} were structure and left out{whole}"


def told_rows(so_far: dict[str, Any], length: int, *, answers_only: bool) -> str:
    """What was wasted on padding so far, and what was cut or left out, for people; empty before the first row.

    Args:
        so_far: The state of the batches.
        length: Tokens of a row.
        answers_only: Whether only answers are learned.
    """
    if not so_far["places"]:
        return ""
    padding, cut = 1 - so_far["filled"] / so_far["places"], so_far["cut"]
    ends = f", {cut} examples were cut at {length} tokens" if cut else ""
    of = "answers' tokens" if answers_only else "tokens of examples with answers"
    return f"; {padding:.1%} of the places for tokens were empty{ends}{SelectiveCounts.restored(so_far).told(of)}"
