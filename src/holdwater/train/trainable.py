"""What the training loop needs of what it trains: a model from scratch, or the adapters of a large one."""

from pathlib import Path
from typing import Any, Protocol

from holdwater.errors import DataError
from holdwater.oom.recovering_step import StepFunctions
from holdwater.store.checkpoints import Checkpoint, CheckpointFolder


class Drawn(Protocol):
    """Batches, one after another, that can go on from any of them."""

    def draw(self, device: str) -> Any:  # noqa: ANN401 - whatever the state can propagate
        """Return the next batch."""
        ...

    def state(self) -> dict[str, Any]:
        """The place in the order, as JSON."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a place."""
        ...


class Ahead:
    """Batches, the next drawn while the device works on the last; their place is told as if it were not."""

    def __init__(self, batches: Drawn, *, device: str) -> None:
        """Begin where the batches are.

        Args:
            batches: Where they come from.
            device: Where they are drawn to, whatever the loop asks for.
        """
        self._batches, self._device = batches, device
        self._waiting: list[Any] = []
        self._place = batches.state()

    def draw(self, device: str) -> Any:  # noqa: ANN401, ARG002 - whatever the batches are
        """Return the next batch."""
        batch = self._waiting.pop() if self._waiting else self._batches.draw(self._device)
        self._place = self._batches.state()
        return batch

    def look_ahead(self) -> None:
        """Draw the next batch already; one that cannot be read is an error of the step that needs it."""
        if not self._waiting:
            before = self._batches.state()
            try:
                self._waiting.append(self._batches.draw(self._device))
            except DataError:
                self._batches.restore(before)

    def state(self) -> dict[str, Any]:
        """The place in the order, as JSON."""
        return self._place

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a place."""
        self._waiting.clear()
        self._batches.restore(state)
        self._place = self._batches.state()


class Trainable(Protocol):
    """A model in training, with all that a checkpoint holds."""

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

    @property
    def micro_batch(self) -> int:
        """Rows that are propagated at once, at most."""
        ...

    @property
    def batches(self) -> Drawn:
        """What is learned from."""
        ...

    @property
    def epochs(self) -> float:
        """How often the data was gone through."""
        ...

    @property
    def parameters(self) -> int:
        """Weights that are trained."""
        ...

    @property
    def remarks(self) -> str:
        """What is worth knowing of the data so far, for people; may be empty."""
        ...

    @property
    def proof(self) -> dict[str, Any]:
        """What this process has counted to show that its steps take no memory, for the verdict; may be empty."""
        ...

    def step_functions(self) -> StepFunctions[Any]:
        """What a step is made of."""
        ...

    def evaluate(self) -> float:
        """The mean loss on what is held out, in nats a token."""
        ...

    def sample(self, count: int) -> str:
        """Let the model write; its randomness is not the run's own."""
        ...

    def park(self, folder: CheckpointFolder) -> bool:
        """Leave what is trained where it lies, for a process that goes on at once; False where nobody keeps it."""
        ...

    def save(self, folder: CheckpointFolder, *, best: bool) -> Path:
        """Write a checkpoint, and return its folder."""
        ...

    def check_data(self) -> None:
        """Look for mistakes in what is learned, before anything is.

        Raises:
            DataError: There is one.
        """
        ...

    def begin_anew(self) -> None:
        """Make sure that nothing of an earlier process is in what is trained, for there is no checkpoint.

        Raises:
            CheckpointError: Something is, and it is gone for the next process.
        """
        ...

    def load(self, checkpoint: Checkpoint) -> list[str]:
        """Go on from a checkpoint; return remarks for people."""
        ...
