"""The position of a run in the epochs of a loader: how a fresh process begins an epoch again, and whether it can.

The order of an epoch follows from the random states with which it began; these are kept, with the number of
batches taken, and those of the generators that the loader, its samplers and its dataset hold.

Source: PyTorch documentation, `torch.utils.data`, "Randomness in multi-process data loading".
"""

import random
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from torch import Generator
from torch.utils.data import DataLoader, IterableDataset

from holdwater.random_states import RandomStates
from holdwater.resume.draws import Draws
from holdwater.resume.fingerprint import Fingerprint, Leaves, inputs_of
from holdwater.resume.introspection import attributes_of
from holdwater.resume.state_codec import set_state, state_of
from holdwater.resume.unregistered import kept_with

GENERATORS = (Generator, np.random.Generator, np.random.RandomState, random.Random)  # noqa: S311 - no secret
MOST_PARTS = 10_000
"""Parts of a loader that are searched for generators."""
KNOWN_SAMPLERS = ("torch.utils.data.sampler", "torch.utils.data.distributed")
"""Samplers of these modules draw the order of an epoch when it begins."""


class Position:
    """The position of a run in the epochs of a loader."""

    def __init__(self, loader: Any, registered: Iterable[object] = ()) -> None:  # noqa: ANN401 - any loader
        """Begin before the first epoch.

        Args:
            loader: Iterated again for each epoch.
            registered: Objects whose states are kept by themselves.
        """
        self.taken = 0
        """Batches taken from the epoch."""
        self.began: tuple[Any, ...] | None = None
        """The random states with which the epoch began; None before the first."""
        self._loader = loader
        self._random = RandomStates()
        registered = list(registered)
        self._kept = [part for one in registered for part in kept_with(one)]
        registered = [one for one in registered if isinstance(one, GENERATORS)]
        known = {id(one) for one in registered}
        self.own = [one for one in generators_of(loader) if id(one) not in known]
        """The generators that only the loader holds."""
        self._registered = registered
        self._began: list[Any] = []
        """The states of all generators, when the epoch began."""
        self._left: list[Any] | None = None
        """Those of the loader's own when an earlier process ended."""
        self._draws = Draws([*registered, *self.own])
        self.inputs: dict[str, int] = {}
        """The tensors and arrays of the loader in an earlier process, as checksums."""
        self.leaves: Leaves | None = None
        """What the loader held when the loop began."""
        self._changed: str | None = None

    def state_dict(self) -> dict[str, Any]:
        """The position, for a checkpoint."""
        self._draws.note_others()
        return {
            "taken": self.taken,
            "began": self.began,
            "generators": self._began,
            "own": [state_of(one, "generator") for one in self.own],
            "draws": self._draws.state_dict(),
            "inputs": {} if self.leaves is None else inputs_of(self.leaves),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the position from a checkpoint."""
        self.taken, self.began = state["taken"], state["began"]
        self._began, self._left = state.get("generators", []), state.get("own")
        self._draws.load_state_dict(state.get("draws", {}))
        self.inputs = state.get("inputs", {})

    def watch(self) -> Leaves:
        """Record what the loader holds, to notice what an epoch changes in it."""
        self.leaves = self._fingerprint()
        return self.leaves

    def begin_epoch(self) -> Iterator[Any]:
        """Begin the next epoch."""
        if self.leaves is not None and self.began is not None:
            self._changed = self._changed or self._difference()
        self.began, self.taken = (self._random.take(), self._own_state()), 0
        self._began = [state_of(one, "generator") for one in self._generators()]
        return self._draws.watched(self._begin(), interleaves=self._draws_between(), sampler=self._by_index)

    def begin_again(self) -> Iterator[Any]:
        """Begin the epoch of an earlier process, and skip the batches that it took."""
        if self.began is None:
            return self.begin_epoch()
        registered = [state_of(one, "generator") for one in self._registered]
        now = self._random.take()
        states, own = self.began
        self._random.put(states)
        if own is not None and isinstance(generator := getattr(self._loader, "generator", None), Generator):
            generator.set_state(own)
        _put(self._generators(), self._began)
        iterator = self._begin()
        self._pass_over(iterator)
        self._random.put(now)
        _put(self._registered, registered)
        _put(self.own, self._left or [])
        return self._draws.watched(
            iterator, interleaves=self._draws_between(), sampler=self._by_index, goes_on=True
        )

    def why_not(self) -> str | None:
        """Why a fresh process could not continue the epoch exactly; None if it can."""
        loader = self._loader
        if getattr(loader, "persistent_workers", False) and getattr(loader, "num_workers", 0):
            return (
                "the loader has persistent workers, whose random states no fresh process can have; "
                "leave out persistent_workers=True"
            )
        if not getattr(loader, "in_order", True) and getattr(loader, "num_workers", 0) > 1:
            return "the loader gives its batches in no fixed order; leave out in_order=False"
        if self._draws.interleaved:
            return (
                "the loader draws random numbers between its batches, from a state from which the script draws "
                "too; give it a generator of its own"
            )
        if self.leaves is not None and self._by_index:
            self._changed = self._changed or self._difference()
        if self._changed is not None:
            return f"{self._changed} has changed since the loop began, and no fresh process could have it"
        return None

    @property
    def _by_index(self) -> bool:
        """Whether batches are skipped by their indices alone."""
        loader = self._loader
        return isinstance(loader, DataLoader) and loader.num_workers == 0 and not _is_stream(loader)

    def _draws_between(self) -> bool:
        """Whether the loader may draw random numbers between its batches, in this process."""
        loader = self._loader
        if not isinstance(loader, DataLoader):
            return True
        if _is_stream(loader):
            return loader.num_workers == 0
        samplers = (loader.sampler, getattr(loader, "batch_sampler", None))
        return any(one is not None and type(one).__module__ not in KNOWN_SAMPLERS for one in samplers)

    def _begin(self) -> Iterator[Any]:
        """Iterate over the loader."""
        iterator: Iterator[Any] = iter(self._loader)
        return iterator

    def _pass_over(self, iterator: Any) -> None:  # noqa: ANN401 - a loader's own
        """Skip batches without loading them if possible, else by loading them."""
        unloaded = getattr(iterator, "_sampler_iter", None)
        if self._by_index and unloaded is not None:
            iterator = unloaded
        for _ in range(self.taken):
            next(iterator, None)

    def _generators(self) -> list[Any]:
        """All generators from which an epoch may draw."""
        return [*self._registered, *self.own]

    def _own_state(self) -> Any:  # noqa: ANN401 - a tensor, or None
        """The state of the generator that the loader was given."""
        own = getattr(self._loader, "generator", None)
        return own.get_state() if isinstance(own, Generator) else None

    def _fingerprint(self) -> Leaves:
        """What the loader holds, without its generators."""
        return Fingerprint([*self._kept, *self._generators()]).take({"loader": self._loader})

    def _difference(self) -> str | None:
        """The first part of the loader that has changed since the loop began."""
        before, now = self.leaves or {}, self._fingerprint()
        return next((path for path in (*now, *before) if before.get(path) != now.get(path)), None)


def generators_of(loader: object) -> list[Any]:
    """The random generators that a loader, its samplers and its dataset hold, in a fixed order.

    Args:
        loader: Any.
    """
    found: list[Any] = []
    seen: set[int] = set()
    waiting: deque[object] = deque([loader])
    while waiting and len(seen) < MOST_PARTS:
        one = waiting.popleft()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if issubclass(type(one), GENERATORS):
            found += [] if issubclass(type(one), random.SystemRandom) else [one]
        elif type(one) is dict:
            waiting.extend(list(one.values())[:100])
        elif type(one) is list or type(one) is tuple:
            waiting.extend(one[:100])
        else:
            waiting.extend(attributes_of(one).values())
    return found


def _is_stream(loader: DataLoader[Any]) -> bool:
    """Whether the dataset gives its samples in an order of its own."""
    return isinstance(loader.dataset, IterableDataset)


def _put(generators: list[Any], states: list[Any]) -> None:
    """Restore the states of generators."""
    for generator, state in zip(generators, states, strict=False):
        set_state(generator, "generator", state)
