"""Observe a notebook's kernel for one cell or a whole session: a session inside, a watching process beside it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from holdwater.attribution.cells import cells, text_of
from holdwater.errors import ConfigError
from holdwater.frameworks.observed_script import attach
from holdwater.observe.agent import session as sessions
from holdwater.observe.agent.imports import after_import
from holdwater.observe.agent.session import Session
from holdwater.process.channel_folder import channel_folder
from holdwater.signal_errors import not_the_scripts, suppressed

if TYPE_CHECKING:
    from holdwater.process.channel import Channel

CELLS, LIVE, VERDICT = "cells.json", "live.json", "verdict.json"
NOT_KEPT = "multiprocessing.shared_memory"
"""Its hook notes shared memory in the folder of one session, and there are several."""
PATIENCE = 60.0
"""Seconds that the watching process may take for its last judgement."""


class SwitchedSession:
    """The session of the cell that is watched now: frameworks are hooked once, for all cells."""

    def __init__(self) -> None:
        self.__dict__["now"] = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of a session
        return getattr(self.__dict__["now"], name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.__dict__["now"], name, value)

    def switch(self, session: Session) -> bool:
        """Use a session from now on; return whether it is the first.

        Args:
            session: Of the cell that begins.
        """
        first = self.__dict__["now"] is None
        self.__dict__["now"] = session
        return first


_switched = SwitchedSession()
_watched: list["ObservedKernel"] = []
"""The one that is watched now, if any."""


class ObservedKernel:
    """The kernel while it is watched."""

    def __init__(self, out: Path) -> None:
        """Begin to watch.

        Args:
            out: The folder of the run.

        Raises:
            ConfigError: The kernel is watched already, or was started by `holdwater run`.
        """
        if _watched:
            raise ConfigError(
                "the notebook is watched already, and its steps count for one verdict; "
                "write `watch.stop()` first, or run the cell without %%holdwater"
            )
        running = sessions.current()
        if running is not None and not running.forked:
            raise ConfigError("this process is observed already, by holdwater run; leave %%holdwater out")
        self.out = out
        self._place = channel_folder(out)
        self._channel: Channel = self._place.__enter__()
        self.write_cells()
        folder = self._channel.path.parent
        self._began = time.perf_counter()
        self.session = sessions.begin(folder)
        if _switched.switch(self.session):
            hooks = attach(cast("Session", _switched), None)
            after_import({name: hook for name, hook in hooks.items() if name != NOT_KEPT})
        command = [sys.executable, "-m", "holdwater.notebook.watcher", str(folder), str(os.getpid()), str(out)]
        self._watcher = subprocess.Popen(  # noqa: S603 - this interpreter, and a module of our own
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        _watched.append(self)

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self._began

    def write_cells(self) -> None:
        """Write the code of the cells for the watching process."""
        found = {file: text for file in cells() if (text := text_of(file)) is not None}
        part = self.out / f"{CELLS}.part"
        part.write_text(json.dumps(found), encoding="utf-8")
        part.replace(self.out / CELLS)

    def at_each_step(self, call: Callable[[], None]) -> None:
        """Call something of ours after each step.

        Args:
            call: Must raise nothing.
        """
        step = self.session.step

        def counted(source: Any = "holdwater.step") -> None:  # noqa: ANN401 - as `Session.step`
            """Count the step, then call."""
            step(source)
            call()

        self.session.step = counted  # type: ignore[method-assign] # of this one session

    def verdict_so_far(self) -> str:
        """The watching process's newest verdict; `unknown` before the first."""
        with suppressed(OSError, ValueError):
            return str(json.loads((self.out / LIVE).read_text(encoding="utf-8"))["verdict"])
        return "unknown"

    def stop(self) -> dict[str, Any]:
        """End, and return the verdict as JSON.

        Raises:
            ConfigError: The watching process has not left one.
        """
        if self not in _watched:
            return self._summary()
        _watched.remove(self)
        try:
            self.session.finish()
        finally:
            self.session.forked = True  # its hooks count no more
            self._told = self._wait()
            self._place.__exit__(None, None, None)
        return self._summary()

    def _wait(self) -> str:
        """Wait for the watching process; return what it printed about failures."""
        try:
            _, told = self._watcher.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._watcher.kill()
            _, told = self._watcher.communicate()
        return told.decode(errors="replace")

    def _summary(self) -> dict[str, Any]:
        """The verdict that was left."""
        try:
            found: dict[str, Any] = json.loads((self.out / VERDICT).read_text(encoding="utf-8"))
        except not_the_scripts(OSError, ValueError) as error:
            raise ConfigError(
                f"there is no verdict in {self.out}: {error}; the watching process said: {self._told[-2000:]}"
            ) from error
        return found
