"""Rows with pictures, in the forms in which people write them."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdwater.errors import DataError
from holdwater.frameworks.transformers.picture_files import Picture
from holdwater.frameworks.transformers.picture_messages import with_pictures

FOLDER = Path("/data")
BYTES = b"encoded"
BASE64 = base64.b64encode(BYTES).decode()
IMAGE = {"type": "image"}
KEYS = (
    "messages", "role", "content", "type", "image", "images", "path", "bytes", "base64", "text",
    "url", "image_url", "index", "prompt", "completion",
)  # fmt: skip


def text(words: str) -> dict[str, str]:
    """A part of text."""
    return {"type": "text", "text": words}


def asked(*parts: dict[str, Any]) -> dict[str, Any]:
    """A row in which a user says this."""
    return {"messages": [{"role": "user", "content": list(parts)}, {"role": "assistant", "content": "yes"}]}


def parsed(row: dict[str, Any]) -> tuple[list[dict[str, Any]], list[Picture]]:
    """Messages and pictures of the third example."""
    return with_pictures(row, folder=FOLDER, where="example 3")


class TestForms:
    """All mean the same."""

    @pytest.mark.parametrize(
        ("part", "source", "name"),
        [
            ({"type": "image", "image": "cats/5.jpg"}, Path("/data/cats/5.jpg"), " (cats/5.jpg)"),
            ({"type": "image", "image": "/cats/5.jpg"}, Path("/cats/5.jpg"), " (/cats/5.jpg)"),
            ({"type": "image", "path": "5.jpg", "image": None}, Path("/data/5.jpg"), " (5.jpg)"),
            ({"type": "image", "image": {"path": "5.jpg", "bytes": None}}, Path("/data/5.jpg"), " (5.jpg)"),
            ({"type": "image", "image": {"path": "5.jpg", "bytes": BYTES}}, BYTES, " (5.jpg)"),
            ({"type": "image", "path": "5.jpg", "bytes": BYTES}, BYTES, " (5.jpg)"),
            ({"type": "image", "image": BYTES}, BYTES, ""),
            ({"type": "image", "base64": BASE64}, BYTES, ""),
            ({"type": "image", "base64": BASE64.encode()}, BYTES, ""),
            ({"type": "image", "image": f"data:image;base64,{BASE64[:4]}\n{BASE64[4:]}"}, BYTES, ""),
            ({"type": "image", "url": "5.jpg"}, Path("/data/5.jpg"), " (5.jpg)"),
            ({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BASE64}"}}, BYTES, ""),
            ({"type": "image_url", "image_url": f"data:image/png;base64,{BASE64}"}, BYTES, ""),
            (
                {"type": "image_url", "image_url": {"url": "file:///a%20b/5.jpg", "detail": "low"}},
                Path("/a b/5.jpg"),
                " (file:///a%20b/5.jpg)",
            ),
            (
                {"type": "image", "image": "file://localhost/a/5.jpg"},
                Path("/a/5.jpg"),
                " (file://localhost/a/5.jpg)",
            ),
        ],
    )
    def test_a_part_names_its_picture(self, part: dict[str, Any], source: Path | bytes, name: str) -> None:
        """By a path, an address, or its content; templates are handed nothing of that."""
        messages, pictures = parsed(asked(part, text("what?")))

        assert messages == asked(IMAGE, text("what?"))["messages"]
        assert pictures == [Picture(source, f"example 3, picture 1{name}")]

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            (asked(IMAGE, text("or"), IMAGE) | {"images": ["a.png", {"bytes": BYTES, "path": None}]}, "yes"),
            (
                {
                    "prompt": [{"role": "user", "content": [IMAGE, text("or"), IMAGE]}],
                    "completion": [{"role": "assistant", "content": "yes"}],
                    "images": ["a.png", BYTES],
                },
                "yes",
            ),
            (asked({"type": "image", "path": "a.png"}, text("or"), IMAGE) | {"image": BYTES}, "yes"),
        ],
    )
    def test_parts_take_the_pictures_of_the_row_in_order(self, row: dict[str, Any], said: str) -> None:
        """As TRL writes them."""
        messages, pictures = parsed(row)

        assert [message["content"] for message in messages] == [[IMAGE, text("or"), IMAGE], said]
        assert [picture.source for picture in pictures] == [Path("/data/a.png"), BYTES]

    @pytest.mark.parametrize("images", [{"image": "a.png"}, {"images": ["a.png"]}, {"images": {"path": "a.png"}}])
    def test_pictures_come_before_the_prompt(self, images: dict[str, Any]) -> None:
        """A prompt is what a user says, its completion what the assistant answers."""
        messages, pictures = parsed({"prompt": "what?", "completion": "a cat", **images})

        assert messages == [
            {"role": "user", "content": [IMAGE, text("what?")]},
            {"role": "assistant", "content": [text("a cat")]},
        ]
        assert pictures == [Picture(Path("/data/a.png"), "example 3, picture 1 (a.png)")]

    def test_a_text_is_said_to_its_pictures(self) -> None:
        """A caption."""
        messages, pictures = parsed({"images": ["a.png", "b.png"], "text": "cats"})

        assert messages == [
            {"role": "user", "content": [IMAGE, IMAGE]},
            {"role": "assistant", "content": [text("cats")]},
        ]
        assert len(pictures) == 2

    def test_empty_columns_of_parquet_files_are_not_there(self) -> None:
        """Templates ask whether a key is there."""
        row = asked(
            {"type": "text", "text": "hi", "image": None}, {"type": "image", "text": None, "image": "a.png"}
        )

        assert (
            parsed(row | {"images": None, "image": None, "prompt": None})[0]
            == asked(text("hi"), IMAGE)["messages"]
        )

    @pytest.mark.parametrize(
        "row", [asked(text("hi")), {"messages": [{"role": "user", "content": "hi", "name": "A"}]}]
    )
    def test_messages_of_text_stay_as_they_are(self, row: dict[str, Any]) -> None:
        """With all their keys, and an empty list of images."""
        assert parsed(row | {"images": []}) == (row["messages"], [])

    def test_text_without_pictures_is_no_conversation(self) -> None:
        """A prompt with its completion is one."""
        assert parsed({"text": "hi"}) == ([], [])
        assert parsed({"prompt": "hi", "completion": "yes"})[0] == [
            {"role": "user", "content": [text("hi")]},
            {"role": "assistant", "content": [text("yes")]},
        ]

    def test_the_end_of_a_long_name_is_shown(self) -> None:
        """The beginning is the same for all of them."""
        where = parsed({"image": "folder/" * 100 + "5.jpg", "text": "cat"})[1][0].where

        assert len(where) < 140
        assert where.endswith("folder/5.jpg)")


class TestWhatIsWrong:
    """The row is named, and what to write."""

    @pytest.mark.parametrize(
        ("row", "words"),
        [
            (asked(IMAGE, IMAGE) | {"images": ["a.png"]}, "2 parts of its messages .* 1 pictures stand"),
            (asked(IMAGE), "1 parts of its messages .* 0 pictures stand"),
            (asked(text("hi")) | {"images": ["a.png"]}, "0 parts of its messages .* 1 pictures stand"),
            (asked({"type": "image", "path": "b.png"}) | {"images": ["a.png"]}, "0 parts .* 1 pictures"),
            (asked(IMAGE | {"index": 1}, IMAGE | {"index": 0}) | {"images": ["a", "b"]}, "picture 1 has the index 1"),
            (asked({"type": "image", "image": "a.png", "url": "b.png"}), "as image and as url; write one"),
            (asked({"type": "image", "image": "https://a.org/b.png"}), "download https://a.org/b.png and write its"),
            ({"image": "s3://a/b.png", "text": "hi"}, "picture 1: no address on the network is fetched by a trainer"),
            (asked({"type": "image_url", "image_url": {"url": "HTTP://a"}}), "no address on the network"),
            ({"image": "file://host/a.png", "text": "hi"}, "names another machine"),
            ({"image": "data:image/png,abc", "text": "hi"}, "not in base64"),
            ({"image": "data:image/png;base64,a*c", "text": "hi"}, "its content is no base64"),
            (asked({"type": "image", "base64": 5}), "its content is no base64"),
            (asked({"type": "image", "base64": b"\xff"}), "its content is no base64"),
            ({"image": 5, "text": "hi"}, "it is 5, which is no path"),
            ({"image": "", "text": "hi"}, "which is no path"),
            ({"images": [None], "text": "hi"}, "it is None, which is no path"),
            ({"images": [{"bytes": None, "path": None}], "text": "hi"}, "it is None, which is no path"),
            ({"image": "a", "images": ["a"], "text": "hi"}, "image and images; write one"),
            ({"image": "a", "caption": "hi"}, "it has image, caption, but pictures need messages"),
            ({"image": "a", "prompt": "hi"}, "but pictures need messages"),
            ({"image": "a", "prompt": 5, "completion": "hi"}, "prompt is 5, but it is a text"),
            ({"image": "a", "text": "\ud800"}, "half of a pair of surrogates"),
            ({"messages": []}, "but pictures need messages"),
            ({"messages": ["hi"]}, "a message is hi; write an object"),
            (asked({"type": "video", "path": "a.mp4"}), "type is text or image"),
            (asked({"type": "text", "text": None}), "the text of a part is None"),
            ({"messages": [{"role": "user", "content": ["hi"]}]}, "a part of a message is hi; write"),
        ],
    )  # fmt: skip
    def test_a_row_that_cannot_be_learned(self, row: dict[str, Any], words: str) -> None:
        """Is never learned in part."""
        with pytest.raises(DataError, match=words) as caught:
            parsed(row)

        assert str(caught.value).startswith("example 3")

    @given(
        st.recursive(
            st.none() | st.integers() | st.text(max_size=9) | st.binary(max_size=9),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(KEYS),
                    inner | st.sampled_from(["user", "text", "image", "image_url"]),
                    max_size=5,
                )
            ),
            max_leaves=30,
        )
    )
    def test_nothing_else_is_raised(self, value: object) -> None:
        """Whatever a row holds; and where it is taken, each part of type image has its picture."""
        for row in (value if isinstance(value, dict) else {"messages": value}, asked(IMAGE) | {"images": value}):
            try:
                messages, pictures = parsed(row)
            except DataError:
                continue
            shown = json.dumps(messages, default=repr).count('{"type": "image"}')
            assert shown == len(pictures)
