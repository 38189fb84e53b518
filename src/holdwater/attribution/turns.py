"""The time that looking may take before the training goes on: a count of objects is made in turns.

What counts is written as a generator: it goes on while its turn is not over, lets go of every object that it
should not keep alive, and yields. Whoever runs it begins the next turn after the next step.
"""

import contextlib
import gc
import math
import time
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

Result = TypeVar("Result")
Turns = Generator[None, None, Result]
"""Work that is done in turns: each `yield` ends one, and nothing of the program's is held on to then."""


class Turn:
    """When the present turn is over, and what all of them have taken."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Begin one that is never over.

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
            seconds: What it may take.
        """
        self._began = self._clock()
        self._until = self._began + seconds
        self._open = True

    def end(self) -> float:
        """End the present turn; return the seconds that it took."""
        took = self._clock() - self._began
        self._spent += took
        self._open = False
        return took

    @property
    def over(self) -> bool:
        """Whether the training is to go on now."""
        return self._clock() >= self._until

    @property
    def spent(self) -> float:
        """Seconds that all turns so far have taken, the present one included."""
        return self._spent + (self._clock() - self._began if self._open else 0.0)


@contextlib.contextmanager
def collector_at_rest() -> Iterator[None]:
    """No collection begins in here: what looking allocates would set off one of all objects."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def at_once(work: Turns[Result]) -> Result:
    """Do in one turn what could be done in several.

    Args:
        work: Goes on whenever it is asked to.
    """
    with collector_at_rest():
        while True:
            try:
                next(work)
            except StopIteration as ended:
                result: Result = ended.value
                return result
