"""A decision to act on memory."""

from dataclasses import dataclass
from typing import Literal

from holdwater.units import Step

ActionName = Literal[
    "synchronise", "collect", "clear_caches", "trim", "replace_worker", "micro_batch", "recycle", "stop"
]
RELEASE: tuple[ActionName, ...] = ("synchronise", "collect", "clear_caches", "trim")
"""Waiting for the device, and releasing unused memory; the mildest first."""

GENTLE: tuple[ActionName, ...] = ("synchronise", "collect")
"""The releases that cost a run so little that they are worth it far from the budget."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One action that was decided on, and why."""

    step: Step
    action: ActionName
    reason: str
    configured: bool = False
    """The configuration asks for it at this step, whether memory is short or not."""
