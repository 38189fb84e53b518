"""What a process holds, by kind; in pairs that count and that do not."""

import gc
from collections import deque

import numpy as np
import pytest
import torch

from holdwater.attribution.census import Census, Counter

MB = 1_000_000


def gained(make: object, *, before: object = None) -> tuple[Census, Census]:
    """The censuses before and after something was made."""
    del before
    counter = Counter()
    first = counter.take(1)
    kept = make()  # type: ignore[operator]
    second = counter.take(2)
    del kept
    return first, second


class TestTensors:
    """Storages are counted once, wherever they are held."""

    def test_counts_a_tensor(self) -> None:
        """4 MB."""
        first, second = gained(lambda: [torch.ones(MB)])

        assert second.tensors - first.tensors == 4 * MB

    def test_counts_a_storage_once(self) -> None:
        """However many views there are."""
        base = torch.ones(MB)

        first, second = gained(lambda: [base[index:] for index in range(50)])

        assert second.tensors == first.tensors

    def test_counts_what_only_a_graph_keeps(self) -> None:
        """The hidden activations of a loss."""
        weight = torch.ones(1000, 1000, requires_grad=True)
        first, second = gained(lambda: [((torch.ones(1000, 1000) @ weight) ** 2).mean()])

        assert second.tensors - first.tensors >= 8 * MB
        assert second.nodes - first.nodes >= 4

    def test_ignores_what_backward_has_freed(self) -> None:
        """After it only nodes are left."""
        weight = torch.ones(1000, 1000, requires_grad=True)

        def after_backward() -> torch.Tensor:
            loss = ((torch.ones(1000, 1000) @ weight) ** 2).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            weight.grad = None
            return loss

        first, second = gained(after_backward)

        assert second.tensors - first.tensors < MB


class TestPython:
    """Arrays, texts and small objects."""

    @pytest.mark.parametrize(
        "make",
        [
            lambda: np.ones(MB // 2),
            lambda: {"array": np.ones(MB // 2)},
            lambda: [(1, np.ones(MB // 2))],
            lambda: bytearray(4 * MB),
            lambda: [np.ones((MB // 2, 1))[:3]],
        ],
        ids=["array", "plain dict", "tuple", "bytes", "view"],
    )
    def test_counts_large_ones_wherever_they_are(self, make: object) -> None:
        """4 MB, in a frame, or in containers that the collector does not track."""
        first, second = gained(make)

        assert second.bulk - first.bulk == pytest.approx(4 * MB, rel=0.01)

    def test_weighs_what_a_list_has_gained(self) -> None:
        """A thousand small dictionaries."""
        rows: list[object] = [None] * 10
        counter = Counter()
        counter.take(1)
        rows += [{"step": index, "loss": index / 3} for index in range(1000)]

        assert counter.take(2).gained.python > 150_000

    def test_knows_the_room_of_a_deque(self) -> None:
        """Ninety arrays of 800 kB are still to come."""
        buffer: deque[object] = deque((np.ones(100_000) for _ in range(8)), maxlen=116)
        counter = Counter()
        counter.take(1)
        buffer.extend([[number] * 100 for number in range(18)])

        room = counter.take(2).room

        assert room is not None
        assert room > 50_000

    def test_leaves_no_garbage(self) -> None:
        """A census that keeps what it lists would look like a leak of the script."""
        counter = Counter()
        counter.take(1)
        gc.collect()
        counter.take(2)

        assert gc.collect() < 1000
