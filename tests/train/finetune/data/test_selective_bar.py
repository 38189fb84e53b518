"""The structure of 200 answers, by each kind of tokenizer, is what the one who wrote them knows it to be."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch

from holdwater.frameworks.transformers.selective_loss import IGNORED, selective_loss
from holdwater.train.finetune.data.examples import example_of
from holdwater.train.finetune.data.selective import SelectiveLoss
from tests.small_tokenizers import KINDS, SPECIAL, UNKNOWN, small_tokenizer

WORDS = (
    "water", "a b", "", "null", "true", "{", "}]", "[1, 2]", '{"a": 1}', ": ,", 'say "no"', "back\\slash", "line\nline",
    "tab\there", "\x07", "/", "Grüße", "日本 語", "😀🎈", "é\\", '\\"', "```json", "12", "- 3.5", "<|im_end|>", "x<|im_end|>",
)  # fmt: skip
SURROUNDINGS = (
    ("", ""),
    ("```json\n", "\n```"),
    ("The answer is ", "."),
    ("", "\n"),
    ("Here:\n\n", "\n\nIs that right?"),
)


@dataclass
class Writer:
    """Writes JSON, and notes of each character whether it is structure, or a key or null."""

    drawn: random.Random
    indent: int | None
    ascii_only: bool
    text: str = ""
    kinds: list[str] = field(default_factory=list)
    """Of each character: s for structure, k for a key or null, c for content."""

    def put(self, text: str, kind: str) -> None:
        """Write."""
        self.text += text
        self.kinds += kind * len(text)

    def line(self, depth: int) -> None:
        """Begin a line, where lines are used."""
        if self.indent is not None:
            self.put("\n" + " " * self.indent * depth, "s")

    def string(self, text: str, kind: str) -> None:
        """Write a string."""
        self.put('"', "s")
        self.put(json.dumps(text, ensure_ascii=self.ascii_only)[1:-1], kind)
        self.put('"', "s")

    def scalar(self) -> None:
        """Write a string, a number, or a word."""
        kind = self.drawn.randrange(4)
        if kind < 2:
            self.string("".join(self.drawn.choices(WORDS, k=self.drawn.randrange(1, 4))), "c")
        elif kind == 2:
            self.put(json.dumps(self.drawn.choice([0, -7, 12345, 0.5, -2.5e-07, 1e300])), "c")
        else:
            word = self.drawn.choice(["true", "false", "null"])
            self.put(word, "k" if word == "null" else "c")

    def container(self, depth: int = 0) -> None:
        """Write an object or an array."""
        named, count = self.drawn.random() < 0.6, self.drawn.randrange(0 if depth else 1, 5)
        self.put("{" if named else "[", "s")
        for number in range(count):
            if number:
                self.put("," if self.indent is not None else self.drawn.choice([",", ", "]), "s")
            self.line(depth + 1)
            if named:
                self.string(self.drawn.choice(WORDS) + str(number), "k")
                self.put(self.drawn.choice([":", ": ", " : "]), "s")
            if depth < 3 and self.drawn.random() < 0.35:
                self.container(depth + 1)
            else:
                self.scalar()
        if count:
            self.line(depth)
        self.put("}" if named else "]", "s")


@cache
def answers() -> list[tuple[str, str]]:
    """Texts, and the kind of each character; alone, in a fenced block, or between sentences."""
    drawn = random.Random(6)  # noqa: S311 - no secret
    made = []
    for number in range(200):
        writer = Writer(drawn, drawn.choice([None, None, 0, 2, 4]), drawn.random() < 0.3)
        before, after = SURROUNDINGS[number % 10 if number % 10 < len(SURROUNDINGS) else 0]
        spaces = before[len(before.rstrip()) :], after[: len(after) - len(after.lstrip())]
        writer.put(before.rstrip(), "c")
        writer.put(spaces[0], "s")
        writer.container()
        writer.put(spaces[1], "s")
        writer.put(after.lstrip(), "c")
        made.append((writer.text, "".join(writer.kinds)))
    return made


@cache
def tokenizer_of(kind: str) -> Any:
    """Trained on these answers."""
    return small_tokenizer(kind, [text for text, _ in answers()])


def byte_of(letter: str) -> int:
    """The byte that a letter stands for in a byte-level vocabulary: those that cannot be printed come from 256 on."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    code = ord(letter)
    return code if code in shown else [byte for byte in range(256) if byte not in shown][code - 256]


