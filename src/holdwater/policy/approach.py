"""Estimate how near a growing run is to its budget: how many rises like its last ones are left.

A cache that filled at once, or a first optimizer step, is one rise: nothing says that there will be another. What
has risen several times, and not by less and less, is expected to rise again.
"""

from collections import deque
from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

from holdwater.budget import InUse, Pool
from holdwater.detectors.pools import Use

GRAIN = 1 << 20
"""Bytes; a smaller increase is not counted as a rise, but several add up to one."""
FEW_BUFFERS = 256
"""The same for the number of buffers."""
RISES = 5
"""Rises that make a growth; no more are remembered."""
EVEN = 8
"""Where the largest rise is more than so many times the smallest, no rate can be estimated."""
SLACKENING = 0.5
"""A last rise below this share of the median rise means that the growth is ending."""
LONG = 8
"""After a pause of more than so many times the usual one, earlier rises no longer count."""
SMALL = 0.05
"""The bytes of `Near` count for no more than this share of a small budget."""


class Near(NamedTuple):
    """How near to its budget growing memory must be for a remedy."""

    rises: float
    """So many rises like the last ones are left."""
    share: float
    """Or this share of the budget."""
    size: int
    """Or so many bytes: ending a process takes some."""


class Approach:
    """Remembers by how much one pool of memory has risen lately."""

    def __init__(self, grain: int = GRAIN) -> None:
        """Begin without a reading.

        Args:
            grain: A smaller increase is not counted as a rise.
        """
        self._grain = grain
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
        self._rising = rise >= self._grain
        if self._rising:
            self._note_pause(step)
            self._rises.append(rise)
            self._highest = in_use

    def forget(self, freed: int) -> None:
        """Memory was released by an action: when it rises back, that counts. Where it fell by itself, it does not.

        Args:
            freed: Bytes.
        """
        if self._highest is not None:
            self._highest -= freed

    def _note_pause(self, step: int) -> None:
        """Take in when memory rises; rises before an unusually long pause are forgotten."""
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

    def steps_left(self, in_use: int, limit: int) -> float:
        """Steps until the budget is spent, if rises go on as they were; infinite where nothing grows for long.

        Args:
            in_use: Bytes that are held against the pool's budget now.
            limit: The pool's budget, in bytes.
        """
        rises = self.rises_left(in_use, limit)
        return rises * median(self._pauses) if rises < float("inf") else rises

    def is_near(self, in_use: int, limit: int, *, rises: float, left: float) -> bool:
        """Whether memory has grown just now, and has come so near to its budget.

        Args:
            in_use: Bytes that are held against the pool's budget now.
            limit: The pool's budget, in bytes.
            rises: So many rises, at most, are left.
            left: Or so many bytes: with small rises the time between two looks may be too long.
        """
        if not self._rising or len(self._rises) < RISES:
            return False
        return limit - in_use < left or self.rises_left(in_use, limit) < rises


class Approaches:
    """How near each pool is to its budget."""

    def __init__(self) -> None:
        self._of: dict[Pool, Approach] = {
            "host": Approach(),
            "device": Approach(),
            "unified": Approach(),
            "buffers": Approach(FEW_BUFFERS),
        }

    def note(self, step: int, held: Iterable[Use]) -> None:
        """Take in what a sample holds.

        Args:
            step: The last step that has ended.
            held: Of each pool that has a budget.
        """
        for use in held:
            self._of[use.pool].note(step, use.used)

    def forget(self, freed: InUse) -> None:
        """Memory was released: when it rises back to where it was, that counts as rising.

        Args:
            freed: Bytes, by pool.
        """
        freed_of: dict[Pool, int] = {"host": freed.host, "device": freed.device, "unified": sum(freed)}
        for pool, size in freed_of.items():
            self._of[pool].forget(max(size, 0))

    def is_near(self, near: Near, use: Use) -> bool:
        """Whether a pool that grows has come so near to its budget.

        Args:
            near: How near.
            use: What is held of the pool now.
        """
        left = max(near.share, min(near.size / use.limit, SMALL)) * use.limit
        return self._of[use.pool].is_near(use.used, use.limit, rises=near.rises, left=left)

    def steps_left(self, held: Iterable[Use]) -> float:
        """Steps until the first pool's budget is spent; infinite where none grows for long.

        Args:
            held: Of each pool that has a budget.
        """
        return min((self._of[use.pool].steps_left(use.used, use.limit) for use in held), default=float("inf"))

    def spent_soon(self, use: Use) -> str:
        """When a pool's budget will be spent, for people.

        Args:
            use: What is held of the pool now.
        """
        left = self._of[use.pool].rises_left(use.used, use.limit)
        what = "limit" if use.pool == "buffers" else "budget"
        return f"the {what} is spent {'soon' if left == float('inf') else f'after {left:.0f} more such rises'}"
