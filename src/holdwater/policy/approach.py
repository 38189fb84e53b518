"""Tell how near a growing run is to its budget: in rises like its last ones, whatever clock they follow.

A cache that filled at once, or a first optimizer step, is one rise: nothing says that there will be another. What
has risen several times, and not by less and less, is taken to rise again.
"""

from collections import deque
from statistics import median

GRAIN = 1 << 20
"""Bytes; less is no rise, but adds up to one."""
RISES = 5
"""Rises that make a growth; so many are remembered."""
EVEN = 8
"""Rises of which one is so many times another have no pace."""
SLACKENING = 0.5
"""A rise so much smaller than the usual one tells of a growth that ends."""
LONG = 8
"""A rise after so many times the usual pause has nothing to do with those before."""


class Approach:
    """Remembers by how much one pool of memory has risen lately."""

    def __init__(self) -> None:
        self._highest: int | None = None
        self._rises: deque[int] = deque(maxlen=RISES)
        self._pauses: deque[int] = deque(maxlen=RISES)
        self._rose_at: int | None = None
        self._rising = False

    def note(self, step: int, in_use: int) -> None:
        """Take in a reading.

        Args:
            step: The last step that has ended.
            in_use: Bytes that are held against the pool's budget.
        """
        self._highest = in_use if self._highest is None else self._highest
        rise = in_use - self._highest
        self._rising = rise >= GRAIN
        if self._rising:
            self._note_pause(step)
            self._rises.append(rise)
            self._highest = in_use

    def forget(self, freed: int) -> None:
        """Memory was released: its way back up counts as rising. A swing of its own does not.

        Args:
            freed: Bytes.
        """
        if self._highest is not None:
            self._highest -= freed

    def _note_pause(self, step: int) -> None:
        """Take in when memory rises; what rose long ago, and in a rhythm of its own, is forgotten."""
        pause = 0 if self._rose_at is None else step - self._rose_at
        self._rose_at = step
        if self._pauses and pause > LONG * (1 + median(self._pauses)):
            self._rises.clear()
            self._pauses.clear()
        self._pauses.append(pause)

    def rises_left(self, in_use: int, limit: int) -> float:
        """Rises until the budget is spent, if they go on as they were; infinite where nothing grows for long.

        Args:
            in_use: Bytes that are held against the pool's budget now.
            limit: The pool's budget, in bytes.
        """
        if len(self._rises) < RISES:
            return float("inf")
        usual = median(self._rises)
        if self._rises[-1] < SLACKENING * usual or max(self._rises) > EVEN * min(self._rises):
            return float("inf")
        return max(limit - in_use, 0) / usual

    def is_near(self, in_use: int, limit: int, *, rises: float, left: float) -> bool:
        """Whether memory has grown just now, and has come so near to its budget.

        Args:
            in_use: Bytes that are held against the pool's budget now.
            limit: The pool's budget, in bytes.
            rises: So many rises, at most, are left.
            left: Or so many bytes: small rises leave little time between a look and the next.
        """
        if not self._rising or len(self._rises) < RISES:
            return False
        return limit - in_use < left or self.rises_left(in_use, limit) < rises
