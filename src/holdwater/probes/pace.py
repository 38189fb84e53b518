"""When a reading is due again: by the time that has passed, and by what it costs.

A reading comes as often as its price allows: all readings of a kind stay within their part of `allowance`. The
cheapest moreover never lies further than `SPACING` of the time passed after the one before, so that any run, of
whatever pace and length, is read evenly on the scale of its own length: what happened in its last eighth is known
as well as what happened in its last half.
"""

import math

SPACING = 1 / 800
"""The part of the time passed that may lie between two readings. A reading is taken at the end of a step, so two
of them lie at most this and one step apart: never further than the larger of one step and 1/400 of the time."""
FURTHEST, FURTHEST_WITHIN = 0.5, 600.0
"""Seconds between two readings at most, within the first ten minutes."""
FIRST, FIRST_SHARE = 1.0, 0.06
"""All readings together may take 60 ms of the first second: a run of a second is to be judged too."""
YOUNG, YOUNG_SHARE = 5.0, 0.02
"""They may take 2 % of the four seconds that follow."""
MINUTE, MINUTE_SHARE, SLOWING = 60.0, 0.01, 0.45
"""They may take 1 % of the first minute, and later so much that ten minutes cost 0.28 % and an hour 0.1 %: the
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
    """The part of the next moment that readings may take, when so many seconds have passed."""
    if seconds <= FIRST:
        return FIRST_SHARE
    if seconds <= YOUNG:
        return YOUNG_SHARE
    if seconds <= MINUTE:
        return _LATER_SHARE
    return MINUTE_SHARE * SLOWING * math.pow(seconds / MINUTE, SLOWING - 1)


class Pace:
    """The rhythm of one reading."""

    def __init__(self, part: float, *, cheapest: bool = False) -> None:
        """Begin with the reading due at once.

        Args:
            part: Of the allowance, that this reading may take.
            cheapest: It waits for its price no longer than for its part of the time passed.
        """
        self.due = 0.0
        """Seconds since the first reading of all."""
        self._part, self._cheapest = part, cheapest
        self._price = 0.0

    def note(self, now: float, price: float) -> None:
        """Note a reading, and settle when the next is due.

        Args:
            now: Seconds since the first reading of all.
            price: Seconds that it took.
        """
        seldom = min(price, 4 * self._price) if self._price else price  # a pause within it is not its price
        self._price += 0.2 * (seldom - self._price) if self._price else price
        pause = self._price / (share_now(now) * self._part)
        pause = self._price / (share_now(now + pause) * self._part)  # the share falls meanwhile
        apart = now * SPACING
        if now < FURTHEST_WITHIN:
            apart = min(apart, FURTHEST)
        self.due = now + (min(pause, apart) if self._cheapest else pause)
