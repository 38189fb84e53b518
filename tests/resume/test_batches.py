"""Batches of a loader: the same ones in the same order, from wherever an earlier process stopped."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from holdwater.errors import ConfigError
from holdwater.random_states import random_states, restore_random_states, seed_everything
from holdwater.resume import resumable
from holdwater.resume.batches import batches
from holdwater.resume.resumable import Resumption
from holdwater.resume.state_codec import decode, encode

NAME = "holdwater.batches"
STEPS = 11


class Rows(Dataset[int]):
    """Ten numbers; remembers which were loaded."""

    def __init__(self) -> None:
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        self.loaded.append(index)
        return index


class Shuffled:
    """A loader of somebody's own, which draws its order from Python's random state."""

    def __iter__(self) -> Iterator[int]:
        return iter(random.sample(range(4), 4))


def own_generator() -> DataLoader[int]:
    """Draws its order from a generator that it was given."""
    return DataLoader(Rows(), batch_size=3, shuffle=True, generator=torch.Generator().manual_seed(5))


LOADERS: dict[str, Callable[[], Any]] = {
    "in order": lambda: DataLoader(Rows(), batch_size=3),
    "shuffled": lambda: DataLoader(Rows(), batch_size=3, shuffle=True),
    "with a generator": own_generator,
    "with workers": lambda: DataLoader(Rows(), batch_size=3, shuffle=True, num_workers=1),
    "of somebody's own": Shuffled,
}


def go_through(
    monkeypatch: pytest.MonkeyPatch,
    loader: Any,
    *,
    steps: int = STEPS,
    done: int = 0,
    left: tuple[Any, Any] | None = None,
) -> tuple[list[Any], tuple[Any, Any]]:
    """Go through a loader in a process that goes on from so many steps; each step draws a number.

    Args:
        monkeypatch: Gives the process registered states of its own.
        loader: Gone through.
        steps: Where the process stops.
        done: By earlier ones.
        left: What the earlier one has left.

    Returns:
        Batches and numbers, and what is left for the next process.
    """
    resumption = Resumption(None)
    monkeypatch.setattr(resumable, "_resumption", resumption)
    if left is not None:

        def begin() -> int:
            """As from a checkpoint."""
            resumption.things[NAME].load_state_dict(left[0])
            restore_random_states(left[1])
            return done

        monkeypatch.setattr(resumption, "begin", begin)
    found = []
    for batch in batches(loader, steps=STEPS):
        found.append([torch.as_tensor(batch).tolist(), float(torch.rand(()))])
        if done + len(found) == steps:
            break
    tensors: dict[str, torch.Tensor] = {}
    stored = json.dumps(encode(resumption.things[NAME].state_dict(), NAME, tensors))
    return found, (decode(json.loads(stored), tensors), random_states())


@pytest.mark.parametrize(
    ("kind", "stop"), [(kind, stop) for kind in LOADERS for stop in ((6,) if "workers" in kind else (1, 4, 6, 8))]
)
def test_goes_on_exactly(kind: str, stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the beginning of an epoch, inside it, and at its end; the script's own random numbers are the same, too."""
    make = LOADERS[kind]
    seed_everything(3)
    straight, _ = go_through(monkeypatch, make())

    seed_everything(3)
    first, left = go_through(monkeypatch, make(), steps=stop)
    seed_everything(99)
    rest, _ = go_through(monkeypatch, make(), done=stop, left=left)

    assert len(straight) == STEPS
    assert first + rest == straight


def test_epochs_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has every row once, the last batch is smaller, and no two are in the same order."""
    seed_everything(3)
    found, _ = go_through(monkeypatch, LOADERS["shuffled"]())

    epochs = [[row for rows, _ in found[at : at + 4] for row in rows] for at in (0, 4)]
    assert [len(rows) for rows, _ in found[:4]] == [3, 3, 3, 1]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 2
    assert epochs[0] != epochs[1]


def test_what_was_taken_is_not_loaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without workers it is passed over by its numbers alone."""
    _, left = go_through(monkeypatch, LOADERS["in order"](), steps=2)
    rows = Rows()

    go_through(monkeypatch, DataLoader(rows, batch_size=3), steps=3, done=2, left=left)

    assert rows.loaded == [6, 7, 8]


def test_a_process_that_goes_on_before_the_first_batch_begins_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the checkpoint of step 0."""
    found, _ = go_through(monkeypatch, LOADERS["in order"](), left=({"taken": 0, "began": None}, random_states()))

    assert [rows for rows, _ in found[:2]] == [[0, 1, 2], [3, 4, 5]]


def test_an_empty_loader_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be gone through for ever."""
    with pytest.raises(ConfigError, match="without batches"):
        go_through(monkeypatch, DataLoader([], batch_size=3))  # type: ignore[arg-type]
