"""Rows of examples on disk, by number: JSON lines, Parquet and tar files, and datasets of Hugging Face's library.

Nothing is held but where the rows begin (8 bytes a line of JSON), so there may be more of them than memory holds,
and a run resumes at the exact row. Parquet and saved datasets are read through that library, which maps them into
memory; pictures in them are left encoded.
"""

import importlib
import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from holdwater.errors import DataError
from holdwater.train.finetune.data.shards import TarShards, shards_of

KINDS = "text, prompt and completion, or messages (and image or images, where the model takes pictures)"
WRITE = "write --data FILE.jsonl, FILE.parquet, FILE.tar, or a folder of .tar files or of a saved dataset"


class Rows(Protocol):
    """Rows by number."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, number: int, /) -> dict[str, Any]:
        """Read one."""
        ...


def open_rows(path: Path) -> Rows:
    """Open rows by the kind of their file.

    Args:
        path: A .jsonl, .parquet or .tar file, or the folder of .tar files or of a saved dataset.

    Raises:
        DataError: It cannot be read, holds nothing, or is of another kind.
    """
    if path.suffix == ".jsonl":
        return JsonLines(path)
    if shards_of(path):
        return TarShards(path)
    if path.suffix == ".parquet" or path.is_dir():
        return SavedRows(path)
    raise DataError(f"--data {path} is of no kind that is known; {WRITE}")


class JsonLines:
    """The lines of a JSONL file, by number."""

    def __init__(self, path: Path) -> None:
        """Find where the lines begin; empty ones are passed over.

        Args:
            path: The file.

        Raises:
            DataError: It cannot be read, or holds nothing.
        """
        self._path = path
        self._begins = array("q")
        at = 0
        try:
            with path.open("rb") as file:
                for line in file:
                    if line.strip():
                        self._begins.append(at)
                    at += len(line)
        except OSError as error:
            raise DataError(f"--data {path} cannot be read: {error.strerror}") from error
        if not self._begins:
            raise DataError(f"--data {path} holds no example; write one JSON object a line, with {KINDS}")

    def __len__(self) -> int:
        return len(self._begins)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Read one line.

        Args:
            number: Of the line that is not empty, from 0.

        Raises:
            DataError: It is no JSON object.
        """
        with self._path.open("rb") as file:
            file.seek(self._begins[number])
            line = file.readline()
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"--data {self._path}, example {number + 1}: it is no JSON ({error})") from None
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise DataError(
                f"--data {self._path}, example {number + 1}: it is a {kind}; write an object with {KINDS}"
            )
        return row


class SavedRows:
    """The rows of a Parquet file, or of a dataset that was saved to a folder."""

    def __init__(self, path: Path) -> None:
        """Map them into memory.

        Args:
            path: A .parquet file, or a folder.

        Raises:
            DataError: It cannot be read, or holds nothing.
        """
        try:
            datasets: Any = importlib.import_module("datasets")  # takes a second, and is an extra
        except ImportError:
            raise DataError(
                f"--data {path} needs the library datasets, which is not installed; write: pip install datasets"
            ) from None
        datasets.disable_progress_bars()
        try:
            rows = (
                datasets.load_from_disk(str(path)) if path.is_dir() else datasets.Dataset.from_parquet(str(path))
            )
        except Exception as error:  # noqa: BLE001 - each kind of damage has an exception of its own
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(f"--data {path} cannot be read ({first[:200]}); {WRITE}") from None
        if isinstance(rows, dict):
            raise DataError(
                f"--data {path} holds the parts {', '.join(rows)}; name the folder of one, such as "
                f"{path / next(iter(rows), 'train')}"
            )
        if not len(rows):
            raise DataError(f"--data {path} holds no example; write rows with {KINDS}")
        self._rows = _encoded(rows, datasets.Image)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Read one row, without what it leaves empty.

        Args:
            number: From 0.
        """
        return {name: value for name, value in self._rows[number].items() if value is not None}


def _encoded(rows: Any, image: type) -> Any:  # noqa: ANN401 - a dataset
    """The same dataset, whose pictures are not decoded: their bytes or paths come.

    `Dataset.cast` would copy columns with lists of pictures; here only the way in which rows are read changes.
    """
    features = rows.features
    pictures: list[Any] = [feature for feature in _leaves(features) if isinstance(feature, image)]
    if not pictures:
        return rows
    for feature in pictures:
        feature.decode = False
    info = rows.info.copy()
    info.features = features
    return type(rows)(rows.data, info=info, split=rows.split)


def _leaves(feature: Any) -> Iterator[Any]:  # noqa: ANN401 - a feature of a dataset
    """The features that hold no others."""
    if isinstance(feature, dict | list):
        for inner in feature.values() if isinstance(feature, dict) else feature:
            yield from _leaves(inner)
    elif hasattr(feature, "feature"):
        yield from _leaves(feature.feature)
    else:
        yield feature
