"""Decide which releases of a regular clean-up are worth their time: those that were measured to pay.

Each is tried once, since nothing is known before. It pays if at least 1 MiB of what it freed is still free after
the next step, which may need it again at once. One that does not pay rests until memory has grown by 5 %; one that
does is spaced so that it takes at most 1 % of the time.
"""

from dataclasses import dataclass

from holdwater.budget import NOTHING_IN_USE, InUse
from holdwater.policy.decision import ActionName

LEAST_YIELD = 1 << 20
"""Bytes that must stay free."""
REGROWTH = 1.05
"""How much memory must have grown, as a factor, before what did not pay is tried again."""
SHARE = 0.01
"""The part of the time that an action may take."""


@dataclass(slots=True)
class _Tried:
    """What is known of one action."""

    paid: bool = True
    """Whether it paid when it was last carried out."""
    at: InUse = NOTHING_IN_USE
    """Memory in use after it."""
    not_before: float = 0.0
    """When it may be carried out again, in seconds."""


class CleanUps:
    """Remembers what each release has freed and cost."""

    def __init__(self) -> None:
        self._known: dict[ActionName, _Tried] = {}
        self._fresh: list[ActionName] = []
        """Carried out in the clean-up whose worth the next step shows."""
        self._before = NOTHING_IN_USE

    def is_worth(self, action: ActionName, in_use: InUse, seconds: float) -> bool:
        """Whether an action is to be carried out.

        Args:
            action: A release.
            in_use: Memory in use now.
            seconds: Now.
        """
        known = self._known.get(action)
        if known is None:
            return True
        if seconds < known.not_before:
            return False
        return known.paid or any(
            now and now >= REGROWTH * before for now, before in zip(in_use, known.at, strict=True)
        )

    def learn(self, action: ActionName, *, freed: int, took: float, in_use: InUse, seconds: float) -> None:
        """Take note of what an action has freed and cost.

        Args:
            action: The release.
            freed: Bytes.
            took: Seconds.
            in_use: Memory in use after it.
            seconds: Now.
        """
        if not self._fresh:
            self._before = InUse(in_use.host + freed, in_use.device)
        self._known[action] = _Tried(freed >= LEAST_YIELD, in_use, seconds + took / SHARE)
        self._fresh.append(action)

    def note_next(self, in_use: InUse) -> tuple[ActionName, ...]:
        """Take note of the memory in use a step after a clean-up.

        Args:
            in_use: Memory in use now.

        Returns:
            The actions that did not pay, since they freed too little or their memory was needed again at once;
            empty if all paid, and where no clean-up came before.
        """
        fresh, self._fresh = self._fresh, []
        if fresh and sum(self._before) - sum(in_use) < LEAST_YIELD:
            for action in fresh:
                self._known[action].paid = False
        return tuple(action for action in fresh if not self._known[action].paid)
