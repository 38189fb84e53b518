"""An optimizer step that recovers from out-of-memory: same samples, same effective batch, smaller micro-batches.

When memory runs out within a step, everything that the step has changed is restored (gradients, random states,
buffers, the loss scaler), unused memory is released, and the step is repeated: first unchanged, then with a
smaller micro-batch. Only the update changes the weights, and it comes last in a step.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from holdwater.errors import ConfigError, HoldwaterError
from holdwater.oom.out_of_memory import is_out_of_memory, release

Batch = TypeVar("Batch")
log = logging.getLogger("holdwater")

GROW_AFTER = 200
"""Steps in which a smaller micro-batch must have been enough before a larger one is tried."""
MOST_PATIENCE = 100_000


class OneSampleTooLarge(HoldwaterError):  # noqa: N818 - the name says what it is
    """Not even a single sample fits; the step was not taken, and its state is restored."""


class HalfUpdated(HoldwaterError):  # noqa: N818 - as above
    """Memory ran out while the weights were being changed: only a checkpoint is intact."""


class Restorable(Protocol):
    """A state that a step changes, other than gradients."""

    def take(self) -> object:
        """Copy it."""
        ...

    def put(self, state: Any) -> None:  # noqa: ANN401 - the return value of `take`
        """Restore it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFunctions(Generic[Batch]):
    """The functions of a training loop that a recovering step calls."""

    propagate: Callable[[Batch, float], float | None]
    """Add the gradient of a part's mean loss, times a share, to the model's; return that mean loss, or None if
    `loss` returns it."""
    rows: Callable[[Batch], int]
    """Samples in a batch."""
    cut: Callable[[Batch, int, int], Batch]
    """The samples from one number to another of a batch."""
    weigh: Callable[[Batch], float]
    """A batch's weight in the mean: its samples, or its target tokens."""
    clear: Callable[[], None]
    """Clear the gradients."""
    update: Callable[[], None]
    """Change the weights."""
    weights: Callable[[], Iterable[Tensor]]
    """The tensors that the update changes."""
    loss: Callable[[], float] | None = None
    """The mean loss of the whole step, read after the update: until then the host need not wait for the device."""
    inexact: str = ""
    """Why a smaller micro-batch gives another result, such as dropout; empty if it does not."""
    kept: Sequence[Restorable] = ()
    """Other state that a step changes: random states, buffers, the loss scaler."""


class RecoveringStep(Generic[Batch]):
    """Takes a loop's steps, and recovers them from out-of-memory."""

    def __init__(self, loop: StepFunctions[Batch], *, micro_batch: int, factor: float = 0.5) -> None:
        """Prepare.

        Args:
            loop: The training loop's functions.
            micro_batch: The most samples that are propagated at once.
            factor: Factor by which the micro-batch shrinks when memory runs out.

        Raises:
            ConfigError: The factor does not make it smaller.
        """
        if not 0 < factor < 1:
            raise ConfigError(
                f"batch_size_reduction_factor is {factor:g}, but the micro-batch must become smaller; "
                "set it above 0 and below 1, such as 0.5"
            )
        self.micro_batch = self._largest = micro_batch
        """Samples that are propagated at once now."""
        self.recovered: list[str] = []
        """Messages on recoveries; the newest last."""
        self._loop, self._factor = loop, factor
        self._calm, self._patience = 0, GROW_AFTER

    def expect(self, rows: int) -> None:
        """Propagate larger batches at once too, unless memory was short.

        Args:
            rows: Samples in a batch that comes.
        """
        if rows > self._largest:
            self.micro_batch = rows if self.micro_batch == self._largest else self.micro_batch
            self._largest = rows

    def take(self, window: Sequence[Batch]) -> float:
        """Take one optimizer step.

        Args:
            window: The batches whose gradients are added up.

        Returns:
            Their mean loss.

        Raises:
            OneSampleTooLarge: Not even one sample fits; the step was not taken.
            HalfUpdated: Memory ran out while the weights were changed.
        """
        self._grow()
        states = [kept.take() for kept in self._loop.kept]
        result = self._try(window)
        again = False
        while isinstance(result, str):
            self._put_back(states)
            self._shrink(result, again=again)
            result, again = self._try(window), True
        return result

    def _try(self, window: Sequence[Batch]) -> float | str:
        """Add up the gradients of a window and change the weights; return its mean loss, or how memory ran out.

        The exception is freed when this returns, and with it what its frames hold.

        Raises:
            HalfUpdated: Memory ran out while the weights were changed.
        """
        before = self._written()
        try:
            loss = self._accumulate(window)
            self._loop.update()
            loss = loss if self._loop.loss is None else self._loop.loss()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if before != self._written():
                raise HalfUpdated(
                    f"memory ran out while the weights were being changed ({first_line(error)})"
                ) from None
            return first_line(error)
        return loss

    def _written(self) -> list[int]:
        """The version counter of each weight."""
        return [weight._version for weight in self._loop.weights()]  # noqa: SLF001 - there is no public name

    def _accumulate(self, window: Sequence[Batch]) -> float:
        """Add up the gradients of a window; return its mean loss."""
        loop, mean = self._loop, 0.0
        whole = sum(loop.weigh(batch) for batch in window)
        loop.clear()
        for batch in window:
            rows = loop.rows(batch)
            for begin in range(0, rows, self.micro_batch):
                one = begin == 0 and rows <= self.micro_batch
                part = batch if one else loop.cut(batch, begin, min(begin + self.micro_batch, rows))
                share = loop.weigh(part) / whole if whole else 1 / len(window)
                if share == 0:  # it has no targets: its mean is 0/0
                    continue
                mean += (loop.propagate(part, share) or 0.0) * share
        return mean

    def _put_back(self, states: Sequence[object]) -> None:
        """Restore what the failed step changed, and release unused memory."""
        self._loop.clear()
        for kept, state in zip(self._loop.kept, states, strict=True):
            kept.put(state)
        release()

    def _shrink(self, failure: str, *, again: bool) -> None:
        """Make the micro-batch smaller, if releasing alone did not help."""
        self._calm = 0
        if not again:
            self._note(f"memory ran out ({failure}); memory was released, and the step is repeated")
            return
        if self.micro_batch == 1:
            raise OneSampleTooLarge(f"not even one sample fits into memory ({failure})")
        before, self.micro_batch = self.micro_batch, max(int(self.micro_batch * self._factor), 1)
        if self._largest > before:
            self._patience = min(2 * self._patience, MOST_PATIENCE)
        exact = f"; the rest of the run is not exact, since {self._loop.inexact}" if self._loop.inexact else ""
        self._note(
            f"memory ran out again ({failure}); the micro-batch is now {self.micro_batch}, not {before}{exact}"
        )

    def _grow(self) -> None:
        """Try a larger micro-batch if the smaller one has been enough for long."""
        self._calm += 1
        if self.micro_batch < self._largest and self._calm > self._patience:
            self._calm = 0
            self.micro_batch = min(max(int(self.micro_batch / self._factor), self.micro_batch + 1), self._largest)
            self._note(f"memory has been enough for {self._patience} steps: the micro-batch is {self.micro_batch}")

    def _note(self, text: str) -> None:
        """Log what was done, and keep the message."""
        log.warning("%s", text)
        self.recovered = [*self.recovered[-99:], text]


def first_line(error: BaseException) -> str:
    """An exception's message, shortened.

    Args:
        error: The exception.
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
