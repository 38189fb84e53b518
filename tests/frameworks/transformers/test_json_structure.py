"""Which characters of a text are the structure of JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdwater.frameworks.transformers.json_structure import json_structure, structure_tokens

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
CONTAINERS = st.lists(VALUES, max_size=4) | st.dictionaries(st.text(max_size=4), VALUES, max_size=4)


def content(text: str, *, keys: bool = False) -> str | None:
    """What remains of a text without structure; None where it holds no JSON."""
    structure = json_structure(text, keys=keys)
    return (
        None if structure is None else "".join(one for one, mark in zip(text, structure, strict=True) if not mark)
    )


class TestJsonStructure:
    """Exactly what the grammar says."""

    @pytest.mark.parametrize(
        ("text", "remains"),
        [
            ('{"a": [1, "b c", true]}', "a1b ctrue"),
            ('{"a": null, "{:,}": "[\\"\\\\"}', 'anull{:,}[\\"\\\\'),
            ("[ ]", ""),
            ('[-1.5e+3,{"a":{}}]', "-1.5e+3a"),
            ('{"é": "日本 \\ud83d"}', "é日本 \\ud83d"),
        ],
    )
    def test_only_values_and_keys_remain(self, text: str, remains: str) -> None:
        """Quotes, escapes and brackets inside strings are content."""
        assert content(text) == remains

    def test_keys_and_null_are_left_out_by_choice(self) -> None:
        """A string that is no key stays, also where it says null."""
        assert content('{"a": null, "b": ["null", {"c": false}]}', keys=True) == "nullfalse"

    @pytest.mark.parametrize(
        ("text", "remains"),
        [
            ('```json\n{"a": 1}\n```\n', "```jsona1```\n"),
            ('Here: {"a": 1}. Done', "Here:a1. Done"),
            ('{"a": 1}\n[2]', "a12"),
            ('Use { to open: {"a": 1}', "Use { to open:a1"),
            ('{ {"a": 1} }', "{a1}"),
            ('{"a": 1}<|im_end|>\n', "a1<|im_end|>\n"),
        ],
    )
    def test_is_found_inside_of_an_answer(self, text: str, remains: str) -> None:
        """With the white space around it; the rest of the text is content."""
        assert content(text) == remains

    @pytest.mark.parametrize(
        "text",
        [
            "", "no", '"a"', "42", "null", "{", '{"a": 1', '{"a": {"b": 1}, "c', '{"a": {"b": 1}, bad}', "[1,]", "[01]",
            "[NaN]", "[1 2]", "['a']", '{"a" 1}', '{"a":}', "{1: 2}", '["\\x"]', '["\n"]', "[tru]", "[}", '{"a": "b}',
            "[1\u00a0]",
        ],
    )  # fmt: skip
    def test_what_is_no_complete_object_or_array_is_text(self, text: str) -> None:
        """A value that stands alone has no structure worth leaving out."""
        assert json_structure(text) is None

    @given(value=CONTAINERS, indent=st.sampled_from([None, 0, 2]), ascii_only=st.booleans())
    def test_takes_whatever_json_writes(self, value: object, indent: int | None, ascii_only: bool) -> None:
        """What remains depends on no layout."""
        text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
        compact = json.dumps(value, separators=(",", ":"), ensure_ascii=ascii_only)

        assert content(text) == content(compact) is not None

    @given(text=st.text(alphabet='{}[],:"a\\10-.e nul\n', max_size=12))
    def test_takes_what_json_reads_and_nothing_else(self, text: str) -> None:
        """A text is marked to both ends, and never rejected, exactly where it is an array for json."""
        wrapped = f"[{text}]"
        try:
            json.loads(wrapped)
        except ValueError:
            valid = False
        else:
            valid = True

        structure = json_structure(wrapped)
        outer = structure is not None and bool(structure[0]) and bool(structure[-1])
        assert outer or not valid

    def test_takes_as_long_as_the_text(self) -> None:
        """A bracket that is never closed is not scanned again from each one after it."""
        assert json_structure("[" * 200_000) is None


def test_a_token_of_structure_and_content_is_content() -> None:
    """One that has no character is too."""
    structure = bytearray([1, 1, 0, 1])

    assert structure_tokens([(0, 2), (1, 3), (2, 3), (3, 3), (3, 4)], structure) == [
        True,
        False,
        False,
        False,
        True,
    ]
