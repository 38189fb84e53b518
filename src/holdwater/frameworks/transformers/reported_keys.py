"""Add numbers to what a Trainer logs, for the reporters of `report_to`, and for nobody else.

Reporters are callbacks that the Trainer puts before the user's, and all are handed the same dictionary. So one
callback of ours goes before them and adds, and another goes behind them and takes away again: what the Trainer
prints and keeps in `log_history` is as without.
"""

from collections.abc import Callable, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from holdwater.frameworks.transformers.required import from_transformers
from holdwater.signal_errors import not_the_scripts
from holdwater.standard_error import write_line

if TYPE_CHECKING:
    TrainerCallback = object
else:
    TrainerCallback = from_transformers("TrainerCallback")

DEPTH = 6
"""Frames between a callback's method and the Trainer's list of callbacks: subclasses may lie between."""
NO_REPORTERS = ("DefaultFlowCallback", "PrinterCallback", "ProgressCallback", "NotebookProgressCallback")


class AddedKeys(TrainerCallback):
    """Adds numbers to a log, or takes them away."""

    def __init__(self, numbers: Callable[[], Mapping[str, float]] | None) -> None:
        """Prepare.

        Args:
            numbers: What to add; None takes away what another one has added.
        """
        self.numbers = numbers

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ANN401
        """Add, or take away."""
        del args, state, control, kwargs
        if not isinstance(logs, dict):
            return
        if self.numbers is None:
            for key in [key for key in logs if key.startswith("memory/")]:
                del logs[key]
            return
        try:
            logs.update(self.numbers())
        except not_the_scripts(Exception) as error:
            write_line(f"holdwater: memory is not reported: {error!r}")
            self.numbers = dict


def report_keys(frame: FrameType | None, numbers: Callable[[], Mapping[str, float]]) -> bool:
    """Report numbers with every log of a Trainer.

    Args:
        frame: Of the function that calls the callbacks.
        numbers: Returns them, by their key.

    Returns:
        Whether there is a reporter, and it is now told.
    """
    handler = _handler(frame)
    if handler is None:
        return False
    callbacks = [one for one in handler.callbacks if not isinstance(one, AddedKeys)]
    names = [type(one).__name__ for one in callbacks]
    places = [at for at, one in enumerate(callbacks) if _is_reporter(names[at], one)]
    if not places:
        return False
    first, last = places[0], places[-1] + 1
    # a new list: the Trainer is going through the old one
    handler.callbacks = [
        *callbacks[:first], AddedKeys(numbers), *callbacks[first:last], AddedKeys(None), *callbacks[last:]
    ]  # fmt: skip
    return True


def _handler(frame: FrameType | None) -> Any:  # noqa: ANN401 - of Transformers
    """The Trainer's list of callbacks; None if the Trainer is none of Transformers'."""
    for _ in range(DEPTH):
        if frame is None:
            return None
        found = frame.f_locals.get("self")
        if type(found).__name__ == "CallbackHandler" and isinstance(getattr(found, "callbacks", None), list):
            return found
        frame = frame.f_back
    return None


def _is_reporter(name: str, callback: object) -> bool:
    """Whether a callback sends what is logged somewhere else."""
    own_log = getattr(type(callback), "on_log", None) is not getattr(TrainerCallback, "on_log", None)
    ours = type(callback).__module__.startswith("holdwater.")
    return own_log and not ours and name not in NO_REPORTERS
