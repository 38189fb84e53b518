"""A decision to act on memory."""

from dataclasses import dataclass
from typing import Literal

from holdwater.units import Step

ActionName = Literal[
    "synchronise", "collect", "clear_caches", "trim", "replace_worker", "micro_batch", "recycle", "stop"
]
RELEASE: tuple[ActionName, ...] = ("synchronise", "collect", "clear_caches", "trim")
"""Waiting for the device and giving back what nobody uses, from the gentlest on."""

GENTLE: tuple[ActionName, ...] = ("synchronise", "collect")
"""What a run that fits its budget may be asked for."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One action that was decided on, and why."""

    step: Step
    action: ActionName
    reason: str
    configured: bool = False
    """The user has asked for it at this step, whether memory is short or not."""
