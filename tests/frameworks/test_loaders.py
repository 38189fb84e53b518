"""What loaders give out is counted, and nothing of theirs is kept alive."""

import gc
import weakref
from collections import UserDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from holdwater.frameworks.torch_clock import Loaders
from holdwater.observe.agent.session import Session
from holdwater.process.channel import create_channel


class Rows(Dataset[Any]):
    """Ten rows."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        return torch.ones(2)


class Hostile(Rows):
    """Ten rows, each a thing that raises at everything; the length is given a fixed number of times."""

    asked = 0

    def __len__(self) -> int:
        Hostile.asked += 1
        return 10

    def __getitem__(self, index: int) -> Any:
        names = ("__getattribute__", "__hash__", "__eq__", "__len__", "__iter__", "__bool__")
        return type("Row", (), dict.fromkeys(names, refuse))()


def refuse(*_: Any) -> Any:
    """Raise what no `except Exception` catches."""
    raise SystemExit("nobody may ask")


class Stream(IterableDataset[Any]):
    """Ten rows of a stream whose length is not known."""

    def __iter__(self) -> Any:
        return iter(torch.ones(10, 2))

    def __len__(self) -> int:
        raise NotImplementedError("the length of a stream is not known")


@pytest.fixture
def loaders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loaders:
    """What watches the loaders of a session; torch is as it was after the test."""
    create_channel(tmp_path / "channel")
    module = torch.utils.data.dataloader
    for owner, name in (
        (module._BaseDataLoaderIter, "_next_index"),
        (module._BaseDataLoaderIter, "__next__"),
        (module.DataLoader, "__iter__"),
        (module._MultiProcessingDataLoaderIter, "_try_put_index"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    sampler = torch.utils.data.sampler
    monkeypatch.setattr(sampler, "len", len, raising=False)
    found = Loaders(Session(tmp_path))
    found.watch(module)
    found.watch_lengths(sampler)
    return found


class TestDatasets:
    """They are reached, and let go."""

    @pytest.mark.parametrize("make", [Rows, lambda: [torch.ones(2)] * 10], ids=["a class", "a list"])
    def test_are_reached_while_they_live(self, make: Any, loaders: Loaders) -> None:
        """Their rows are counted once, however often they come."""
        loader = DataLoader(make(), batch_size=5)
        for _ in range(2):
            list(loader)

        assert loaders.datasets() == [loader.dataset]
        assert loaders._session.samples_seen == 10
        assert loaders._session.channel.get("samples_total") == 10

    def test_made_anew_at_each_evaluation_are_not_kept(self, loaders: Loaders) -> None:
        """Neither the list nor what was noted of it."""
        kept = torch.ones(2)
        alive = weakref.ref(kept)
        for _ in range(3):
            list(DataLoader([kept] * 10, batch_size=5))  # type: ignore[arg-type] # people give lists
        del kept
        gc.collect()

        assert alive() is None
        assert loaders.datasets() == []
        assert loaders._datasets == {}

    def test_a_length_that_raises_reaches_nobody(self, loaders: Loaders) -> None:
        """A stream that does not know its length is read as without us."""
        rows = [row for row in DataLoader(Stream(), batch_size=2)]  # noqa: C416 - a list would ask for the length

        assert len(rows) == 5
        assert loaders._session.epochs == 1

    def test_are_asked_no_more_often_than_without_us(self, loaders: Loaders) -> None:
        """By a sampler that does so once an epoch; batches that raise at everything pass."""
        Hostile.asked = 0
        for _ in range(2):
            for row in DataLoader(Hostile(), batch_size=5, collate_fn=tuple):
                assert len(row) == 5

        assert Hostile.asked == 2
        assert loaders._session.samples_seen == 20
        assert loaders._session.channel.get("samples_total") == 20

    def test_of_unknown_length_are_not_asked(self, loaders: Loaders) -> None:
        """A sampler of the program's own knows the rows: only a library's dataset is asked for its length."""
        Hostile.asked = 0
        list(DataLoader(Hostile(), sampler=[0, 1], collate_fn=tuple, batch_size=1))
        list(DataLoader(torch.utils.data.TensorDataset(torch.ones(10)), sampler=[0, 1]))

        assert Hostile.asked == 0
        assert loaders._session.channel.get("samples_total") == 10

    def test_shapes_are_told_apart(self, loaders: Loaders) -> None:
        """Of tensors and arrays in lists, tuples, dictionaries and their like."""
        for batch in ({"a": torch.ones(2)}, UserDict(a=np.ones(3)), [torch.ones(4)], (torch.ones(2),), 5):
            loaders._note_shape(batch)

        assert loaders._session.shapes == 4


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
class TestWorkers:
    """A row that two workers read is a first visit of each."""

    def test_a_row_that_the_same_worker_reads_again_is_not_new(self, loaders: Loaders) -> None:
        """Each epoch begins with the first worker, so that each gets its rows again; it could get all of them."""
        loader = DataLoader(Rows(), batch_size=2, num_workers=2, persistent_workers=True)
        counts = []
        for _ in range(2):
            list(loader)
            counts.append(loaders._session.worker_visits)

        assert counts == [10, 10]
        assert loaders._session.channel.get("worker_rows") == 20

    def test_a_row_that_another_worker_reads_is_new_to_it(self, loaders: Loaders) -> None:
        """Every second epoch has its batches in the other order."""
        batches = [[0], [1]]
        rows = torch.utils.data.TensorDataset(torch.ones(10))  # of a library: we may ask for its length
        loader = DataLoader(rows, batch_sampler=batches, num_workers=2, persistent_workers=True)
        counts = []
        for _ in range(3):
            list(loader)
            counts.append(loaders._session.worker_visits)
            batches.reverse()

        assert counts == [2, 4, 4]

    def test_workers_that_end_with_the_epoch_read_each_row_once_together(self, loaders: Loaders) -> None:
        """The next epoch's workers have read none."""
        loader = DataLoader(Rows(), batch_size=5, num_workers=2)
        for _ in range(2):
            list(loader)

        assert loaders._session.worker_visits == 20
        assert loaders._session.channel.get("worker_rows") == 20

    def test_a_loader_without_workers_has_no_such_visits(self, loaders: Loaders) -> None:
        """They are counted for the program."""
        list(DataLoader(Rows(), batch_size=5))

        assert loaders._session.worker_visits == 0
        assert loaders._session.channel.get("worker_rows") == 0
