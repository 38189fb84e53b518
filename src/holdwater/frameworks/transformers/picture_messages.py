"""Messages with pictures, in the form that chat templates take, from the forms in which people write them.

A template takes {"type": "image"} where a picture stands, and {"type": "text", "text": …}; the pictures come
beside the messages, in their order. No key but these is passed on: templates ask whether a key is there, and in
rows of Parquet files each part has all keys, most of them empty.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

from holdwater.errors import DataError
from holdwater.frameworks.transformers.picture_files import Picture
from holdwater.signal_errors import not_the_scripts

WRITE = 'write {"type": "image", "image": PATH} in the content of a message, or PATH in image or images'
SOURCES = ("image", "path", "bytes", "base64", "url", "image_url")
"""Keys under which a part of a message names its picture."""
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
SHOWN = 100
"""Characters of a name that are shown, at most."""


def with_pictures(row: dict[str, Any], *, folder: Path, where: str) -> tuple[list[dict[str, Any]], list[Picture]]:
    """Split a row into messages and pictures; no picture is opened.

    Args:
        row: With `messages`, `prompt` and `completion`, or `text`; pictures are in the content of its messages, or
            in `image` or `images`.
        folder: Of the data file; relative paths begin here.
        where: Names the row in messages of errors, such as "example 3".

    Returns:
        Messages, and their pictures in the same order. A prompt and its completion become what a user and an
        assistant say; a text with pictures is what the assistant says to them. Text without pictures gives no
        messages: it is learned as it is.

    Raises:
        DataError: Something is missing, of the wrong kind, or on the network.
    """
    messages, sources = with_sources(row, where=where)
    return messages, [
        picture_of(source, folder, picture_name(where, number)) for number, source in enumerate(sources)
    ]


def with_sources(row: dict[str, Any], *, where: str) -> tuple[list[dict[str, Any]], list[Any]]:
    """Split a row into messages and what it says of its pictures.

    Args:
        row: As for `with_pictures`.
        where: Names the row in messages of errors.

    Returns:
        Messages, and for each picture whatever stands in the row: a path, bytes, or a dictionary that names one.

    Raises:
        DataError: Something is missing or of the wrong kind.
    """
    beside = _beside(row, where)
    content = _Content(where, beside, [])
    messages = [content.message(message) for message in _messages(row, len(beside), where)]
    if content.taken != len(beside):
        raise DataError(
            f"{where}: {content.taken} parts of its messages are of type image and name no picture, and "
            f"{len(beside)} pictures stand in image or images; write one such part for each picture"
        )
    return messages, content.sources


def picture_name(where: str, number: int) -> str:
    """Name a picture in messages of errors.

    Args:
        where: Names its row.
        number: Of the picture in the row, from 0.
    """
    return f"{where}, picture {number + 1}"


@dataclass(slots=True)
class _Content:
    """Goes through the content of messages and collects what they say of their pictures."""

    where: str
    beside: list[Any]
    """Pictures of the row, for parts that name none."""
    sources: list[Any]
    """What is said of each picture so far."""
    taken: int = 0
    """Parts so far that name no picture."""

    def message(self, message: Any) -> dict[str, Any]:  # noqa: ANN401 - from a file: may be anything
        """A message whose parts name no pictures; one of plain text is left as it is.

        Raises:
            DataError: It is no message.
        """
        if not isinstance(message, dict) or not isinstance(message.get("role"), str) or "content" not in message:
            raise DataError(f"{self.where}: a message is {_short(message)}; write an object with role and content")
        content = message["content"]
        return (
            message | {"content": [self.part(part) for part in content]} if isinstance(content, list) else message
        )

    def part(self, part: Any) -> dict[str, Any]:  # noqa: ANN401 - from a file: may be anything
        """A part as templates take it.

        Raises:
            DataError: It is of another kind.
        """
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            return {"type": "text", "text": _text(part.get("text"), "the text of a part", self.where)}
        if kind not in {"image", "image_url"}:
            raise DataError(
                f"{self.where}: a part of a message is {_short(part)}; write objects whose type is text or image"
            )
        self.sources.append(self.source(part))
        return {"type": "image"}

    def source(self, part: dict[str, Any]) -> Any:  # noqa: ANN401 - from a file: may be anything
        """What a part says of its picture; else the next one of the row, None where there is no further one.

        Raises:
            DataError: It names several.
        """
        given = {name: part[name] for name in SOURCES if part.get(name) is not None}
        if not given:
            number = self.taken
            self.taken += 1
            index = part.get("index")
            if index is not None and index != number:
                raise DataError(
                    f"{self.where}: picture {number + 1} has the index {_short(index)}; list pictures in the "
                    "order of the messages"
                )
            return self.beside[number] if number < len(self.beside) else None
        if given.keys() <= {"path", "bytes"} or given.keys() == {"base64"}:
            return given
        if len(given) > 1:
            raise DataError(
                f"{self.where}: a part names its picture as {' and as '.join(given)}; write one of them"
            )
        return next(iter(given.values()))


def _beside(row: dict[str, Any], where: str) -> list[Any]:
    """The pictures that stand in the row itself.

    Raises:
        DataError: They are given twice.
    """
    given = [row[name] for name in ("image", "images") if row.get(name) is not None]
    if len(given) > 1:
        raise DataError(f"{where}: it has image and images; write one of them")
    return [one for value in given for one in (value if isinstance(value, list) else [value])]


def _messages(row: dict[str, Any], pictures: int, where: str) -> list[Any]:
    """The messages of a row; pictures come before the text of its prompt.

    Raises:
        DataError: There is nothing but pictures, or something is no text.
    """
    images = [{"type": "image"}] * pictures
    prompt, completion, text = (row.get(name) for name in ("prompt", "completion", "text"))
    messages = row.get("messages")
    if isinstance(prompt, list) and isinstance(completion, list):
        messages = prompt + completion
    elif messages is None and prompt is not None and completion is not None:
        asked = {"type": "text", "text": _text(prompt, "prompt", where)}
        said = {"type": "text", "text": _text(completion, "completion", where)}
        return [{"role": "user", "content": [*images, asked]}, {"role": "assistant", "content": [said]}]
    elif messages is None and text is not None and pictures:
        said = {"type": "text", "text": _text(text, "text", where)}
        return [{"role": "user", "content": images}, {"role": "assistant", "content": [said]}]
    if messages is None and not pictures:
        return []
    if not isinstance(messages, list) or not messages:
        raise DataError(
            f"{where}: it has {', '.join(row) or 'no field'}, but pictures need messages (a list of objects with "
            "role and content), prompt and completion, or text"
        )
    return messages


def picture_of(source: Any, folder: Path, where: str) -> Picture:  # noqa: ANN401 - from a file: may be anything
    """Make a reference to a picture of what a row says of it.

    Args:
        source: As `with_sources` returns it.
        folder: Relative paths begin here.
        where: Names the picture in messages of errors.

    Raises:
        DataError: That is nothing of which a picture could be read.
    """
    if isinstance(source, dict):
        source = {name: value for name, value in source.items() if value is not None}
        if "base64" in source:
            return Picture(_decoded(source["base64"], where), where)
        if isinstance(encoded := source.get("bytes"), bytes):
            return Picture(encoded, where + _named(source.get("path")))
        source = source.get("path", source.get("url"))
    if isinstance(source, bytes):
        return Picture(source, where)
    if not isinstance(source, str) or not source:
        raise DataError(f"{where}: it is {_short(source)}, which is no path and no content of a file; {WRITE}")
    if source[:5].lower() == "data:":
        return Picture(_decoded(source, where), where)
    return Picture(folder / _path(source, where), where + _named(source))


def _path(text: str, where: str) -> str:
    """A path, also from a file:// address.

    Raises:
        DataError: It is an address on the network.
    """
    address = ADDRESS.match(text)
    if address is None:
        return text
    if address[1].lower() != "file":
        raise DataError(
            f"{where}: no address on the network is fetched by a trainer; download {_short(text)} and write "
            "its path"
        )
    path = text[address.end() :].removeprefix("localhost")
    if not path.startswith("/"):
        raise DataError(f"{where}: {_short(text)} names another machine; write file:///FOLDER/FILE, or a path")
    return url2pathname(path)


def _decoded(text: Any, where: str) -> bytes:  # noqa: ANN401 - from a file: may be anything
    """The bytes of base64, with or without what a data: address has before it.

    Raises:
        DataError: It is none.
    """
    if isinstance(text, bytes):
        text = text.decode("ascii", "replace")
    if isinstance(text, str) and text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise DataError(f"{where}: its data: address is not in base64; write data:image/png;base64,…")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except not_the_scripts(binascii.Error, ValueError, AttributeError):
        raise DataError(
            f"{where}: its content is no base64; encode the bytes of the file, or write its path"
        ) from None


def _text(value: object, name: str, where: str) -> str:
    """A text that can be made tokens.

    Raises:
        DataError: It is none.
    """
    if not isinstance(value, str):
        raise DataError(f"{where}: {name} is {_short(value)}, but it is a text; write it in quotes")
    try:
        value.encode()
    except not_the_scripts(UnicodeEncodeError) as error:
        lone = ascii(value[error.start])
        raise DataError(
            f"{where}: {name} holds {lone}, half of a pair of surrogates; write the character itself"
        ) from None
    return value


def _named(name: object) -> str:
    """The name of a picture behind its number; the end of a long one."""
    if not isinstance(name, str) or not name:
        return ""
    return f" ({name})" if len(name) <= SHOWN else f" (…{name[1 - SHOWN :]})"


def _short(value: object) -> str:
    """The beginning of something from a file."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
