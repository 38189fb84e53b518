"""The functions that a training loop passes to the guard for its remedies."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Levers:
    """The loop's side of the remedies; a lever that is None makes its remedy unavailable."""

    checkpoint: Callable[[], None] | None = None
    """Write a complete checkpoint of the step that has just ended. Without it a run is not stopped."""
    recycle: Callable[[], None] | None = None
    """Agree to end after this step with a checkpoint from which a fresh process continues at once."""
