"""Iterate over a DataLoader, epoch after epoch, from exactly where an earlier process stopped.

The order of an epoch is drawn from random states when it begins; these are kept, with the number of batches taken.
A fresh process begins the same epoch again and skips those batches.

Source: PyTorch documentation, `torch.utils.data`, "Randomness in multi-process data loading".
"""

from collections.abc import Iterator
from typing import Any

from torch import Generator

from holdwater.errors import ConfigError
from holdwater.random_states import RandomStates
from holdwater.resume.resumable import current, steps


class _Position:
    """The position of a run in its epochs."""

    def __init__(self, loader: Any) -> None:  # noqa: ANN401 - any loader
        self.taken = 0
        """Batches taken from the epoch."""
        self.began: tuple[Any, ...] | None = None
        """The random states with which the epoch began; None before the first."""
        self._loader = loader
        self._random = RandomStates()

    def state_dict(self) -> dict[str, Any]:
        """The position, for a checkpoint."""
        return {"taken": self.taken, "began": self.began}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the position from a checkpoint."""
        self.taken, self.began = state["taken"], state["began"]

    def begin_epoch(self) -> Iterator[Any]:
        """Begin the next epoch."""
        self.began, self.taken = (self._random.take(), self._own_state()), 0
        iterator: Iterator[Any] = iter(self._loader)
        return iterator

    def begin_again(self) -> Iterator[Any]:
        """Begin the epoch of an earlier process, and skip the batches that it took."""
        if self.began is None:
            return self.begin_epoch()
        now = self._random.take()
        states, own = self.began
        self._random.put(states)
        generator = self._own_generator()
        if generator is not None and own is not None:
            generator.set_state(own)
        iterator: Iterator[Any] = iter(self._loader)
        self._pass_over(iterator)
        self._random.put(now)
        return iterator

    def _pass_over(self, iterator: Any) -> None:  # noqa: ANN401 - a loader's own
        """Skip batches without loading them if possible, else by loading them."""
        unloaded = getattr(iterator, "_sampler_iter", None)
        if getattr(self._loader, "num_workers", 1) == 0 and unloaded is not None:
            iterator = unloaded
        for _ in range(self.taken):
            next(iterator, None)

    def _own_generator(self) -> Generator | None:
        """The generator that the loader was given."""
        own = getattr(self._loader, "generator", None)
        return own if isinstance(own, Generator) else None

    def _own_state(self) -> Any:  # noqa: ANN401 - a tensor, or None
        """Its state."""
        generator = self._own_generator()
        return None if generator is None else generator.get_state()


def batches(loader: Any, *, steps: int) -> Iterator[Any]:  # noqa: ANN401 - any loader
    """Iterate over a loader, epoch after epoch, for a number of steps; resumable like `holdwater.steps`.

    A fresh process skips the batches of the epoch that were taken already: by index alone if the loader has no
    workers, else by loading them again.

    Args:
        loader: A DataLoader, or anything that can be iterated again for each epoch and draws its order from the
            random states of Python, NumPy or PyTorch.
        steps: Steps of the whole run.

    Yields:
        Its batches.

    Raises:
        ConfigError: The loader is empty.
    """
    place = _Position(loader)
    current().register("holdwater.batches", place)
    iterator: Iterator[Any] | None = None
    for _ in _count(steps):
        if iterator is None:
            iterator = place.begin_again()
        try:
            batch = next(iterator)
        except StopIteration:
            iterator = place.begin_epoch()
            batch = next(iterator, _Position)
        if batch is _Position:
            raise ConfigError("holdwater.batches was given a loader without batches")
        place.taken += 1
        yield batch


_count = steps
"""An alias, since an argument above has the same name."""
