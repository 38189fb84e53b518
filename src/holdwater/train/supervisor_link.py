"""The training process's side of its supervisor: tell it each step, leave it what a fresh process goes on from."""

import logging
import time
from collections.abc import Mapping
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
        """Take up the channel.

        Args:
            restart: What the supervisor says of this process.
        """
        self.restart = restart
        self.is_first = restart.number == 0
        self.goes_on = not self.is_first
        """Whether a process of this run has been here before."""
        self._in_memory = CheckpointFolder(Path(restart.in_memory) / "checkpoints", keep=1)
        self._channel = restart.open_channel()
        self._unmeasured = restart.ended

    def tell(self, step: int, guard: Guard | None = None) -> None:
        """Tell the supervisor which step has ended, and when."""
        self._channel.put("steps", step)
        self._channel.put_seconds("last_step_at", time.monotonic())
        if guard is not None and self._unmeasured is not None:
            self._measure(self._unmeasured, guard)

    def _measure(self, ended: Mapping[str, Any], guard: Guard) -> None:
        """Note what replacing the process has freed and cost: from its last step to this one's first."""
        self._unmeasured = None
        freed = int(ended["in_use"]) - sum(guard.observer.in_use())
        seconds = time.monotonic() - float(ended["at"])
        guard.note(Outcome(Step(int(ended["step"])), "recycle", str(ended["reason"]), freed, seconds))

    def began(self, step: int) -> tuple[int, float]:
        """Where and when the first process of the run began.

        Args:
            step: The step that this process goes on from.
        """
        if self.is_first:
            self._channel.put("began_from", step)
            self._channel.put_seconds("first_step_at", time.perf_counter())
        return self._channel.get("began_from"), self._channel.get_seconds("first_step_at")

    def newest(self, checkpoints: CheckpointFolder) -> Checkpoint | None:
        """The newest whole checkpoint of the two places.

        Args:
            checkpoints: The run's own.
        """
        in_memory = self._in_memory.newest(log.warning)
        newest = checkpoints.newest(log.warning, after=-1 if in_memory is None else in_memory.step) or in_memory
        step = 0 if newest is None else newest.step
        self.tell(step)
        self._channel.put("goes_on_from", step)
        return newest

    def agree(self, guard: Guard) -> None:
        """Agree to be replaced after this step: note what this process holds, for the next one to compare with."""
        self._channel.put("in_use", sum(guard.observer.in_use()))

    def save(self, state: "Trainable") -> bool:
        """Write a checkpoint into memory; False where there is no room for it.

        Args:
            state: Of the step that has just ended.
        """
        try:
            if not state.park(self._in_memory):
                state.save(self._in_memory, best=False)
        except CheckpointError:
            return False
        return True

    def leave(self, reason: str) -> None:
        """Leave word why another process is to go on."""
        reason_file(self.restart.channel_path).write_text(reason, encoding="utf-8")
