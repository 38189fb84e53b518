"""Iterate over a DataLoader, epoch after epoch, from exactly where an earlier process stopped."""

from collections.abc import Iterator
from typing import Any

from holdwater.errors import ConfigError
from holdwater.resume.resumable import BATCHES, current, steps

try:
    from holdwater.resume.epoch import Position
    from holdwater.resume.inputs import compare_inputs
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "torch":
        raise
    raise ImportError(
        "holdwater.batches needs PyTorch, which is not installed; write: pip install torch safetensors, "
        "or iterate over the loader inside `for step in holdwater.steps(…)`"
    ) from error


def batches(loader: Any, *, steps: int) -> Iterator[Any]:  # noqa: ANN401 - any loader
    """Iterate over a loader, epoch after epoch, for a number of steps; resumable like `holdwater.steps`.

    A fresh process skips the batches of the epoch that were taken already: by index alone if the loader has no
    workers and a dataset with indices, else by loading them again.

    Args:
        loader: A DataLoader, or anything that can be iterated again for each epoch and draws its order from the
            random states of Python, NumPy or PyTorch.
        steps: Steps of the whole run.

    Yields:
        Its batches.

    Raises:
        ConfigError: The loader is empty.
    """
    return current().iterate(_batches(loader, steps))


def _batches(loader: Any, total: int) -> Iterator[Any]:  # noqa: ANN401 - any loader
    """Iterate over a loader for a number of steps."""
    resumption = current()
    place = Position(loader, resumption.things.values())
    if not resumption.begun:
        resumption.register(BATCHES, place)
        resumption.keep_beside(place.own, place.why_not)
    iterator: Iterator[Any] | None = None
    for _ in steps(total):  # the function: no argument has its name here
        if iterator is None:
            if resumption.is_replaceable:
                compare_inputs(place.inputs, place.watch())
            iterator = place.begin_again()
        try:
            batch = next(iterator)
        except StopIteration:
            iterator = place.begin_epoch()
            batch = next(iterator, Position)
        if batch is Position:
            raise ConfigError("holdwater.batches was given a loader without batches")
        place.taken += 1
        yield batch
