"""Divide a count of objects into turns, so that each step of the training is delayed only briefly.

The count is a generator: it runs until its turn is over, releases every object that it should not keep alive, and
yields. Its caller begins the next turn after the next step.
"""

import contextlib
import gc
import math
import time
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

Result = TypeVar("Result")
Turns = Generator[None, None, Result]
"""Work in turns: each `yield` ends one, and no object of the program is referenced then."""


class Turn:
    """The deadline of the current turn, and the time of all turns."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Begin a turn without a deadline.

        Args:
            clock: Seconds, on a clock that never goes backwards.
        """
        self._clock = clock
        self._began = clock()
        self._until = math.inf
        self._spent = 0.0
        self._open = True

    def begin(self, seconds: float) -> None:
        """Begin the next turn.

        Args:
            seconds: The time that it may take.
        """
        self._began = self._clock()
        self._until = self._began + seconds
        self._open = True

    def end(self) -> float:
        """End the current turn; return the seconds that it took."""
        took = self._clock() - self._began
        self._spent += took
        self._open = False
        return took

    @property
    def over(self) -> bool:
        """Whether the turn is over."""
        return self._clock() >= self._until

    @property
    def spent(self) -> float:
        """Seconds that all turns so far have taken, including the current one."""
        return self._spent + (self._clock() - self._began if self._open else 0.0)


@contextlib.contextmanager
def collector_at_rest() -> Iterator[None]:
    """A context without automatic collections: the count's own allocations would trigger one of all objects."""
    enabled = gc.isenabled()
    try:
        gc.disable()
        yield
    finally:
        if enabled:
            gc.enable()


def at_once(work: Turns[Result]) -> Result:
    """Run work to its end in one turn.

    Args:
        work: A generator.
    """
    with collector_at_rest():
        while True:
            try:
                next(work)
            except StopIteration as ended:
                result: Result = ended.value
                return result
