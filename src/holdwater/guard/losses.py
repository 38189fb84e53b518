"""The losses that a loop reports: their mean between two samples, and the first that is not finite."""

from typing import Any


class Losses:
    """Losses of a run; NaN and infinity count in no mean."""

    def __init__(self) -> None:
        self.first_nonfinite_step: int | None = None
        """The first step whose loss was NaN or infinite; None if there was none."""
        self._total, self._count, self._reported = 0.0, 0, False

    def add(self, loss: Any, step: int) -> None:  # noqa: ANN401 - a float, or a tensor of any framework
        """Add the loss of a step.

        Args:
            loss: A number, or a tensor of one.
            step: Its number.
        """
        if type(loss) is not float:  # the graph of a tensor must not be kept
            loss = float(loss.detach() if hasattr(loss, "detach") else loss)
        if loss - loss == 0.0:  # the cheapest test for a finite number
            self._total += loss
            self._count += 1
        elif self.first_nonfinite_step is None:
            self.first_nonfinite_step = step
        self._reported = True

    def take_mean(self) -> float | None:
        """The mean since the last call; None if there was no finite loss."""
        mean = self._total / self._count if self._count else None
        self._total, self._count = 0.0, 0
        return mean

    def as_json(self) -> dict[str, int | None] | None:
        """The first step whose loss was not finite, for the summary; None if the loop reports no loss."""
        return {"first_nonfinite_step": self.first_nonfinite_step} if self._reported else None
