"""Tell what a script's signal handler has raised from an error of ours, where code of ours runs in its process.

A handler runs between any two instructions of the main thread, so what it raises can come out of any line of ours.
It belongs to the script: a `TimeoutError` of a `signal.alarm` is an `OSError`, and must not be taken for a file
that cannot be read. So code that may run in a script's process catches by these two instead of plain classes:

    except not_the_scripts(OSError):
    with suppressed(OSError):

Nothing is examined unless an exception has been raised.

Source: Python documentation, `signal`, "Execution of Python signal handlers" and "Note on Signal Handlers and
Exceptions".
"""

import contextlib
import functools
import inspect
import signal
import sys
from itertools import pairwise
from types import CodeType, FrameType, FunctionType, MethodType, TracebackType
from typing import Any, TypeVar

Kind = TypeVar("Kind", bound=BaseException)


def not_the_scripts(*kinds: type[Kind]) -> tuple[type[Kind], ...]:
    """What an `except` clause catches: these classes, but nothing that the script's signal handler has raised.

    Args:
        kinds: The classes.
    """
    return () if is_the_scripts(sys.exception()) else kinds


class suppressed(contextlib.suppress):  # noqa: N801 - named as what it extends
    """`contextlib.suppress`, but not of what the script's signal handler has raised."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Suppress the exception if it is of one of the classes, and not the script's."""
        return super().__exit__(kind, error, trace) and not is_the_scripts(error)


def is_the_scripts(error: BaseException | None) -> bool:
    """Whether a signal handler of the script has raised an exception, while code of ours was running.

    Args:
        error: It is being caught by the caller, whose frame is thus the first of its traceback.
    """
    trace = None if error is None else error.__traceback__
    if trace is None or trace.tb_next is None:
        return False  # a handler has a frame of its own
    codes = {code for number in signal.valid_signals() if (code := _code_of(signal.getsignal(number)))}
    while trace.tb_next is not None:
        interrupted, trace = trace.tb_frame, trace.tb_next
        if trace.tb_frame.f_code in codes or _got(trace.tb_frame, interrupted):
            return True
    return False


def _got(frame: FrameType, interrupted: FrameType) -> bool:
    """Whether a function was called as signal handlers are: with a number, and the frame that it interrupts.

    A handler that has put another one in its place is not found otherwise.
    """
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & inspect.CO_VARARGS)
    if not count:
        return False
    variables = frame.f_locals
    values = [variables.get(name) for name in code.co_varnames[:count]]
    flat = [part for value in values for part in (value if type(value) is tuple else (value,))]
    return any(type(number) is int and at is interrupted for number, at in pairwise(flat))


def _code_of(handler: Any) -> CodeType | None:  # noqa: ANN401 - anything that can be called
    """The code of a signal handler; None if it is not written in Python."""
    if type(handler) is functools.partial:
        handler = handler.func
    if type(handler) is MethodType:
        handler = handler.__func__
    if type(handler) is not FunctionType:
        handler = type(handler).__dict__.get("__call__")
    return handler.__code__ if type(handler) is FunctionType else None
