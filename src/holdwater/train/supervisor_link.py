"""The training process's link to its supervisor: report each step, leave the state for a fresh process."""

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdwater.actions.perform import Outcome
from holdwater.errors import CheckpointError
from holdwater.guard.guard import Guard
from holdwater.process.restart_context import RestartContext, reason_file
from holdwater.store.checkpoints import Checkpoint, CheckpointFolder
from holdwater.units import Step

if TYPE_CHECKING:
    from holdwater.train.trainable import Trainable

log = logging.getLogger("holdwater")


class SupervisorLink:
    """One process of a supervised run."""

    def __init__(self, restart: RestartContext) -> None:
        """Open the channel.

        Args:
            restart: The restart context.
        """
        self.restart = restart
        self.is_first = restart.number == 0
        self.goes_on = not self.is_first
        """Whether a process of this run has been here before."""
        self._in_memory = CheckpointFolder(Path(restart.in_memory) / "checkpoints", keep=1)
        self._channel = restart.open_channel()
        self._channel.put("takes_stops", 1)
        self._unmeasured = restart.ended

    def report_step(self, step: int, guard: Guard | None = None) -> None:
        """Report to the supervisor which step has ended, and when."""
        self._channel.put("steps", step)
        self._channel.put_seconds("last_step_at", time.monotonic())
        if guard is not None and self._unmeasured is not None:
            self._measure(self._unmeasured, guard)

    def _measure(self, ended: Mapping[str, Any], guard: Guard) -> None:
        """Record what replacing the process freed and cost: from its last step to this one's first."""
        self._unmeasured = None
        freed = int(ended["in_use"]) - sum(guard.observer.in_use())
        seconds = time.monotonic() - float(ended["at"])
        guard.note(Outcome(Step(int(ended["step"])), "recycle", str(ended["reason"]), freed, seconds))

    def began(self, step: int) -> tuple[int, float]:
        """The step and time at which the first process of the run began.

        Args:
            step: The step that this process continues from.
        """
        if self.is_first:
            self._channel.put("began_from", step)
            self._channel.put_seconds("first_step_at", time.perf_counter())
        return self._channel.get("began_from"), self._channel.get_seconds("first_step_at")

    def newest(self, checkpoints: CheckpointFolder) -> Checkpoint | None:
        """The newest complete checkpoint, in memory or on disk.

        Args:
            checkpoints: The run's own.
        """
        in_memory = self._in_memory.newest(log.warning)
        newest = checkpoints.newest(log.warning, after=-1 if in_memory is None else in_memory.step) or in_memory
        step = 0 if newest is None else newest.step
        self.report_step(step)
        self._channel.put("goes_on_from", step)
        return newest

    def agree(self, guard: Guard) -> None:
        """Agree to be replaced after this step: record what this process holds, for comparison by the next one."""
        self._channel.put("in_use", sum(guard.observer.in_use()))

    def save(self, state: "Trainable") -> bool:
        """Write a checkpoint to memory; False if there is no space for it.

        Args:
            state: The state after the step that has just ended.
        """
        try:
            if not state.park(self._in_memory):
                state.save(self._in_memory, best=False)
        except CheckpointError:
            return False
        return True

    def leave(self, reason: str) -> None:
        """Write the reason why another process is to continue."""
        with suppress(OSError):  # no space for it
            reason_file(self.restart.channel_path).write_text(reason, encoding="utf-8")
