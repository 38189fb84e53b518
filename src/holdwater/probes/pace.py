"""Decide when a reading is due again, by the time that has passed and by its cost.

A reading comes as often as its cost allows: all readings of a kind stay within their part of `allowance`. The
cheapest also follows the previous one after at most `SPACING` of the time passed, so that a run of any pace and
length is read evenly relative to its length: its last eighth is known as well as its last half.
"""

import math

SPACING = 1 / 800
"""The part of the time passed that may separate two readings. A reading is taken at the end of a step, so two of
them are at most this and one step apart: never further than the larger of one step and 1/400 of the time."""
FURTHEST, FURTHEST_WITHIN = 0.5, 600.0
"""Most seconds between two readings, within the first ten minutes."""
FIRST, FIRST_SHARE = 1.0, 0.06
"""All readings together may take 60 ms of the first second: a run of a second must be judged too."""
YOUNG, YOUNG_SHARE = 5.0, 0.02
"""They may take 2 % of the four seconds that follow."""
MINUTE, MINUTE_SHARE, SLOWING = 60.0, 0.01, 0.45
"""They may take 1 % of the first minute, and later so that ten minutes cost 0.28 % and an hour 0.1 %: the
allowance grows by the power 0.45 of the time."""
_YOUNG_SECONDS = FIRST_SHARE * FIRST + YOUNG_SHARE * (YOUNG - FIRST)
_LATER_SHARE = (MINUTE_SHARE * MINUTE - _YOUNG_SECONDS) / (MINUTE - YOUNG)


def allowance(seconds: float) -> float:
    """Seconds that all readings together may take of a run of this length."""
    if seconds <= FIRST:
        return FIRST_SHARE * seconds
    if seconds <= YOUNG:
        return FIRST_SHARE * FIRST + YOUNG_SHARE * (seconds - FIRST)
    if seconds <= MINUTE:
        return _YOUNG_SECONDS + _LATER_SHARE * (seconds - YOUNG)
    return MINUTE_SHARE * MINUTE * math.pow(seconds / MINUTE, SLOWING)


def share_now(seconds: float) -> float:
    """The share of the time that readings may take now, after these seconds."""
    if seconds <= FIRST:
        return FIRST_SHARE
    if seconds <= YOUNG:
        return YOUNG_SHARE
    if seconds <= MINUTE:
        return _LATER_SHARE
    return MINUTE_SHARE * SLOWING * math.pow(seconds / MINUTE, SLOWING - 1)


class Pace:
    """The pace of one reading."""

    def __init__(self, part: float, *, cheapest: bool = False) -> None:
        """Begin with the reading due at once.

        Args:
            part: The part of the allowance that this reading may take.
            cheapest: Never wait longer than `SPACING` of the time passed, whatever the cost.
        """
        self.due = 0.0
        """When it is due, in seconds since the first reading of all."""
        self._part, self._cheapest = part, cheapest
        self._cost = 0.0

    def note(self, now: float, cost: float) -> None:
        """Record a reading, and schedule the next.

        Args:
            now: Seconds since the first reading of all.
            cost: Seconds that it took.
        """
        seldom = min(cost, 4 * self._cost) if self._cost else cost  # a pause within it is not its cost
        self._cost += 0.2 * (seldom - self._cost) if self._cost else cost
        pause = self._cost / (share_now(now) * self._part)
        pause = self._cost / (share_now(now + pause) * self._part)  # the share falls meanwhile
        apart = now * SPACING
        if now < FURTHEST_WITHIN:
            apart = min(apart, FURTHEST)
        self.due = now + (min(pause, apart) if self._cheapest else pause)
