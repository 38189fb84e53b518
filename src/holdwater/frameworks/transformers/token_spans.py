"""Find which characters of a text each token holds, for any tokenizer of Transformers."""

from typing import Any, NamedTuple

from holdwater.errors import DataError

Span = tuple[int, int]
"""Where the characters of a token begin, and where they end; tokens that share a character both have it."""
PART = "\ufffd"
"""What a part of a character is decoded as."""


def spans_in_text(tokenizer: Any, text: str, tokens: list[int]) -> list[Span]:  # noqa: ANN401 - of Transformers
    """Where the characters of each token are in the text that they were made from.

    Args:
        tokenizer: Made the tokens.
        text: What they were made from, without special tokens that are added to it.
        tokens: The text's.

    Returns:
        A span for each.

    Raises:
        DataError: The text has other tokens, or the tokenizer does not tell where they are.
    """
    if not getattr(tokenizer, "is_fast", False):
        found = spans_by_decoding(tokenizer, tokens)
        if found is None or found[0] != text:
            raise DataError(
                "selective_loss needs to know which characters a token holds, and the model's tokenizer does not "
                "tell; use one with a tokenizer.json, or set selective_loss to none"
            )
        return found[1]
    spans = _spans_by_offsets(tokenizer, text, tokens)
    if spans is None:
        raise DataError(
            "selective_loss needs the text that tokens were made from, but the chat template gives other tokens "
            "than its text does; write prompt and completion, or set selective_loss to none"
        )
    return spans


def text_and_spans(tokenizer: Any, tokens: list[int]) -> tuple[str, list[Span]] | None:  # noqa: ANN401
    """The text of tokens, and where the characters of each are in it.

    Args:
        tokenizer: Of Transformers; made the tokens.
        tokens: Such as those of an answer.

    Returns:
        Text and spans; None where the tokens do not give back their text one by one.
    """
    text = _decoded(tokenizer, tokens)
    spans = _spans_by_offsets(tokenizer, text, tokens) if getattr(tokenizer, "is_fast", False) else None
    return spans_by_decoding(tokenizer, tokens) if spans is None else (text, spans)


def spans_by_decoding(tokenizer: Any, tokens: list[int]) -> tuple[str, list[Span]] | None:  # noqa: ANN401
    """The text of tokens, and where the characters of each are in it, found by decoding token by token.

    Tokens that hold parts of one character share the characters that begin and end in any of them.

    Args:
        tokenizer: Of Transformers; made the tokens.
        tokens: Such as those of an answer.

    Returns:
        Text and spans; None where token by token there is another text than in one piece.
    """
    pieces: list[_Piece] = []
    context, whole = 0, 0  # where decoding begins, and how many pieces end with a whole character
    for number in range(len(tokens)):
        known = _decoded(tokenizer, tokens[context:number])
        new = _decoded(tokenizer, tokens[context : number + 1])
        if new.startswith(known):
            pieces.append(_Piece(new[len(known) :], 1))
        else:  # what seemed to end in a part of a character goes on here
            first = number - sum(piece.tokens for piece in pieces[whole:])
            begun = _decoded(tokenizer, tokens[context:first])
            pieces[whole:] = [_Piece(new[len(begun) :], number + 1 - first)]
        if not new.endswith(PART):
            context, whole = number + 1 - pieces[-1].tokens, len(pieces)
    text, spans = "", list[Span]()
    for piece in pieces:
        spans += [(len(text), len(text) + len(piece.text))] * piece.tokens
        text += piece.text
    return (text, spans) if text == _decoded(tokenizer, tokens) else None


class _Piece(NamedTuple):
    """Some text, and how many tokens it is made of."""

    text: str
    tokens: int


def _decoded(tokenizer: Any, tokens: list[int]) -> str:  # noqa: ANN401 - of Transformers
    """The text of tokens as they are, special ones too."""
    return str(tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _spans_by_offsets(tokenizer: Any, text: str, tokens: list[int]) -> list[Span] | None:  # noqa: ANN401
    """Where the tokens of a text are in it, as the tokenizer says; None where the text has other tokens."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if list(encoded["input_ids"]) != tokens:
        return None
    spans = [(begin, end) for begin, end in encoded["offset_mapping"]]
    nexts = [*(begin for begin, _ in spans[1:]), len(text)]
    before = 0
    for number, ((begin, end), after) in enumerate(zip(list(spans), nexts, strict=True)):
        if begin == end or before < begin or end < after:  # characters beside it that no token has
            spans[number] = _with_space(_decoded(tokenizer, [tokens[number]]), text, (begin, end))
        before = spans[number][1]
    return spans


def _with_space(held: str, text: str, span: Span) -> Span:
    """Give a token the white space that it holds, where the tokenizer trims it off its offsets."""
    begin, end = span
    leading = len(held) if begin == end else held.find(text[begin:end])
    first = begin - leading
    wide = (first, first + len(held))
    added = (text[first:begin] + text[end : wide[1]]).strip()
    return span if leading < 0 or first < 0 or added or text[slice(*wide)] != held else wide
