"""The interface of a model in training: a model from scratch, or the adapters of a large one."""

from pathlib import Path
from typing import Any, Protocol

from holdwater.errors import DataError
from holdwater.oom.recovering_step import StepFunctions
from holdwater.store.checkpoints import Checkpoint, CheckpointFolder
from holdwater.train.settings import TrainSettings


class Drawn(Protocol):
    """A sequence of batches that can be resumed at any of them."""

    def draw(self, device: str) -> Any:  # noqa: ANN401 - any batch that the state accepts
        """Return the next batch."""
        ...

    def state(self) -> dict[str, Any]:
        """The position in the order, as JSON."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Resume at a position."""
        ...


class Ahead:
    """Batches of which the next is drawn while the device works; the reported position does not include it."""

    def __init__(self, batches: Drawn, *, device: str) -> None:
        """Begin at the position of the batches.

        Args:
            batches: Their source.
            device: The device for all batches, whatever the loop asks for.
        """
        self._batches, self._device = batches, device
        self._waiting: list[Any] = []
        self._place = batches.state()

    def draw(self, device: str) -> Any:  # noqa: ANN401, ARG002 - any batch
        """Return the next batch."""
        batch = self._waiting.pop() if self._waiting else self._batches.draw(self._device)
        self._place = self._batches.state()
        return batch

    def look_ahead(self) -> Any:  # noqa: ANN401 - any batch
        """Draw the next batch in advance.

        Returns:
            The batch; None if it cannot be read, which is an error of the step that needs it.
        """
        if not self._waiting:
            before = self._batches.state()
            try:
                self._waiting.append(self._batches.draw(self._device))
            except DataError:
                self._batches.restore(before)
                return None
        return self._waiting[0]

    def state(self) -> dict[str, Any]:
        """The position in the order, as JSON."""
        return self._place

    def restore(self, state: dict[str, Any]) -> None:
        """Resume at a position."""
        self._waiting.clear()
        self._batches.restore(state)
        self._place = self._batches.state()


class Trainable(Protocol):
    """A model in training, with all the state of a checkpoint."""

    settings: TrainSettings
    """The run's."""
    step: int
    """Optimizer steps done."""
    rate: float
    """The learning rate of the step that is being taken."""
    best: float
    """The lowest validation loss so far, in nats."""
    best_step: int
    """The step of that evaluation; -1 before the first."""
    saved_step: int
    """The step of the newest checkpoint that this process wrote; -1 before the first."""
    pictures: int | None
    """How many this process has learned from; None for a model of text."""

    @property
    def micro_batch(self) -> int:
        """Most rows that are propagated at once."""
        ...

    @property
    def batches(self) -> Drawn:
        """The training batches."""
        ...

    @property
    def epochs(self) -> float:
        """Passes over the data so far."""
        ...

    @property
    def parameters(self) -> int:
        """Number of trained weights."""
        ...

    @property
    def remarks(self) -> str:
        """Remarks on the data so far, as text; may be empty."""
        ...

    @property
    def proof(self) -> dict[str, Any]:
        """Counters that show that steps allocate nothing, for the verdict; may be empty."""
        ...

    def step_functions(self) -> StepFunctions[Any]:
        """The step functions."""
        ...

    def evaluate(self) -> float:
        """The mean validation loss, in nats a token."""
        ...

    def sample(self, count: int) -> str:
        """Generate text; its randomness does not affect the run."""
        ...

    def park(self, folder: CheckpointFolder) -> bool:
        """Park the trained weights for a process that continues at once; False if there is no weight server."""
        ...

    def save(self, folder: CheckpointFolder, *, best: bool) -> Path:
        """Write a checkpoint, and return its folder."""
        ...

    def first_non_finite(self) -> str:
        """The name of the first trained or optimizer tensor that holds NaN or infinity; empty if none does."""
        ...

    def check_data(self) -> None:
        """Check the training data for mistakes before the first step.

        Raises:
            DataError: There is one.
        """
        ...

    def begin_anew(self) -> None:
        """Check that the trained weights hold nothing of an earlier process, since there is no checkpoint.

        Raises:
            CheckpointError: They do; they are cleared for the next process.
        """
        ...

    def load(self, checkpoint: Checkpoint, *, branch: bool = False) -> list[str]:
        """Resume from a checkpoint, of another run if this one is a new branch; return remarks as text."""
        ...