def bytes_of(kind: str, pieces: list[str], text: str) -> Iterator[bytes]:
    """The bytes of each token; a space that is not in the text is left out."""
    begins, at = True, 0
    for piece in pieces:
        if piece in SPECIAL:
            held = piece.encode()
        elif kind.startswith("byte level"):
            held = bytes(map(byte_of, piece))
        elif piece.startswith("<0x") and kind == "byte fallback":
            held = bytes([int(piece[3:5], 16)])
        else:
            virtual = (
                begins and piece[0] == "▁" and (kind == "byte fallback" or text.encode()[at : at + 1] != b" ")
            )
            held = (piece[1:] if virtual else piece).replace("▁", " ").encode()
        begins = piece in SPECIAL
        at += len(held)
        yield held


def words_of(pieces: list[str], text: str) -> Iterator[tuple[int, int]]:
    """The characters of each token of a tokenizer that loses white space."""
    at = 0
    for piece in pieces:
        held = piece.removeprefix("##")
        while text[at].isspace() and not held.isspace():
            at += 1
        assert text.startswith(held, at), (piece, text[at : at + 20])
        yield at, at + len(held)
        at += len(held)


def characters_of(kind: str, pieces: list[str], text: str) -> list[tuple[int, int]]:
    """The characters of each token, from its name in the vocabulary; one without any has the next one."""
    if kind == "word piece":
        return list(words_of(pieces, text))
    owner = [number for number, letter in enumerate(text) for _ in letter.encode()]
    spans, at = [], 0
    for held in bytes_of(kind, pieces, text):
        assert text.encode()[at : at + len(held)] == held, (pieces, text)
        last = owner[at + max(len(held), 1) - 1]
        spans.append((owner[at], last + 1))
        at += len(held)
    assert at == len(owner)
    return spans


def oracle(kind: str, tokens: list[int], text: str, kinds: str, left_out: str) -> list[bool]:
    """Which tokens of an answer are left out."""
    pieces = tokenizer_of(kind).convert_ids_to_tokens(tokens)
    assert UNKNOWN not in pieces
    return [set(kinds[begin:end]) <= set(left_out) for begin, end in characters_of(kind, pieces, text)]


@pytest.mark.parametrize("keys", [False, True])
@pytest.mark.parametrize("kind", KINDS)
class TestStructure:
    """Of 200 answers."""

    def test_completions(self, kind: str, keys: bool) -> None:
        """Each token is left out or learned, as it should be."""
        tokenizer, selective = tokenizer_of(kind), SelectiveLoss(keys=keys)
        seen = 0
        for text, kinds in answers():
            tokens = tokenizer.encode(text, add_special_tokens=False)

            example = example_of({"prompt": "water", "completion": text}, tokenizer, selective=selective)

            expected = oracle(kind, tokens, text, kinds, "sk" if keys else "s")
            before = len(example.tokens) - len(tokens) - 1
            assert example.structure == [False] * before + expected + [False], text
            assert example.learned == [False] * before + [not flag for flag in expected] + [True]
            assert example.whole_answers == 0
            seen += sum(expected)
        assert seen > 1000

    def test_messages(self, kind: str, keys: bool) -> None:
        """Two answers of one conversation; what the template writes is none of them."""
        tokenizer, selective = tokenizer_of(kind), SelectiveLoss(keys=keys)
        user = {"role": "user", "content": '[{"a": null}]'}
        for (one, one_kinds), (other, other_kinds) in zip(answers()[::2], answers()[1::2], strict=True):
            messages = [user, {"role": "assistant", "content": one}, user, {"role": "assistant", "content": other}]
            text = str(tokenizer.apply_chat_template(messages, tokenize=False))
            kinds = ["c"] * len(text)
            for said, known, at in (
                (one, one_kinds, text.index("assistant\n")),
                (other, other_kinds, text.rindex("assistant\n")),
            ):
                begin = at + len("assistant\n")
                assert text.startswith(said, begin)
                kinds[begin : begin + len(said)] = known

            example = example_of({"messages": messages}, tokenizer, selective=selective)

            expected = oracle(kind, example.tokens, text, "".join(kinds), "sk" if keys else "s")
            assert example.structure == expected, text

    def test_collator(self, kind: str, keys: bool) -> None:
        """From tokens alone, where they give back their text."""
        if kind == "word piece":
            return
        tokenizer, selective = tokenizer_of(kind), SelectiveLoss(keys=keys)
        collator = selective_loss(
            lambda features: {name: torch.tensor([row]) for name, row in features.items()}, tokenizer, keys=keys
        )
        for text, _ in answers():
            example = example_of({"prompt": "water", "completion": text}, tokenizer, selective=selective)
            whole = example.whole
            labels = [token if yes else IGNORED for token, yes in zip(whole.tokens, whole.learned, strict=True)]
            if "<|im_end|>" in text and kind in {"unigram", "byte fallback"}:
                continue  # these add a space behind a special token

            found = collator({"input_ids": example.tokens, "labels": labels})["labels"][0]

            assert (found != IGNORED).tolist() == example.learned, text
        assert collator.whole_answers == 0
