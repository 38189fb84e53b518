"""Lines on standard error, which may be closed or a pipe without a reader: they never change an exit code."""

import os
import sys

from holdwater.signal_errors import not_the_scripts, suppressed


def write_line(text: str) -> None:
    """Write a line to standard error, if that is possible.

    A line that cannot be written is not left in Python's buffer: Python would exit with 120 because of it.

    Args:
        text: The line or lines, without the last line break.
    """
    stream, original = sys.stderr, sys.__stderr__
    if stream is None:  # it was closed when Python started; `print` would use standard output
        return
    with suppressed(Exception):  # of whatever the script has put in its place
        stream.flush()
        if original is not None and stream is original:
            os.write(original.fileno(), f"{text}\n".encode(errors="backslashreplace"))
        else:
            stream.write(f"{text}\n")


def flush_or_drop() -> None:
    """Flush standard output and error; what cannot be written is dropped."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except not_the_scripts(OSError, ValueError):
            with suppressed(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


def occupy_closed_streams() -> None:
    """Open what is closed of the three standard streams: a file of ours must not take its number.

    What this process starts finds them closed as before.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except not_the_scripts(OSError):
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
