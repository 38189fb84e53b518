"""Exceptions that end a script between two steps (no `except Exception` catches them), and their message."""

from holdwater.standard_error import write_line


class StopRun(BaseException):
    """Ends a script after `--steps N`; no `except Exception` catches it."""


class StopShort(BaseException):
    """Ends a script that has spent its memory budget, between two steps; no `except Exception` catches it."""


def say(message: str) -> None:
    """Write a message to standard error."""
    write_line(f"holdwater: {message}")
