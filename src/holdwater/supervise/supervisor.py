"""Start the processes of a run, one after another, watch over each, and decide after its end what follows.

The processes are forked from a server that has done the imports. Each continues from the newest checkpoint.
"""

import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from holdwater.policy.restarts import Answer, End, RestartConfig, Restarts
from holdwater.probes.kills import count_kills
from holdwater.probes.metal import metal
from holdwater.process.channel import Channel
from holdwater.process.error_stream import ErrorStream
from holdwater.process.fork_server import ForkServer
from holdwater.process.spawn import ForkedProcess
from holdwater.signal_errors import not_the_scripts

log = logging.getLogger("holdwater")

NOT_KNOWN = 1 << 62
"""The step that a process continues from, as long as it has not reported it."""
PATIENCE = 60.0
"""Seconds that a process may take to stop when it was asked to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is started for each process of a run."""

    target: str
    """`module:function`."""
    argv: Callable[["TrainerProcess"], Sequence[str]]
    """The `sys.argv` of a process."""
    channel: Callable[[int], Channel]
    """The channel of a process, by its number: a new one, or one that all of them use in turn."""
    modules: Sequence[str]
    """What the fork server imports, once."""
    environment: Callable[["TrainerProcess"], Mapping[str, str]]
    """The environment of a process."""
    settled: Mapping[str, str] = field(default_factory=dict)
    """Variables that the imports need in the environment, in addition to those of this process."""
    folder: str | None = None
    """The folder of a script's own modules: an import that one of them hides must not be made for it."""


@dataclass(frozen=True, slots=True)
class TrainerProcess:
    """One process of a run."""

    number: int
    """The first is 0."""
    first_step: int
    """Steps that were done when it began, as far as is known."""
    out_of_memory_restarts: int
    """How often a process of this run has run out of memory."""


