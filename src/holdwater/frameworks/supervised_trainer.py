"""One process of a run under `holdwater run --supervise`, in a trainer that writes checkpoints of its own kind."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Self

from holdwater.errors import CheckpointError
from holdwater.observe.agent import session as sessions
from holdwater.observe.agent.session import Session
from holdwater.process.restart_context import (
    NOT_REPLACED,
    RestartContext,
    leave_at_once,
    reason_file,
    refusal_file,
)
from holdwater.signal_errors import suppressed
from holdwater.supervise.budget_callback import CHECKPOINT_EVERY, BudgetCallback, Ending
from holdwater.supervise.replaceable_steps import go_on_from, replaceable_step


class SupervisedTrainer:
    """Counts steps, keeps the budget, and says when the trainer is to write a checkpoint, and to end."""

    def __init__(self, restart: RestartContext, session: Session) -> None:
        """Prepare.

        Args:
            restart: What the supervisor says.
            session: Of this process.
        """
        self._restart, self._session = restart, session
        self._budget = BudgetCallback(restart)
        self._script_budget: Any = None
        self._ending: Ending | None = None
        self._refused = False
        self._saved_at = (0, time.monotonic())
        self.folders = (Path(restart.in_memory), Path(restart.out))
        """Where checkpoints lie: one in memory for the next process, and those on disk."""

    @classmethod
    def taken(cls) -> Self | None:
        """Of this process; None if no supervisor has started it."""
        restart, session = RestartContext.taken(), sessions.current()
        return None if restart is None or session is None else cls(restart, session)

    def begin(self, step: int) -> None:
        """Training begins.

        Args:
            step: Steps that were done before.
        """
        session = self._session
        session.channel.put("resumable", 1)
        self._budget.look_after(session)
        self._script_budget, session.budget_callback = session.budget_callback, None
        self._saved_at = (step, time.monotonic())
        go_on_from(session, step)

    def step(self, step: int) -> str | None:
        """Count a step.

        Args:
            step: Steps done.

        Returns:
            Why the run must stop now; None if it may go on.
        """
        replaceable_step(self._session, self._budget.in_use)
        if self._refused:
            return None
        ending = self._budget.end(step)
        if ending is not None and not ending.recycled:
            return ending.reason
        self._ending = self._ending or ending
        return None

    def wants_checkpoint(self, step: int) -> bool:
        """Whether a checkpoint is to be written where one is exact.

        Args:
            step: Steps done.
        """
        if self._refused or step == self._saved_at[0]:
            return False
        return self._ending is not None or self._is_due(step)

    def checkpoint(self, save: Callable[[Path], object], step: int) -> bool:
        """Let the trainer write a checkpoint.

        Args:
            save: Writes it into a folder, and raises `CheckpointError` if that is not possible.
            step: Steps done.

        Returns:
            Whether this process is to end now, and a fresh one to continue.
        """
        leaves = self._ending is not None and not self._is_due(step)
        try:
            save(self.folders[0 if leaves else 1])
        except CheckpointError as error:
            sessions.say(f"{error}; training goes on without it")
            self._ending = None
            return False
        finally:
            self._saved_at = (step, time.monotonic())
        return self._ending is not None

    def leave(self, step: int) -> NoReturn:
        """End this process: a fresh one continues. The script is not unwound: its end is the run's.

        Args:
            step: Steps done.
        """
        reason = "" if self._ending is None else self._ending.reason
        with suppressed(OSError):  # no space for it
            reason_file(self._restart.channel_path).write_text(reason, encoding="utf-8")
        self._session.channel.put("in_use", self._budget.in_use())
        self._session.steps = step
        leave_at_once(self._restart, step, self._session.channel)

    def refuse(self, reason: str) -> None:
        """Let training go on in this process alone, as it would without us.

        Args:
            reason: Why no other process could continue exactly.
        """
        self._refused, self._ending = True, None
        sessions.say(NOT_REPLACED + reason)
        self._session.channel.put("resumable", 0)
        self._session.budget_callback = self._script_budget
        with suppressed(OSError):
            refusal_file(self._restart.channel_path).write_text(reason, encoding="utf-8")

    def end(self) -> None:
        """Training has ended: what follows it is not counted."""
        self._ending = None

    def _is_due(self, step: int) -> bool:
        """Whether a checkpoint on disk is due."""
        every, (saved, then) = self._restart.settings.get("checkpoint_interval"), self._saved_at
        return step // every > saved // every if every else time.monotonic() - then > CHECKPOINT_EVERY
