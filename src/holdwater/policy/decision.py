"""A decision to act on memory."""

from dataclasses import dataclass
from typing import Literal

from holdwater.units import Step

ActionName = Literal["synchronise", "collect", "clear_caches", "trim", "micro_batch", "recycle", "stop"]
RELEASE: tuple[ActionName, ...] = ("synchronise", "collect", "clear_caches", "trim")
"""Waiting for the device and giving back what nobody uses, from the gentlest on."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One action that was decided on, and why."""

    step: Step
    action: ActionName
    reason: str