class Supervisor:
    """Starts processes one after another, and decides after each whether another follows."""

    def __init__(
        self,
        launch: Launch,
        *,
        config: RestartConfig | None = None,
        hang_timeout: float | None = None,
    ) -> None:
        """Prepare to start.

        Args:
            launch: What to start.
            config: How often a process that dies is started again.
            hang_timeout: Seconds without a step after which a process counts as hung; None waits for ever.
        """
        self.channel = launch.channel(0)
        """Of the newest process."""
        self.restarts = Restarts(config or RestartConfig())
        self.trainer = TrainerProcess(-1, 0, 0)
        self.process: ForkedProcess | None = None
        self._launch = launch
        self._hang_timeout = hang_timeout
        self._errors = _error_stream()
        """What the processes say before Metal aborts them; None where there is no Metal."""
        self._server = self._new_server()
        self._moved = (0, 0.0)
        self._kills: int | None = None
        self._stop_by = float("inf")
        self._hung = False
        self.forced = False
        """Whether the newest process was killed because it was asked to stop and did not."""

    def _new_server(self) -> ForkServer:
        """Start the process that the others are forked from."""
        launch = self._launch
        environment = os.environ | launch.settled
        return ForkServer(launch.modules, environment, folder=launch.folder, errors=self._errors_to)

    @property
    def _errors_to(self) -> int:
        """The file that is the standard error of the processes."""
        return 2 if self._errors is None else self._errors.writing

    def start(self) -> ForkedProcess:
        """Start the next process."""
        number, steps = self.trainer.number + 1, self.channel.get("steps")
        if number:
            self.channel = self._launch.channel(number)
        self.channel.put("steps", steps)
        self.trainer = TrainerProcess(number, steps, self.trainer.out_of_memory_restarts)
        untaken = frozenset() if self.process is None else self.process.untaken
        if self._errors is not None:
            self._errors.forget()
        for name in ("recycled", "out_of_memory", "takes_stops", "untaken"):
            self.channel.put(name, 0)
        if not self._server.alive:
            self._server = self._new_server()
        self._moved, self._kills = (steps, time.monotonic()), count_kills()
        self._hung, self.forced, self._stop_by = False, False, float("inf")
        self.channel.put("goes_on_from", NOT_KNOWN if self.trainer.number else 0)
        process = self._fork(untaken)
        if process.exit_status is not None and self._server.unfit:
            log.warning("%s; each process imports everything itself", self._server.unfit)
            self._server.close()
            self._server = ForkServer((), os.environ, errors=self._errors_to)
            process = self._fork(untaken)
        self.process = process
        return process

    def _fork(self, untaken: frozenset[int]) -> ForkedProcess:
        """Have the server fork the process that `self.trainer` describes.

        Args:
            untaken: Signals that the process before it has left to it.
        """
        launch, trainer = self._launch, self.trainer
        argv, environment = launch.argv(trainer), launch.environment(trainer)
        return ForkedProcess(self._server, self.channel, launch.target, argv, environment, untaken=untaken)

    def turn(self) -> None:
        """End the process if it hangs, or if it was asked to stop and does not."""
        process, now, steps = self.process, time.monotonic(), self.channel.get("steps")
        if process is None:
            return
        if steps != self._moved[0]:
            self._moved = (steps, now)
        waits = process.asked_to_stop and self.channel.get("takes_stops")
        self._stop_by = min(self._stop_by, now + PATIENCE) if waits else float("inf")
        waited = now - self._moved[1]
        going = steps > self.channel.get("goes_on_from")  # the first step may take long: compilers, cold caches
        if self._hang_timeout is not None and going and waited > self._hang_timeout and not self._hung:
            log.warning("no step for %.0f s after step %d: the process is ended", waited, steps)
            self._hung = True
            process.send(signal.SIGCONT)
            process.send(signal.SIGKILL)
        if now > self._stop_by:
            log.warning("the process was asked to stop %.0f s ago and has not: it is ended", PATIENCE)
            self.forced = True
            process.send(signal.SIGKILL)
            self._stop_by = now + PATIENCE

    def answer(self) -> Answer:
        """Decide what follows the process that has ended."""
        process = self.process
        if process is None or process.exit_status is None:
            raise RuntimeError("no process of this run has ended")
        steps, from_step = self.channel.get("steps"), self.channel.get("goes_on_from")
        end = End(
            status=process.exit_status,
            first_step=self.trainer.first_step if from_step == NOT_KNOWN else from_step,
            step=steps,
            recycled=self.channel.get("recycled") > 0 and process.exit_status == 0,
            hung=self._hung,
            stopping=process.asked_to_stop or -process.exit_status in process.received,
            out_of_memory=self._was_short(process.exit_status),
        )
        answer = self.restarts.answer(end)
        if answer.after_out_of_memory:
            self.trainer = TrainerProcess(
                self.trainer.number, self.trainer.first_step, self.trainer.out_of_memory_restarts + 1
            )
        return answer

    @property
    def own_exit_code(self) -> int:
        """The exit code of the newest process; negative for a signal."""
        status = None if self.process is None else self.process.exit_status
        return status or 0

    def _was_short(self, status: int) -> bool:
        """Whether a process that ended with this status was short of memory."""
        if self.channel.get("out_of_memory") > 0 or self._was_killed_by_kernel(status):
            return True
        return self._was_aborted_by_metal(status)

    def _was_aborted_by_metal(self, status: int) -> bool:
        """Whether Metal aborted a process because its memory, or its buffers, ran out."""
        if status not in {-int(signal.SIGABRT), 128 + int(signal.SIGABRT)} or self._errors is None:
            return False
        said = self._errors.said_out_of_memory()
        if said:
            log.warning("Metal aborted the process: %s", said)
        return bool(said)

    def _was_killed_by_kernel(self, status: int) -> bool:
        """Whether the kernel killed a process that ended with this status because memory ran out."""
        killed = status in {-int(signal.SIGKILL), 128 + int(signal.SIGKILL)} and not self._hung
        return killed and (count_kills() or 0) > (self._kills or 0)

    def close(self) -> None:
        """Wait until the server has ended."""
        self._server.wait(5.0)
        if self._errors is not None:
            self._errors.close()


def _error_stream() -> ErrorStream | None:
    """Read what the processes write to their standard error, where there is Metal; None elsewhere."""
    if metal() is None:
        return None
    try:
        return ErrorStream()
    except not_the_scripts(OSError) as error:
        log.warning("an abort by Metal will not be recognised: %s", error)
        return None
