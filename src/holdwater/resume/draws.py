"""Notice a loader that draws random numbers between its batches from a state from which the script draws too.

A fresh process cannot begin such an epoch again: without the script's own draws the loader draws other numbers.
"""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from holdwater.resume.fingerprint import generator_state

States = tuple[object, ...]


class Draws:
    """Who draws from which random state, during one epoch."""

    def __init__(self, generators: list[Any]) -> None:
        """Prepare.

        Args:
            generators: Those from which the loader may draw, besides the global states.
        """
        self._generators = generators
        self._loader: set[int] = set()
        """The states from which the loader has drawn between two batches, after the script has."""
        self._others: set[int] = set()
        """The states from which the script has drawn since the epoch began."""
        self._after: States | None = None

    @property
    def interleaved(self) -> bool:
        """Whether the loader has drawn after the script from the same state."""
        return bool(self._loader)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"others": sorted(self._others)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore from a checkpoint."""
        self._others = set(state.get("others", ()))

    def watched(
        self,
        iterator: Any,  # noqa: ANN401 - a loader's own
        *,
        interleaves: bool,
        sampler: bool,
        goes_on: bool = False,
    ) -> Iterator[Any]:
        """Watch who draws in an epoch that begins, or is continued.

        Args:
            iterator: Of the epoch.
            interleaves: Whether the loader may draw between two batches; otherwise nothing is watched.
            sampler: Whether only its sampler is of interest: samples that were taken are not loaded again.
            goes_on: Whether the epoch was begun by an earlier process.
        """
        if not goes_on:
            self._others, self._after = set(), None
        if not interleaves:
            self._after = None
            return iterator  # type: ignore[no-any-return]
        if sampler and hasattr(iterator, "_sampler_iter"):
            iterator._sampler_iter = self._watch(iterator._sampler_iter, began=goes_on)  # noqa: SLF001
            return iterator  # type: ignore[no-any-return]
        return self._watch(iterator, began=goes_on)

    def note_others(self) -> None:
        """Note from which states the script has drawn since the last batch."""
        if self._after is not None:
            self._others |= _differing(self._after, self._take())

    def _watch(self, iterator: Iterator[Any], *, began: bool) -> Iterator[Any]:
        """Draw from an iterator, and note who draws."""
        while True:
            self.note_others()
            before = self._take()
            try:
                item = next(iterator)
            except StopIteration:
                self._after = None
                return
            self._after = self._take()
            if began:
                self._loader |= _differing(before, self._after) & self._others
            began = True
            yield item

    def _take(self) -> States:
        """All states, to be compared."""
        _, keys, position, _, _ = np.random.get_state(legacy=True)  # noqa: NPY002 - others use it
        return (
            hash(torch.get_rng_state().numpy().tobytes()),
            hash(random.getstate()),
            (position, hash(np.asarray(keys).tobytes())),
            *map(generator_state, self._generators),
        )


def _differing(before: States, after: States) -> set[int]:
    """The numbers of the states that differ."""
    return {number for number, (one, other) in enumerate(zip(before, after, strict=True)) if one != other}
