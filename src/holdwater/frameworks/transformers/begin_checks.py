"""Look at a Trainer's arguments before its training begins: what will multiply memory, or change the run?

Nothing of the program is called: a dataset that is asked for a row may draw random numbers.
"""

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from holdwater.attribution.kinds import is_a, namespace_of
from holdwater.errors import ConfigError
from holdwater.frameworks.transformers.recycle import checkpoints_in, missing_from
from holdwater.units import format_size

SAMPLED = 8
"""Rows of a dataset that are looked at."""
LEAST = 64 << 20
"""Bytes of pictures, in all workers together, that are worth a warning."""


class HeldPictures(NamedTuple):
    """The pictures that a dataset holds in memory."""

    rows: int
    bytes_each: float
    """Decoded, by the size in their headers; the mean of the rows that were looked at."""


def refuse_inexact_checkpoints(arguments: Any) -> None:  # noqa: ANN401 - of Transformers
    """Refuse checkpoints that a run which is stopped or replaced could not go on from.

    Args:
        arguments: `TrainingArguments`.

    Raises:
        ConfigError: They hold the weights only.
    """
    if getattr(arguments, "save_only_model", False):
        raise ConfigError(
            "save_only_model is True, but a run that stops when its budget is spent, or continues in a fresh "
            "process, needs the optimizer and the random states too; set save_only_model=False"
        )


def warnings_at_begin(arguments: Any, loader: Any) -> Iterator[str]:  # noqa: ANN401 - of Transformers, and of torch
    """What is to be said when training begins.

    Args:
        arguments: `TrainingArguments`.
        loader: The training's `DataLoader`; None if it is not known.
    """
    if getattr(arguments, "auto_find_batch_size", False):
        yield (
            "auto_find_batch_size is True: when memory runs out, the Trainer begins again from the first step "
            "with a smaller batch, so another effective batch and another run; HoldwaterTrainer keeps both: set "
            "auto_find_batch_size=False"
        )
    workers = int(getattr(loader, "num_workers", 0) or 0)
    found = pictures_in(getattr(loader, "dataset", None)) if workers else None
    if found is not None and workers * found.rows * found.bytes_each >= LEAST:
        most = format_size(workers * found.rows * found.bytes_each)
        yield (
            f"the dataset holds {found.rows:,} pictures in memory, and dataloader_num_workers is {workers}: each "
            f"worker keeps its own copy of those that it decodes, up to {most} in all; keep paths in the dataset "
            "and open pictures in __getitem__, or set dataloader_num_workers=0"
        )


def warning_about_checkpoints(folder: str | Path) -> str:
    """What is to be said about a newest checkpoint that is not complete; empty if there is none.

    Args:
        folder: The Trainer's `output_dir`.
    """
    found = checkpoints_in(folder)
    lacks = missing_from(found[-1]) if found else ""
    if not lacks:
        return ""
    return (
        f"the newest checkpoint {found[-1]} is incomplete ({lacks}), and resume_from_checkpoint=True would take "
        "it; write trainer.train(resume_from_checkpoint=last_checkpoint(args.output_dir)), from "
        "holdwater.frameworks.transformers.recycle"
    )


def pictures_in(dataset: Any) -> HeldPictures | None:  # noqa: ANN401 - any dataset
    """The pictures that a dataset holds in memory: as a list, or in a list among its attributes.

    Args:
        dataset: Any; none of its methods is called.

    Returns:
        None if no such list is found.
    """
    named = namespace_of(dataset) if dataset is not None else {}
    for held in (dataset, *named.values()):
        if is_a(held, list) or is_a(held, tuple):
            rows: list[Any] = list(held)
            sizes = [size for row in rows[:: max(len(rows) // SAMPLED, 1)] if (size := _size_of(row))]
            if sizes:
                return HeldPictures(len(rows), sum(sizes) / len(sizes))
    return None


def _size_of(row: Any) -> int:  # noqa: ANN401 - any row of a dataset
    """Bytes of the pictures in a row, decoded; 0 if it has none."""
    if is_a(row, dict):
        return sum(map(_size_of, islice(dict.values(row), 64)))
    if is_a(row, list) or is_a(row, tuple):
        return sum(map(_size_of, islice(iter(row), 64)))
    pillow: Any = sys.modules.get("PIL.Image")
    if pillow is None or not is_a(row, pillow.Image):
        return 0
    fields = namespace_of(row)
    width, height = fields.get("_size", (0, 0))
    coloured = fields.get("_mode") in {"RGB", "RGBA", "CMYK", "LAB", "HSV", "YCbCr"}
    return int(width) * int(height) * (4 if coloured else 1)
