"""A guard for one of several processes that train together: all of them end after the same step, or none does."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from holdwater.actions.levers import Levers
from holdwater.frameworks.observed_guard import ObservedGuard

Batch = TypeVar("Batch")
log = logging.getLogger("holdwater")

AGREE_EVERY = 16
"""Steps between two questions to all processes whether one must stop: each question is a collective operation."""


class AgreedGuard(ObservedGuard):
    """Ends the loop of every process after the same step."""

    processes = 1
    """How many train together."""
    agree: Callable[[bool], bool] | None = None
    """Returns whether any process says yes; all call it after the same step. None: nobody can be asked."""
    _ends = False

    def steps(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches, count a step after each that has ended one, and end early if the run must stop."""
        for batch in () if self._ends else batches:
            yield batch
            if not self.has_stepped():
                continue
            self.step()
            if self.must_end():
                return

    def has_stepped(self) -> bool:
        """Whether the batch that was yielded last has ended an optimizer step."""
        return True

    def must_end(self) -> bool:
        """Whether the loop must end after this step; every process calls it after each step.

        Returns:
            The same in all processes. Where they cannot ask each other, no loop is ended.
        """
        if self._ends:
            return True
        if self.processes == 1:
            self._ends = self.stop_reason is not None
        elif self.agree is not None and self.step_number % AGREE_EVERY == 0:
            self._ends = self.agree(self.stop_reason is not None)
        if self._ends:
            self.stop("another process of the run is short of memory")
            self.leave()
        return self._ends

    def leave(self) -> None:
        """Every process leaves its loop after this step: say why."""
        log.warning("training ends after step %d: %s", self.step_number, self.stop_reason)

    def stops_without_lever(self) -> None:
        """Let the guard ask for a stop though it writes no checkpoint itself: that is for all processes to do."""
        self.levers = Levers(checkpoint=lambda: None)
