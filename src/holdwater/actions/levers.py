"""What a training loop hands to the guard so that remedies can act on it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Levers:
    """The loop's side of the remedies; a lever that is None makes its remedy unavailable."""

    checkpoint: Callable[[], None] | None = None
    """Write a whole checkpoint of the step that has just ended. Without it a run is not stopped."""
    recycle: Callable[[], None] | None = None
    """Agree to end after this step with a checkpoint that a fresh process goes on from at once."""
