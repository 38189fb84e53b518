"""A collator that leaves the structure of JSON answers out of the labels."""

import pickle
from typing import Any

import pytest
import torch

from holdwater.errors import ConfigError
from holdwater.frameworks.transformers.selective_loss import IGNORED, selective_loss
from tests.small_tokenizers import small_tokenizer

PROMPT, ANSWER = (
    "<|im_start|>user\nlist [1]<|im_end|>\n<|im_start|>assistant\n",
    '{"b c": [null, "日"]}<|im_end|>\n',
)


def rows(tokenizer: Any, *texts: tuple[str, str]) -> list[dict[str, list[int]]]:
    """A prompt and an answer each, as trainers have them."""
    made = []
    for prompt, answer in texts:
        given, said = (tokenizer.encode(text, add_special_tokens=False) for text in (prompt, answer))
        made.append({"input_ids": given + said, "labels": [IGNORED] * len(given) + said})
    return made


def stacked(features: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Pad at the end."""
    longest = max(len(one["labels"]) for one in features)
    return {
        name: torch.tensor([one[name] + [padding] * (longest - len(one[name])) for one in features])
        for name, padding in (("input_ids", 0), ("labels", IGNORED))
    }


def learned(tokenizer: Any, labels: torch.Tensor) -> list[str]:
    """The tokens that count."""
    return [str(tokenizer.decode([label])) for label in labels.tolist() if label != IGNORED]


class TestSelectiveLoss:
    """Labels of structure are -100."""

    @pytest.mark.parametrize("kind", ["byte level", "byte level, trimmed", "byte fallback", "characters"])
    def test_only_structure_is_left_out(self, kind: str) -> None:
        """The prompt was left out before; what is no structure keeps its label."""
        tokenizer = small_tokenizer(kind)
        collator = selective_loss(stacked, tokenizer)
        before = stacked(rows(tokenizer, (PROMPT, ANSWER), (PROMPT, "no JSON<|im_end|>\n")))

        batch = collator(rows(tokenizer, (PROMPT, ANSWER), (PROMPT, "no JSON<|im_end|>\n")))

        kept = batch["labels"] != IGNORED
        assert torch.equal(batch["labels"][kept], before["labels"][kept])
        assert torch.equal(batch["labels"][1], before["labels"][1])
        assert torch.equal(batch["input_ids"], before["input_ids"])
        left_out = learned(tokenizer, before["labels"][0][~kept[0]])
        assert not set("".join(left_out)) - set('{}[]":, '), left_out
        assert (collator.structure_tokens, collator.whole_answers) == (len(left_out), 1)
        assert collator.answer_tokens == int((before["labels"] != IGNORED).sum())

    def test_letters_by_hand(self) -> None:
        """Of which each is a token; the second time with keys and null."""
        tokenizer = small_tokenizer("characters")

        texts = [
            "".join(learned(tokenizer, selective_loss(stacked, tokenizer, keys=keys)(given)["labels"][0]))
            for keys in (False, True)
            for given in [rows(tokenizer, (PROMPT, ANSWER))]
        ]

        assert texts == ["b cnull日<|im_end|>\n", "日<|im_end|>\n"]

    def test_a_space_that_begins_an_answer_belongs_to_it(self) -> None:
        """The tokenizer adds one to each text, and leaves it out where it decodes one."""
        tokenizer = small_tokenizer("unigram")
        given = rows(tokenizer, ("user", "{} a"))

        labels = selective_loss(stacked, tokenizer)(given)["labels"]

        assert learned(tokenizer, labels[0]) == ["a"]

    def test_an_answer_with_an_unknown_token_is_learned_whole(self) -> None:
        """It could be a quote."""
        tokenizer = small_tokenizer("characters")
        collator = selective_loss(stacked, tokenizer)
        given = rows(tokenizer, (PROMPT, '{"a": "Ж"}'))

        assert torch.equal(collator(given)["labels"], stacked(given)["labels"])
        assert collator.whole_answers == 1

    def test_several_answers_of_a_row_are_scanned_by_themselves(self) -> None:
        """As of a conversation, or of packed examples; one that begins where the row begins is an answer too."""
        tokenizer = small_tokenizer("characters")
        given = rows(tokenizer, ("", '{"a":1'), (PROMPT, "[2]}"))
        row = {name: given[0][name] + given[1][name] for name in given[0]}
        collator = selective_loss(stacked, tokenizer)

        labels = collator([row])["labels"]

        assert "".join(learned(tokenizer, labels[0])) == '{"a":12}'
        assert collator.whole_answers == 1

    def test_a_tokenizer_that_loses_white_space_is_refused(self) -> None:
        """Its tokens do not tell where a quote was escaped."""
        with pytest.raises(ConfigError, match="needs a tokenizer that gives back a text as it was"):
            selective_loss(stacked, small_tokenizer("word piece"))

    def test_wraps_a_collator_of_transformers(self) -> None:
        """Which pads labels with -100."""
        from transformers import DataCollatorForSeq2Seq

        tokenizer = small_tokenizer("byte level")
        tokenizer.pad_token = "</s>"  # noqa: S105 - no password
        given = rows(tokenizer, (PROMPT, ANSWER), (PROMPT, "[]"))
        for row in given:
            row["attention_mask"] = [1] * len(row["labels"])

        batch = selective_loss(DataCollatorForSeq2Seq(tokenizer, return_tensors="pt"), tokenizer)(given)

        assert learned(tokenizer, batch["labels"][1]) == []
        assert torch.equal(batch["labels"], selective_loss(stacked, tokenizer)(given)["labels"])
        assert batch["attention_mask"].shape == batch["labels"].shape

    def test_a_worker_of_a_loader_gets_a_copy(self) -> None:
        """It is pickled where workers are spawned."""
        tokenizer = small_tokenizer("byte level")
        collator = pickle.loads(pickle.dumps(selective_loss(stacked, tokenizer)))  # noqa: S301 - our own
        given = rows(tokenizer, (PROMPT, ANSWER))

        assert torch.equal(collator(given)["labels"], selective_loss(stacked, tokenizer)(given)["labels"])
