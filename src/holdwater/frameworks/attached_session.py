"""Observe the training of this process without `holdwater run`: a session here, and a watcher beside it.

What `holdwater run` finds is found, with line and holder: the same readings, questions and judgements. What only a
parent can do is missing: a script that dies before its training is not seen, and no exit status is known.
"""

import atexit
import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdwater.frameworks.loader_clock import loaders_watched
from holdwater.observe.agent import session as sessions
from holdwater.observe.agent.session import Session
from holdwater.observe.attached_run import MARKS, READY, SUMMARY, VERDICT, WatchRequest
from holdwater.probes.processes import OBSERVERS
from holdwater.process.channel_folder import channel_folder
from holdwater.signal_errors import not_the_scripts, suppressed
from holdwater.standard_error import write_line

PATIENCE = 60.0
"""Seconds that the end of a training waits at most for its judgement: a recording may have to be read."""


class AttachedSession:
    """One training of this process, and what watches it."""

    def __init__(self, request: WatchRequest) -> None:
        """Begin to observe.

        Args:
            request: What the watcher is told; folder, process and words are found here.

        Raises:
            StoreError: There is no room for the channel.
            OSError: No process can be started.
        """
        self._pid, self._began = os.getpid(), time.monotonic()
        self._newest: dict[str, Any] | None = None
        self._newest_at = 0
        self._keeps_marks = request.out is not None
        with contextlib.ExitStack() as closing:
            channel = closing.enter_context(channel_folder(Path(request.out or "")))
            self._folder = channel.path.parent
            self._watcher = _start(
                replace(request, folder=str(self._folder), pid=self._pid, words=tuple(sys.argv))
            )
            self.session = sessions.begin(self._folder)
            closing.callback(self._forget)
            self.session.steps = request.first_step
            closing.enter_context(loaders_watched(self.session))
            self._closing = closing.pop_all()
        atexit.register(self.end)

    def mark(self, kind: str) -> None:
        """Mark an event that has ended, such as a checkpoint; evaluations are counted by `eval()`, not here.

        Args:
            kind: `evaluation`, `checkpoint`, or another word.
        """
        session = self.session
        session.checkpoints += kind == "checkpoint"
        if self._keeps_marks:
            row = json.dumps([session.steps, time.monotonic() - self._began, kind])
            with suppressed(OSError), (self._folder / MARKS).open("a", encoding="utf-8") as file:
                file.write(row + "\n")

    def newest(self) -> dict[str, Any] | None:
        """The newest judgement as JSON (schema 1); None before the first finding."""
        with suppressed(OSError, ValueError):
            file = self._folder / VERDICT
            changed = file.stat().st_mtime_ns
            if changed != self._newest_at:
                self._newest = json.loads(file.read_text(encoding="utf-8"))
                self._newest_at = changed
        return self._newest

    def end(self) -> dict[str, Any] | None:
        """End observing; return the judgement as JSON (schema 1), None if there is none."""
        if os.getpid() != self._pid or self.session.forked:
            return self._newest
        atexit.unregister(self.end)
        self._newest = None
        try:
            with self._closing:
                self._newest = self._judgement()
        except not_the_scripts(Exception) as error:  # the observer never kills what it observes
            write_line(f"holdwater: the end of the training could not be observed: {error!r}")
        return self._newest

    def _judgement(self) -> dict[str, Any] | None:
        """Answer the watcher's last question, and wait for what it says."""
        deadline = time.monotonic() + PATIENCE
        if self._has_left(READY, deadline):
            self.session.finish()
        self.session.channel.state = "ended"  # also for a watcher that has not begun yet
        if not self._has_left(SUMMARY, deadline):
            return None
        summary: dict[str, Any] = json.loads((self._folder / SUMMARY).read_text(encoding="utf-8"))
        return summary

    def _has_left(self, name: str, deadline: float) -> bool:
        """Whether the watcher has left a file; wait for it as long as the watcher runs."""
        file = self._folder / name
        while not file.exists():
            if time.monotonic() > deadline or not _exists(self._watcher):
                return file.exists()
            time.sleep(0.005)
        return True

    def _forget(self) -> None:
        """What still holds the session counts nothing."""
        self.session.forked = True
        OBSERVERS.discard(self._watcher)


def observing_session() -> Session | None:
    """The session that observes this process, of `holdwater run` or of a guard; None if there is none."""
    session = sessions.current()
    return None if session is None or session.forked else session


def _start(request: WatchRequest) -> int:
    """Start the watcher, and return its process: the one that is started leaves it, and ends.

    Raises:
        OSError: No process can be started.
    """
    command = [sys.executable, "-P", "-m", "holdwater.observe.attached_run", request.as_text()]
    done = subprocess.run(  # noqa: S603 - this interpreter, and a module of ours
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True, check=False
    )
    if not done.stdout:
        raise OSError("the process that would watch it has not started")
    watcher = int(done.stdout)
    OBSERVERS.add(watcher)
    return watcher


def _exists(pid: int) -> bool:
    """Whether there is a process."""
    with suppressed(OSError):
        os.kill(pid, 0)
        return True
    return False
