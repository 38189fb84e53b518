"""Let a Transformers `Trainer` (or TRL's) continue in a fresh process, under `holdwater run --supervise`.

    trainer = Trainer(..., callbacks=[RecycleCallback()])
    trainer.train(resume_from_checkpoint=last_checkpoint(trainer.args.output_dir))

It continues from the Trainer's own checkpoints: weights, optimizer, schedule, random states and place in the data.
`holdwater.frameworks.transformers.oom` recovers from out-of-memory inside a step.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdwater.exit_codes import STOPPED
from holdwater.frameworks.transformers.required import from_transformers
from holdwater.observe.agent import session as sessions
from holdwater.process.restart_context import RestartContext, leave_at_once, reason_file
from holdwater.signal_errors import not_the_scripts, suppressed
from holdwater.supervise.budget_callback import BudgetCallback, Ending
from holdwater.supervise.replaceable_steps import go_on_from, replaceable_step

if TYPE_CHECKING:
    TrainerCallback = object
else:
    TrainerCallback = from_transformers("TrainerCallback")

SENTINEL = "checkpoint-is-incomplete.txt"
"""In a checkpoint that Transformers writes on SIGTERM, until it is complete."""


class RecycleCallback(TrainerCallback):
    """Lets the Trainer save a checkpoint when a fresh process is to continue, and ends this one after it."""

    def __init__(self) -> None:
        """Prepare; without a supervisor the callback does nothing."""
        self._restart = RestartContext.taken()
        self._recycling = None if self._restart is None else BudgetCallback(self._restart)
        self._ending: Ending | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Report to the supervisor from which step this process continues."""
        del args, control, kwargs
        session = sessions.current()
        if self._restart is not None and session is not None:
            session.channel.put("resumable", 1)
            if self._recycling is not None:
                self._recycling.look_after(session)
            session.budget_callback = None
            go_on_from(session, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Count a step, and request a checkpoint if a fresh process is to continue."""
        del args, kwargs
        session, recycling = sessions.current(), self._recycling
        if recycling is None or (session is None and self._restart is not None):
            return
        if session is not None and self._restart is not None:
            replaceable_step(session, recycling.in_use)
        if state.global_step >= state.max_steps:
            self._ending = None
        elif self._ending is None:  # else the Trainer has not saved when it was asked to
            self._ending = self._end_after(state.global_step)
        if self._ending is not None:
            control.should_save = True

    def _end_after(self, step: int) -> Ending | None:
        """How this process is to end after a step; None as long as it goes on."""
        return None if self._recycling is None else self._recycling.end(step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """A checkpoint is complete: end this process if it was saved for that.

        Where the run continues in a fresh process, the script is not unwound: its `except` and `finally` belong to
        the end of the run.

        Raises:
            SystemExit: The run stops, since its budget is spent; it can be resumed from the checkpoint.
        """
        del args, control, kwargs
        session, restart = sessions.current(), self._restart
        if self._ending is None:
            return
        if session is not None:
            session.steps = state.global_step
        if not self._ending.recycled:
            sessions.say(f"stopped at step {state.global_step}: {self._ending.reason}")
            raise SystemExit(STOPPED)
        if session is None or restart is None:
            return
        with suppressed(OSError):  # no space for it
            reason_file(restart.channel_path).write_text(self._ending.reason, encoding="utf-8")
        session.channel.put("in_use", self._recycling.in_use() if self._recycling else 0)
        leave_at_once(restart, session.steps, session.channel)


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest complete checkpoint of a Trainer; None if there is none, at the start of a run.

    Args:
        folder: The Trainer's `output_dir`.
    """
    return next((str(path) for path in reversed(checkpoints_in(folder)) if not missing_from(path)), None)


def checkpoints_in(folder: str | Path) -> list[Path]:
    """The checkpoints of a Trainer, complete or not, the newest last.

    Args:
        folder: The Trainer's `output_dir`.
    """
    found = (path for path in Path(folder).glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit())
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def missing_from(checkpoint: Path) -> str:
    """What a Trainer's checkpoint lacks, in words; empty if it is complete.

    Args:
        checkpoint: A folder `checkpoint-N`.
    """
    if (checkpoint / SENTINEL).exists():
        return f"it holds {SENTINEL}: its writing was cut short"
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except not_the_scripts(FileNotFoundError):
        return "it has no trainer_state.json, which is written last"
    except not_the_scripts(OSError, ValueError):
        return "its trainer_state.json cannot be read"
    return "" if any(checkpoint.glob("rng_state*")) else "it has no random states (rng_state*)"
