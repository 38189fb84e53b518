"""The standard error of training processes, read on its way: what Metal says before it aborts a process.

Metal reports that memory ran out in a callback, where MLX cannot raise an error that Python would see: the process
is aborted (SIGABRT), and only its standard error says why. Where that is a terminal, the processes get a terminal
too, so that progress bars look the same.
"""

import os
import select
import subprocess
import sys
import termios
import time
import tty
from pathlib import Path

from holdwater.process.signals import can_wait_for_children

READER = Path(__file__).with_name("error_reader.py")
"""Run by its path, with the standard library alone."""


class ErrorStream:
    """What processes write to their standard error, copied to that of this process."""

    def __init__(self) -> None:
        """Start to copy.

        Raises:
            OSError: There are no more files or processes.
        """
        reading, self.writing = _terminal() if os.isatty(2) else os.pipe()
        self._reports, reports = os.pipe()
        command = [sys.executable, "-I", "-S", str(READER), str(reports)]
        try:
            self._reader = subprocess.Popen(command, stdin=reading, pass_fds=[reports], start_new_session=True)  # noqa: S603
        finally:
            os.close(reading)
            os.close(reports)
        can_wait_for_children()

    def said_out_of_memory(self, seconds: float = 1.0) -> str:
        """What was said of memory that ran out since the last call; empty if nothing was.

        Args:
            seconds: How long to wait for what is still under way.
        """
        deadline, found = time.monotonic() + seconds, b""
        while not found and (left := deadline - time.monotonic()) > 0:
            if select.select([self._reports], [], [], left)[0]:
                found = os.read(self._reports, 1 << 16)
                if not found:  # the reader has ended
                    break
        return found.partition(b"\n")[0].decode()

    def forget(self) -> None:
        """Drop what an earlier process has said."""
        while select.select([self._reports], [], [], 0)[0] and os.read(self._reports, 1 << 16):
            pass

    def close(self, seconds: float = 2.0) -> None:
        """Wait until everything is copied; a process that outlives the run may go on to write.

        Args:
            seconds: How long.
        """
        os.close(self.writing)
        try:
            self._reader.wait(seconds)
        except subprocess.TimeoutExpired:
            self._reader.returncode = 0  # it ends by itself: nobody waits for it
        os.close(self._reports)


def _terminal() -> tuple[int, int]:
    """A terminal of the same size, which passes on each byte as it is: the reading and the writing end."""
    reading, writing = os.openpty()
    tty.setraw(writing)
    termios.tcsetwinsize(writing, termios.tcgetwinsize(2))
    return reading, writing
