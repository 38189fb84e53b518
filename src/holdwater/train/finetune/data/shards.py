"""Rows in tar files, as WebDataset writes them: members that share a name before its first dot are one example.

Of these `.json` holds the row, `.txt` its text or completion, and pictures are its images. Nothing is held but
where each example begins (8 bytes), and a file is open only while one is read. Source: the WebDataset format,
https://github.com/webdataset/webdataset.
"""

import json
import re
import tarfile
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from holdwater.errors import DataError

PICTURES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2"})
TEXTS = frozenset({"json", "txt"})
COMPRESSED = re.compile(r"\.(tar\.(gz|bz2|xz|zst|lz4)|tgz|tbz2|txz)$", re.IGNORECASE)
MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""How files begin that gzip, bzip2, xz and zstd write."""
SAVED = ("state.json", "dataset_dict.json")
"""In the folder of a dataset that Hugging Face's library saved."""


def shards_of(path: Path) -> list[Path]:
    """The tar files that are meant by a path.

    Args:
        path: A file, or a folder.

    Returns:
        In the order of their names; none where there are none, or the folder is a saved dataset.

    Raises:
        DataError: One is compressed.
    """
    if not path.is_dir():
        files = [path]
    elif any((path / name).exists() for name in SAVED):
        files = []
    else:
        files = sorted(path.iterdir())
    for file in files:
        if COMPRESSED.search(file.name):
            _refuse_compressed(file)
    return [file for file in files if file.suffix == ".tar" and not file.name.startswith(".")]


class TarShards:
    """The examples of tar files, by number."""

    def __init__(self, path: Path) -> None:
        """Find where they begin.

        Args:
            path: A .tar file, or a folder of them.

        Raises:
            DataError: One cannot be read, or an example is not whole.
        """
        self._shards = shards_of(path)
        self._begins = array("q")
        self._ends = array("q")
        """Examples up to the end of each file."""
        for shard in self._shards:
            for members in _examples(shard, 0):
                if not any(_kind(member) in TEXTS for member in members):
                    raise DataError(
                        f"--data {shard}: beside {members[0].name} is no .json and no .txt; write the members of "
                        "an example one after another, with the same name before the first dot (tar --sort=name)"
                    )
                self._begins.append(members[0].offset)
            self._ends.append(len(self._begins))
        if not self._begins:
            raise DataError(f"--data {path} holds no example; write NAME.json or NAME.txt for each, and NAME.jpg")

    def __len__(self) -> int:
        return len(self._begins)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Read one.

        Args:
            number: From 0, through all files.

        Raises:
            DataError: It cannot be read, or is no row.
        """
        shard = self._shards[bisect_right(self._ends, number)]
        members = next(_examples(shard, self._begins[number], read=True))
        try:
            return _row(members)
        except DataError as error:
            raise DataError(f"--data {shard}, example {number + 1} ({members[0].name}): {error}") from None


class _Member(tarfile.TarInfo):
    """A file in a tar file, and its content once that was read."""

    content: bytes = b""


def _examples(shard: Path, begin: int, *, read: bool = False) -> Iterator[list[_Member]]:
    """The members of each example from some place on; with their content if that is to be read.

    Raises:
        DataError: The file cannot be read, or is damaged.
    """
    try:
        with shard.open("rb") as file:
            if file.read(6).startswith(MAGIC):
                _refuse_compressed(shard)
            file.seek(begin)
            with tarfile.open(fileobj=file, mode="r:", tarinfo=_Member) as tar:
                yield from _groups(tar, shard, read=read)
    except OSError as error:
        raise DataError(f"--data {shard} cannot be read: {error.strerror or error}") from None
    except tarfile.TarError as error:
        raise DataError(f"--data {shard} is damaged or no tar file ({error}); write it again") from None


def _groups(tar: Any, shard: Path, *, read: bool) -> Iterator[list[_Member]]:  # noqa: ANN401 - `members` is untyped
    """Members with the same name before the first dot, as long as they follow one another.

    Raises:
        DataError: A member is no file.
    """
    group: list[_Member] = []
    while (member := tar.next()) is not None:
        tar.members.clear()  # they would be kept
        name = PurePosixPath(member.name).name
        if member.isdir() or name.startswith(".") or "." not in name:
            continue
        if not member.isfile():
            raise DataError(f"--data {shard}: {member.name} is a link or a device; write the file itself (tar -h)")
        if group and _key(member) != _key(group[0]):
            yield group
            group = []
        if read:
            member.content = tar.extractfile(member).read()
        group.append(member)
    if group:
        yield group


def _key(member: tarfile.TarInfo) -> tuple[PurePosixPath, str]:
    """What the members of an example share: the folder, and the name before the first dot."""
    path = PurePosixPath(member.name)
    return path.parent, path.name.partition(".")[0]


def _kind(member: tarfile.TarInfo) -> str:
    """The last suffix."""
    return member.name.rpartition(".")[2].lower()


def _row(members: list[_Member]) -> dict[str, Any]:
    """An example as a row of JSON would be.

    Raises:
        DataError: It is none.
    """
    texts = [member for member in members if _kind(member) in TEXTS]
    if len({_kind(member) for member in texts}) < len(texts):
        raise DataError(f"it has {' and '.join(member.name for member in texts)}; keep one .json and one .txt")
    row: dict[str, Any] = {}
    for member in sorted(texts, key=_kind):  # .json comes first
        if _kind(member) == "json":
            row = _json(member)
        elif "messages" not in row:
            row.setdefault("completion" if "prompt" in row else "text", _text(member))
    images = sorted((member for member in members if _kind(member) in PICTURES), key=_natural)
    if images and (row.get("image") or row.get("images")):
        raise DataError(f"its .json names images, and {images[0].name} lies beside it; leave one of them out")
    others = [member.name for member in members if _kind(member) not in TEXTS | PICTURES]
    if others and not images:
        raise DataError(f"it has no picture, but {others[0]}, of a kind that is not read; write a .png or .jpg")
    if images:
        row["images"] = [{"bytes": member.content, "path": member.name} for member in images]
    return row


def _natural(member: tarfile.TarInfo) -> list[str | int]:
    """The order of names in which 10 comes after 9."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", member.name)]


def _json(member: _Member) -> dict[str, Any]:
    """The row.

    Raises:
        DataError: It is no object.
    """
    try:
        row = json.loads(member.content)
    except ValueError as error:
        raise DataError(f"{member.name} is no JSON ({error})") from None
    if not isinstance(row, dict):
        raise DataError(
            f"{member.name} holds a {type(row).__name__}; write an object with messages, or prompt and completion"
        )
    return row


def _text(member: _Member) -> str:
    """The text, without the end of its last line.

    Raises:
        DataError: It is not UTF-8.
    """
    try:
        return member.content.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{member.name} is not UTF-8 (byte {error.start}); write it so") from None


def _refuse_compressed(path: Path) -> NoReturn:
    """Say why a compressed file cannot be read by number.

    Raises:
        DataError: Always.
    """
    raise DataError(
        f"--data {path} is compressed, and so has no random access: for one example all before it would be "
        "unpacked; unpack it once (gunzip, unxz, zstd -d) and name the .tar file"
    )
