"""Which characters of a text each token holds."""

from typing import Any

import pytest

from holdwater.errors import DataError
from holdwater.frameworks.transformers.token_spans import spans_by_decoding, spans_in_text, text_and_spans
from tests.small_tokenizers import KINDS, small_tokenizer

TEXT = '{"né😀":\n  [1, " 日本 "],  "b": null}<|im_end|>\n{"a":1}'
TELLING = [kind for kind in KINDS if kind not in {"word piece", "unigram", "characters"}]
"""Those that give back every text as it was."""


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of tokenizer."""
    return str(request.param)


def test_each_span_is_what_the_token_says(kind: str) -> None:
    """Where it is known; the only characters that no token holds are white space and those that are not known."""
    tokenizer = small_tokenizer(kind)
    tokens = tokenizer.encode(TEXT, add_special_tokens=False)

    spans = spans_in_text(tokenizer, TEXT, tokens)

    for token, (begin, end) in zip(tokens, spans, strict=True):
        said = tokenizer.decode([token], clean_up_tokenization_spaces=False).removeprefix("##")
        if token != tokenizer.unk_token_id and "\ufffd" not in said and said:
            assert TEXT[begin:end].removeprefix(" ") == said.removeprefix(" ")
    held = {at for begin, end in spans for at in range(begin, end)}
    assert all(TEXT[at].isspace() for at in range(len(TEXT)) if at not in held)
    assert TEXT[slice(*spans[tokens.index(tokenizer.convert_tokens_to_ids("<|im_end|>"))])] == "<|im_end|>"


def test_tokens_that_share_a_character_both_have_it() -> None:
    """In bytes, an emoji is four tokens or fewer."""
    tokenizer = small_tokenizer("byte level")
    tokens = tokenizer.encode("a🎈b", add_special_tokens=False)

    assert spans_in_text(tokenizer, "a🎈b", tokens) == [(0, 1), *[(1, 2)] * (len(tokens) - 2), (2, 3)]
    assert len(tokens) > 3


@pytest.mark.parametrize("kind", TELLING)
def test_decoding_finds_the_same_as_offsets(kind: str) -> None:
    """But for parts of a character, which share what begins and ends in one another."""
    tokenizer = small_tokenizer(kind)
    text = TEXT.replace("<|im_end|>", "") + '🎈\ufffd"'  # an old tokenizer adds a space behind a special token
    tokens = tokenizer.encode(text, add_special_tokens=False)
    by_offsets = spans_in_text(tokenizer, text, tokens)

    found = spans_by_decoding(tokenizer, tokens)

    assert found is not None
    assert found[0] == text
    for one, other in zip(found[1], by_offsets, strict=True):
        same = one == other or not text[slice(*other)].isascii() or one == (0, 0)
        assert same, (one, other)
    assert found[1][-1] == by_offsets[-1] == (len(text) - 1, len(text))


def test_the_text_of_tokens_is_found_with_their_spans() -> None:
    """Also where the tokens are none that the tokenizer would make of their text."""
    tokenizer = small_tokenizer("byte level")
    whole = tokenizer.encode('"name"', add_special_tokens=False)
    letters = [token for letter in '"name"' for token in tokenizer.encode(letter, add_special_tokens=False)]
    assert whole != letters

    assert text_and_spans(tokenizer, letters) == ('"name"', [(at, at + 1) for at in range(6)])


class Slow:
    """A tokenizer that tells no offsets."""

    def __init__(self, real: Any) -> None:
        self.decode = real.decode


def test_a_tokenizer_without_offsets_is_decoded() -> None:
    """And refused where that gives another text."""
    tokenizer = small_tokenizer("byte level")
    tokens = tokenizer.encode(TEXT, add_special_tokens=False)
    lossy = small_tokenizer("word piece")

    assert spans_in_text(Slow(tokenizer), TEXT, tokens)[0] == spans_in_text(tokenizer, TEXT, tokens)[0]
    with pytest.raises(DataError, match="tokenizer does not tell"):
        spans_in_text(Slow(lossy), TEXT, lossy.encode(TEXT, add_special_tokens=False))


def test_tokens_of_another_text_are_refused() -> None:
    """Nothing is guessed."""
    tokenizer = small_tokenizer("byte level")

    with pytest.raises(DataError, match="the chat template gives other tokens than its text does"):
        spans_in_text(tokenizer, "a b", tokenizer.encode("a c", add_special_tokens=False))
