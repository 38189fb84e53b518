"""A step outlives a lack of memory: the same samples, the same result; and nothing else is taken for one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from holdwater.errors import ConfigError
from holdwater.oom.out_of_memory import is_out_of_memory
from holdwater.oom.recovering_step import HalfUpdated, OneSampleTooLarge, RecoveringStep
from holdwater.oom.torch_step import torch_step

Failing = Callable[[Tensor], None]


def make(
    fail: Failing = lambda _: None, *, rows: int = 6, dropout: float = 0.0, norm: bool = False
) -> tuple[nn.Module, RecoveringStep[Any], torch.optim.Optimizer]:
    """A small model, and its steps."""
    torch.manual_seed(0)
    layers = [nn.Linear(4, 8), *([nn.BatchNorm1d(8)] if norm else []), nn.Dropout(dropout), nn.Linear(8, 1)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        mean: Tensor = model(batch).pow(2).mean()
        fail(batch)
        return mean

    return model, torch_step(model, optimizer, loss, micro_batch=rows, clip=1.0), optimizer


def windows(count: int, rows: int = 6) -> list[list[Tensor]]:
    """Batches of two each, the last of each one shorter."""
    generator = torch.Generator().manual_seed(1)
    return [
        [torch.randn(rows, 4, generator=generator), torch.randn(rows - 1, 4, generator=generator)]
        for _ in range(count)
    ]


class FailingAt:
    """Raises at some of its calls."""

    def __init__(self, *calls: int, error: type[BaseException] = MemoryError) -> None:
        self.calls, self.error, self.count = calls, error, 0
        self.sizes: list[int] = []

    def __call__(self, batch: Tensor) -> None:
        """Count a call, and raise if it is one of them."""
        self.count += 1
        if self.count in self.calls:
            raise self.error("no memory today")
        self.sizes.append(len(batch))


def weights(model: nn.Module) -> list[bytes]:
    """The bytes of all weights and buffers."""
    return [value.numpy().tobytes() for value in model.state_dict().values()]


class TestRecovery:
    """Memory runs out in the forward or backward pass."""

    @pytest.mark.parametrize("call", [1, 2, 3, 8])
    def test_once_changes_no_bit(self, call: int) -> None:
        """Dropout and batch statistics included: everything is put back, and the micro-batch stays."""
        undisturbed, plain, _ = make(dropout=0.3, norm=True)
        model, step, _ = make(FailingAt(call), dropout=0.3, norm=True)

        torch.manual_seed(5)
        losses = [step.take(window) for window in windows(4)]
        torch.manual_seed(5)

        assert losses == [plain.take(window) for window in windows(4)]
        assert weights(model) == weights(undisturbed)
        assert step.micro_batch == 6
        assert len(step.recovered) == 1

    @given(fails=st.integers(2, 4), rows=st.integers(2, 9))
    @settings(max_examples=20, deadline=None)
    def test_twice_makes_the_micro_batch_smaller_and_the_gradient_the_same(self, fails: int, rows: int) -> None:
        """To 1e-5 of the whole batch's; each sample is propagated once."""
        undisturbed, plain, _ = make(rows=rows)
        failing = FailingAt(*range(1, fails + 1))
        model, step, _ = make(failing, rows=rows)
        window = windows(1, rows)[0]

        if rows // 2 ** (fails - 1) < 1:
            with pytest.raises(OneSampleTooLarge):
                step.take(window)
            return
        loss, expected = step.take(window), plain.take(window)

        assert sum(failing.sizes) == 2 * rows - 1
        assert max(failing.sizes) <= step.micro_batch < rows
        assert loss == pytest.approx(expected, rel=1e-5)
        for mine, other in zip(model.parameters(), undisturbed.parameters(), strict=True):
            assert mine.grad is not None
            assert other.grad is not None
            assert torch.linalg.vector_norm(mine.grad - other.grad) <= 1e-5 * other.grad.norm()

    def test_says_what_is_not_exact(self) -> None:
        """Dropout draws different numbers for smaller parts."""
        _, step, _ = make(FailingAt(1, 2), dropout=0.3)

        step.take(windows(1)[0])

        assert "the rest of the run is not exact, since dropout draws different numbers" in step.recovered[-1]

    def test_grows_back(self) -> None:
        """When the smaller one has been enough for long."""
        _, step, _ = make(FailingAt(1, 2))
        step.take(windows(1)[0])
        small = step.micro_batch

        for window in windows(210):
            step.take(window)

        assert (small, step.micro_batch) == (3, 6)

    def test_one_sample_that_does_not_fit_is_said_and_changes_nothing(self) -> None:
        """The step is not taken."""
        model, step, _ = make(FailingAt(*range(1, 20)))
        before = weights(model)

        with pytest.raises(OneSampleTooLarge, match="not even one sample fits"):
            step.take(windows(1)[0])

        assert weights(model) == before

    def test_other_failures_are_passed_on(self) -> None:
        """A bug is no lack of memory."""
        _, step, _ = make(FailingAt(1, error=ValueError))

        with pytest.raises(ValueError, match="no memory today"):
            step.take(windows(1)[0])

    def test_a_factor_that_does_not_shrink_is_refused(self) -> None:
        """And the key is named."""
        model, _, optimizer = make()

        with pytest.raises(ConfigError, match="batch_size_reduction_factor is 1"):
            torch_step(model, optimizer, lambda model, batch: model(batch).mean(), micro_batch=2, factor=1)


class TestUpdate:
    """Memory runs out in the optimizer."""

    def test_before_any_weight_is_changed_it_is_done_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Exactly."""
        undisturbed, plain, _ = make()
        model, step, optimizer = make()
        whole, failing = optimizer.step, FailingAt(1)

        def fail_first() -> None:
            failing(torch.zeros(1))
            whole()

        monkeypatch.setattr(optimizer, "step", fail_first)

        losses = [step.take(window) for window in windows(3)]

        assert losses == [plain.take(window) for window in windows(3)]
        assert weights(model) == weights(undisturbed)

    def test_in_the_middle_only_a_checkpoint_is_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A weight was written to."""
        model, step, optimizer = make()

        def half() -> None:
            with torch.no_grad():
                next(model.parameters()).add_(1.0)
            raise MemoryError

        monkeypatch.setattr(optimizer, "step", half)

        with pytest.raises(HalfUpdated, match="while the weights were being changed"):
            step.take(windows(1)[0])


class TestRecognition:
    """What is a lack of memory, and what is not."""

    def test_by_type_or_by_a_frameworks_own_words(self) -> None:
        """Of the host, of a device, of PyTorch on a CPU."""
        assert is_out_of_memory(MemoryError())
        assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
        with pytest.raises(RuntimeError) as caught:
            torch.empty(1 << 60)
        assert is_out_of_memory(caught.value)

    @pytest.mark.parametrize(
        "error",
        [ValueError("out of memory"), RuntimeError("shapes differ"), OSError(12, "Cannot allocate memory")],
    )
    def test_not_by_words_alone(self, error: Exception) -> None:
        """Other failures are others."""
        assert not is_out_of_memory(error)
