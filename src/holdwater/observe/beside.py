"""Watch a training process from one beside it, which a guard in the training process has started.

    python -P -m holdwater.observe.beside REQUEST

It watches as `holdwater run` does, until the guard says that training has ended, or its process is gone; then it
writes the verdict as JSON to its standard output.
"""

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from holdwater.observe.agent import session as sessions
from holdwater.probes.processes import OBSERVERS
from holdwater.process.channel import Channel
from holdwater.process.channel_folder import channel_folder
from holdwater.process.spawn import RunningProcess
from holdwater.signal_errors import not_the_scripts, suppressed

if TYPE_CHECKING:
    from holdwater.observe.observed_run import ObservedRun

LOOK = 0.02
"""Seconds between two looks at whether training has ended, at most."""
VERDICT = "verdict.json"
"""The file in the session's folder that holds the verdict so far, from the first finding on."""
PATIENCE = 20.0
"""Seconds that the last judgement may take; without it there is the guard's own verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRequest:
    """What the watching process is told."""

    folder: str = ""
    """Holds the channel."""
    max_memory: int | None = None
    """The budget in bytes of the pool in which tensors live; None finds one."""
    max_host_memory: int | None = None
    """The budget in bytes of the host's memory beside a device; None finds one."""
    who: str = ""
    """The rank, for messages; it ends with a space."""
    quiet: bool = False
    """Print nothing while training goes on."""


class CallingProcess(RunningProcess):
    """The process that has started this one: it forwards no signal, and its end is seen by its child."""

    def __init__(self, pid: int, channel: Channel) -> None:
        """Follow it.

        Args:
            pid: Its number.
            channel: Says when training has ended, which the process may survive.
        """
        self.pid, self._channel = pid, channel  # the base class would hold this process's signals back
        self.exit_status: int | None = None
        self._ends = False

    def wait(self, seconds: float) -> bool:
        """Wait; True while training goes on. It returns early when the last question may be asked.

        Args:
            seconds: At most.
        """
        deadline = time.monotonic() + seconds
        while self._poll():
            ends, left = self._channel.state == "ending", deadline - time.monotonic()
            if left <= 0 or ends > self._ends:
                self._ends = ends
                return True
            time.sleep(min(left, LOOK))
        return False

    def _poll(self) -> bool:
        """Whether training goes on."""
        if self._channel.state == "ended" or os.getppid() != self.pid:
            self.exit_status = 0
        return self.exit_status is None


class WatcherBeside:
    """The session of a training process, and the process beside it that watches."""

    def __init__(self, process: "subprocess.Popen[str]", session: sessions.Session, closing: ExitStack) -> None:
        self.session = session
        self._process, self._closing = process, closing

    @classmethod
    def start(cls, request: WatchRequest) -> Self:
        """Begin a session in this process, and start the process that watches it.

        Args:
            request: What it is told; the folder is made here.

        Raises:
            StoreError: There is no room for the channel.
            OSError: No process can be started.
        """
        with ExitStack() as closing:
            channel = closing.enter_context(channel_folder(Path()))
            folder = channel.path.parent
            words = json.dumps(asdict(request) | {"folder": str(folder)})
            command = [sys.executable, "-P", "-m", __spec__.name, words]
            process = subprocess.Popen(  # noqa: S603 - our own program
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
            OBSERVERS.add(process.pid)
            return cls(process, sessions.begin(folder), closing.pop_all())

    def newest(self) -> dict[str, Any] | None:
        """The verdict so far as JSON (schema 1); None before the first finding."""
        try:
            found: dict[str, Any] = json.loads((self.session.folder / VERDICT).read_text(encoding="utf-8"))
        except not_the_scripts(OSError, ValueError):
            return None
        return found

    def end(self) -> dict[str, Any] | None:
        """End the session; return the verdict as JSON (schema 1), or None if there is none."""
        with self._closing:
            try:
                self.session.finish()
                self.session.channel.state = "ended"  # also where nothing was read any more
                said, _ = self._process.communicate(timeout=PATIENCE)
                verdict: dict[str, Any] = json.loads(said)
            except not_the_scripts(OSError, ValueError, subprocess.SubprocessError):
                return None
            finally:
                self.session.forked = True  # what still holds it counts nothing
                self._stop()
            return verdict

    def _stop(self) -> None:
        """End the process, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        OBSERVERS.discard(self._process.pid)
        if self._process.stdout is not None:
            self._process.stdout.close()


def watch(request: WatchRequest, pid: int) -> dict[str, Any]:
    """Watch a process until its training has ended; return the verdict as JSON (schema 1).

    Args:
        request: What is to be done.
        pid: The process's number.
    """
    from holdwater.budget import Terms  # noqa: PLC0415 - numpy loads in the watching process only
    from holdwater.observe.news import News  # noqa: PLC0415
    from holdwater.observe.observed_run import ObservedRun  # noqa: PLC0415
    from holdwater.probes.machine import read_machine  # noqa: PLC0415
    from holdwater.store.run_store import RunStore  # noqa: PLC0415
    from holdwater.units import Bytes  # noqa: PLC0415

    given = [None if size is None else Bytes(size) for size in (request.max_memory, request.max_host_memory)]
    terms, folder = Terms(machine=read_machine(), max_memory=given[0], max_host_memory=given[1]), request.folder
    channel, store = Channel(Path(folder) / "channel"), RunStore(Path(folder), kept=False)
    with ExitStack() as closing:
        news = News(quiet=request.quiet, who=request.who)
        observed = ObservedRun(CallingProcess(pid, channel), channel, terms, store, words=sys.argv, news=news)
        for close in (store.close, observed.close, news.close):
            closing.callback(close)
        _follow(observed, Path(folder))
        return observed.summary()


def _follow(observed: "ObservedRun", folder: Path) -> None:
    """Watch until training has ended, and write each new verdict where the guard finds it."""
    told: object = None
    while observed.process.wait(observed.pause()):
        observed.look()
        watcher = observed.watcher
        known = (watcher.verdict, len(watcher.explanations))
        if known != told and watcher.verdict.findings:
            told = known
            _publish(folder, observed.summary())
    observed.finish()


def _publish(folder: Path, summary: dict[str, Any]) -> None:
    """Write the verdict so far; without room for it there is none until the end."""
    with suppressed(OSError):
        aside = folder / f"{VERDICT}.part"
        aside.write_text(json.dumps(summary), encoding="utf-8")
        aside.rename(folder / VERDICT)


def main() -> None:
    """Watch the process that has started this one."""
    pid = os.getppid()
    OBSERVERS.add(os.getpid())
    verdict = watch(WatchRequest(**json.loads(sys.argv[1])), pid)
    with suppressed(OSError):  # nobody waits for it any more
        sys.stdout.write(json.dumps(verdict) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
