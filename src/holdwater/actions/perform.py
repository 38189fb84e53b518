"""Carry out one decision and measure what it freed and what it cost."""

import ctypes
import gc
from collections.abc import Callable
from dataclasses import dataclass

from holdwater.actions.frameworks import clear_caches, synchronise, uses_accelerator
from holdwater.actions.levers import Levers
from holdwater.errors import ActionError
from holdwater.policy.decision import ActionName, Decision
from holdwater.signal_errors import not_the_scripts
from holdwater.units import Step


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an action did."""

    step: Step
    action: ActionName
    reason: str
    freed_bytes: int
    """Resident and reserved memory before, minus that after; negative if it grew meanwhile."""
    seconds: float
    error: str | None = None
    """Why the action could not be carried out; None if it was."""


FEW_OBJECTS = 1000
"""If fewer objects are new since the last full collection, another one is not worth its cost."""


def applies(action: ActionName) -> bool:
    """Whether an action has something to act on: an accelerator in use, or objects that may be garbage.

    Args:
        action: Its name.
    """
    if action in {"synchronise", "clear_caches"}:
        return uses_accelerator()
    if action == "replace_worker":
        return False  # the loaders' manager does it
    if action == "collect":
        young, middle, old = gc.get_count()  # since the last collection of each generation
        return young >= FEW_OBJECTS or middle > 0 or old > 0
    return True


def collect() -> None:
    """Let Python free objects that only cycles keep alive."""
    gc.collect()


def trim() -> None:
    """Let malloc give free pages back to the kernel.

    Raises:
        ActionError: The C library cannot do that.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except not_the_scripts(OSError, AttributeError) as error:
        raise ActionError("the C library has no malloc_trim (glibc has)") from error


def _stop(levers: Levers) -> Callable[[], None]:
    """Write a checkpoint; the guard ends the loop after it."""
    if levers.checkpoint is None:
        raise ActionError(
            "the loop gave no way to write a checkpoint, and a run is not stopped without one; "
            "give Guard(levers=Levers(checkpoint=...))"
        )
    return levers.checkpoint


def _recycle(levers: Levers) -> Callable[[], None]:
    """Let the loop end after this step; the next process measures what that freed and cost."""
    if levers.recycle is None:
        raise ActionError("no supervisor would start another process; run it under one")
    return levers.recycle


def perform(
    decision: Decision,
    levers: Levers,
    *,
    measure: Callable[[], int],
    elapsed: Callable[[], float],
) -> Outcome:
    """Carry out a decision.

    Args:
        decision: What to do.
        levers: The loop's side of it.
        measure: Returns the bytes in use.
        elapsed: Seconds on a clock that never goes backwards.

    Returns:
        The outcome; an action that failed says so in `error` and raises nothing.
    """
    before, began = measure(), elapsed()
    error = None
    try:
        _find(decision.action, levers)()
    except not_the_scripts(Exception) as failure:  # a remedy must not kill the run
        error = str(failure) or type(failure).__name__
    seconds = elapsed() - began
    return Outcome(decision.step, decision.action, decision.reason, before - measure(), seconds, error)


def rehearsed(decision: Decision) -> Outcome:
    """The outcome of a decision in a dry run: nothing was done.

    Args:
        decision: What would have been done.
    """
    return Outcome(decision.step, decision.action, f"dry run: {decision.reason}", 0, 0.0)


def _find(action: ActionName, levers: Levers) -> Callable[[], None]:
    """The function of an action's name."""
    match action:
        case "synchronise":
            return synchronise
        case "collect":
            return collect
        case "clear_caches":
            return clear_caches
        case "trim":
            return trim
        case "recycle":
            return _recycle(levers)
        case "stop":
            return _stop(levers)
        case "micro_batch" | "replace_worker":
            raise ActionError("the training step, or the manager of loader workers, does that itself")
