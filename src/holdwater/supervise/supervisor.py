"""Keep a training run alive: start its process, and start another one when that was recycled or has died.

The processes are forked from a server that has paid for the imports. Each goes on from the newest checkpoint.
"""

import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from holdwater.policy.restarts import Answer, End, RestartConfig, Restarts
from holdwater.probes.kills import count_kills
from holdwater.process.channel import Channel
from holdwater.process.fork_server import ForkServer
from holdwater.process.spawn import ForkedProcess

log = logging.getLogger("holdwater")

NOT_KNOWN = 1 << 62
"""The step that a process goes on from, as long as it has not said so."""
PATIENCE = 60.0
"""Seconds that a process which was asked to stop may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is started again and again."""

    target: str
    """`module:function`."""
    argv: Sequence[str]
    """Its `sys.argv`."""
    modules: Sequence[str]
    """What is imported once, in the process that is forked from."""
    environment: Callable[["TrainerProcess"], Mapping[str, str]]
    """The environment of a training process."""
    settled: Mapping[str, str] = field(default_factory=dict)
    """What the imports need in the environment beside what there is."""


@dataclass(frozen=True, slots=True)
class TrainerProcess:
    """One process of a run."""

    number: int
    """The first is 0."""
    first_step: int
    """Steps that were done when it began, as far as is known."""
    out_of_memory_restarts: int
    """How often a process of this run was short of memory."""


class Supervisor:
    """Starts processes one after another, and decides after each whether another follows."""

    def __init__(
        self,
        launch: Launch,
        channel: Channel,
        *,
        config: RestartConfig | None = None,
        hang_timeout: float | None = None,
    ) -> None:
        """Prepare to start.

        Args:
            launch: What to start.
            channel: What the processes say of themselves; they share it, one after another.
            config: How often a process that dies is started again.
            hang_timeout: Seconds without a step after which a process counts as hung; None waits for ever.
        """
        self.channel = channel
        self.restarts = Restarts(config or RestartConfig())
        self.trainer = TrainerProcess(-1, 0, 0)
        self.process: ForkedProcess | None = None
        self.argv = list(launch.argv)
        """`sys.argv` of the next process."""
        self._launch = launch
        self._hang_timeout = hang_timeout
        self._server = self._new_server()
        self._moved = (0, 0.0)
        self._kills: int | None = None
        self._stop_by = float("inf")
        self._hung = False

    def _new_server(self) -> ForkServer:
        """Start what the processes are forked from."""
        return ForkServer(self._launch.modules, os.environ | self._launch.settled)

    def start(self, channel: Channel | None = None) -> ForkedProcess:
        """Start the next process.

        Args:
            channel: What it says of itself, if not the same as the one before.
        """
        steps = self.channel.get("steps")
        self.channel = channel or self.channel
        self.channel.put("steps", steps)
        self.trainer = TrainerProcess(self.trainer.number + 1, steps, self.trainer.out_of_memory_restarts)
        for name in ("recycled", "out_of_memory"):
            self.channel.put(name, 0)
        if not self._server.alive:
            self._server = self._new_server()
        self._moved, self._kills = (steps, time.monotonic()), count_kills()
        self._hung, self._stop_by = False, float("inf")
        self.channel.put("goes_on_from", NOT_KNOWN if self.trainer.number else 0)
        environment = self._launch.environment(self.trainer)
        process = ForkedProcess(self._server, self.channel, self._launch.target, self.argv, environment)
        if process.exit_status is not None and self._server.unfit:
            log.warning("%s; each process imports everything itself", self._server.unfit)
            self._server.close()
            self._server = ForkServer((), os.environ)
            process = ForkedProcess(self._server, self.channel, self._launch.target, self.argv, environment)
        self.process = process
        return process

    def turn(self) -> None:
        """Look after the process: end one that hangs, or that was asked to stop and does not."""
        process, now, steps = self.process, time.monotonic(), self.channel.get("steps")
        if process is None:
            return
        if steps != self._moved[0]:
            self._moved = (steps, now)
        if process.asked_to_stop and self._stop_by == float("inf"):
            self._stop_by = now + PATIENCE
        waited = now - self._moved[1]
        going = steps > self.channel.get("goes_on_from")  # the first step may take long: compilers, cold caches
        if self._hang_timeout is not None and going and waited > self._hang_timeout and not self._hung:
            log.warning("no step for %.0f s after step %d: the process is ended", waited, steps)
            self._hung = True
            process.send(signal.SIGCONT)
            process.send(signal.SIGKILL)
        if now > self._stop_by:
            log.warning("the process was asked to stop %.0f s ago and has not: it is ended", PATIENCE)
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
            stopping=process.asked_to_stop,
            out_of_memory=self.channel.get("out_of_memory") > 0 or self._was_killed_by_kernel(process.exit_status),
        )
        answer = self.restarts.answer(end)
        if answer.after_out_of_memory:
            self.trainer = TrainerProcess(
                self.trainer.number, self.trainer.first_step, self.trainer.out_of_memory_restarts + 1
            )
        return answer

    def _was_killed_by_kernel(self, status: int) -> bool:
        """Whether a process that ended so was killed for want of memory."""
        killed = status in {-int(signal.SIGKILL), 128 + int(signal.SIGKILL)} and not self._hung
        return killed and (count_kills() or 0) > (self._kills or 0)

    def close(self) -> None:
        """Let the server end, and wait for it."""
        self._server.wait(5.0)
