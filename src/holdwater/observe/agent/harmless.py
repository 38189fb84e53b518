"""Keep what fails in a hook of ours from the script in which it is installed.

What the script raises while a hook runs is the script's own: an interrupt, and what a signal handler raises.
"""

import contextlib
import functools
import signal
from collections.abc import Callable
from types import CodeType, FunctionType, MethodType
from typing import Any, ParamSpec, TypeVar

from holdwater.observe.agent.endings import say

Words = ParamSpec("Words")
Result = TypeVar("Result")


def harmless(
    hook: Callable[Words, Result], failed: Callable[[Exception], None] | None = None
) -> Callable[Words, Result | None]:
    """A hook whose failure is reported once, and does not reach the script; it returns None then.

    Args:
        hook: Calls none of the script's code.
        failed: Called with the error, instead of the report.
    """
    said: list[str] = []

    @functools.wraps(hook)
    def call(*words: Words.args, **named: Words.kwargs) -> Result | None:
        """Call the hook."""
        try:
            return hook(*words, **named)
        except Exception as error:
            if is_the_scripts(error):
                raise
            with contextlib.suppress(Exception):  # an error whose text cannot be made
                if failed is not None:
                    failed(error)
                elif not said:
                    said.append(hook.__name__)
                    say(f"part of this run is not observed ({hook.__name__}): {error!r}")
            return None

    return call


def is_the_scripts(error: BaseException) -> bool:
    """Whether a signal handler of the script has raised an exception, while code of ours was running.

    Args:
        error: It was caught in our code.
    """
    codes = {code for number in signal.valid_signals() if (code := _code_of(signal.getsignal(number)))}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False


def _code_of(handler: Any) -> CodeType | None:  # noqa: ANN401 - anything that can be called
    """The code of a signal handler; None if it is not written in Python."""
    if type(handler) is functools.partial:
        handler = handler.func
    if type(handler) is MethodType:
        handler = handler.__func__
    if type(handler) is not FunctionType:
        handler = type(handler).__dict__.get("__call__")
    return handler.__code__ if type(handler) is FunctionType else None
