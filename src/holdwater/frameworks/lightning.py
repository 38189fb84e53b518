"""A callback for Lightning's `Trainer` that guards memory: verdict, budget, stop with a checkpoint, replacement.

    memory = LightningCallback(max_memory="70GB")
    trainer = Trainer(..., callbacks=[memory, ...])
    trainer.fit(module, loader, ckpt_path=memory.last_checkpoint())

It serves `lightning.pytorch` and `pytorch_lightning`. Memory is read after each batch that ends an optimizer step.
A leak is explained with its line and holder, as by `holdwater run`. The last argument is needed only where
training is to be continued.

Exact is what begins with an epoch: under `holdwater run --supervise` the process is replaced, and checkpoints are
written, between two epochs, with all random states. Lightning does not keep the place inside an epoch, so a stop
inside one writes Lightning's own checkpoint, which continues with other batches; it is said when it happens. Not
replaced, with the reason, is a process whose loader has persistent workers, or whose module or callbacks hold what
no checkpoint keeps. What a loop outside `fit`, a logger or a metric across epochs holds is not examined.
"""

import importlib
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdwater.actions.levers import Levers
from holdwater.errors import CheckpointError, ConfigError
from holdwater.exit_codes import STOPPED
from holdwater.frameworks.lightning_checkpoints import EpochCheckpoints, EpochStates, between_epochs
from holdwater.frameworks.observed_guard import ObservedGuard
from holdwater.frameworks.supervised_trainer import SupervisedTrainer
from holdwater.observe.agent import session as sessions
from holdwater.signal_errors import not_the_scripts

PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def _callback() -> Any:  # noqa: ANN401 - a class of Lightning
    """The base class of callbacks: of the package that the program has imported, or of the one that is there.

    Raises:
        ImportError: Neither is there.
    """
    for name in sorted(PACKAGES, key=lambda name: name not in sys.modules):
        try:
            return importlib.import_module(name).Callback
        except not_the_scripts(ImportError):
            continue
    raise ImportError("the callback needs Lightning, which is not installed; pip install lightning")


if TYPE_CHECKING:
    Callback = object
else:
    Callback = _callback()

log = logging.getLogger("holdwater")


class LightningCallback(Callback):
    """Guards the memory of one call of `Trainer.fit`."""

    def __init__(
        self,
        *,
        max_memory: str | None = None,
        max_host_memory: str | None = None,
        out: str | Path | None = None,
        every: int = 50,
    ) -> None:
        """Prepare.

        Args:
            max_memory: The budget of the memory in which tensors live, such as `70GB`; None finds one.
            max_host_memory: The budget of the host's memory beside a device; None finds one.
            out: The folder of the run, with its history and the checkpoints of a stop; None keeps no history, and
                puts checkpoints into `holdwater` in the trainer's `default_root_dir`.
            every: Steps between two rows of `memory/...` in the trainer's loggers.

        Raises:
            ConfigError: There is no step between two rows.
        """
        if every < 1:
            raise ConfigError(f"every is {every}, but a row needs a step; set every = 1 or more")
        self.summary: dict[str, Any] | None = None
        """The judgement as JSON (schema 1), when training has ended."""
        self.stop_reason: str | None = None
        """Why training has ended early; None if it has not."""
        self._max_memory, self._max_host_memory = max_memory, max_host_memory
        self._out, self._every = None if out is None else Path(out), every
        self._supervised = SupervisedTrainer.taken()
        self._guard: ObservedGuard | None = None
        self._states = EpochStates()
        self._kept: Path | None = None
        """The checkpoint of a stop."""
        self._steps = self._seen = 0
        """Steps counted, and the trainer's own count when they were."""

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint from which a fresh process can continue; None at the start of a run.

        Without a supervisor it is one that a stop has left in `out`.
        """
        folders = [] if self._out is None else [self._out / "lightning"]
        if self._supervised is not None:
            folders = [place / "lightning" for place in self._supervised.folders]
        found = [one for folder in folders if (one := EpochCheckpoints(folder).newest()) is not None]
        return max(found, key=lambda path: path.name, default=None)

    def state_dict(self) -> dict[str, Any]:
        """The steps done and the random states, for Lightning's checkpoint."""
        return {"steps": self._steps, "states": self._states.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what `state_dict` has given.

        Args:
            state_dict: Of a checkpoint.
        """
        self._steps = int(state_dict["steps"])
        self._states.load_state_dict(state_dict["states"])

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401 - of Lightning
        """Begin to guard.

        Args:
            trainer: Lightning's.
            pl_module: Its module.
        """
        self.stop_reason, self._seen = None, trainer.global_step
        if self._supervised is None:
            guard = ObservedGuard.for_rank(
                trainer.global_rank, max_memory=self._max_memory, max_host_memory=self._max_host_memory,
                out=self._out, first_step=self._steps,
            )  # fmt: skip
            guard.levers = Levers(checkpoint=lambda: self._keep(trainer))
            self._guard = guard.__enter__()
            return
        self._states.begin(trainer, pl_module, self)
        self._supervised.begin(self._steps)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401 - of Lightning
        """Begin an epoch: as in an earlier process, or with a checkpoint if one is due.

        Args:
            trainer: Lightning's.
            pl_module: Its module.
        """
        for remark in self._states.restore(trainer):
            log.warning("%s", remark)
        self._mark("epoch", number=int(trainer.current_epoch))
        supervised = self._supervised
        if supervised is None or not supervised.wants_checkpoint(self._steps):
            return
        reason = self._states.why_not(trainer, pl_module, self)
        if reason is not None:
            supervised.refuse(reason)
            return
        with between_epochs(trainer):
            ends = supervised.checkpoint(lambda folder: self._save(trainer, folder), self._steps)
        if ends:
            supervised.leave(self._steps)

    def on_train_batch_end(
        self,
        trainer: Any,  # noqa: ANN401 - of Lightning
        pl_module: Any,  # noqa: ANN401
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Count an optimizer step, if the batch has ended one.

        Args:
            trainer: Lightning's.
            pl_module: Its module.
            outputs: Of the step.
            batch: The batch.
            batch_idx: Its number in the epoch.
        """
        del pl_module, outputs, batch, batch_idx
        if trainer.global_step == self._seen:  # gradients are accumulated
            return
        self._seen = trainer.global_step
        self._steps += 1
        guard = self._guard
        if self._supervised is not None:
            self._end_supervised(trainer)
        elif guard is not None:
            guard.step()
            if self._steps % self._every == 0 and trainer.loggers:
                self._log(trainer, guard)
            if guard.stop_reason is not None and self.stop_reason is None:
                self._stop(trainer, guard.stop_reason)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401 - of Lightning
        """Mark an evaluation."""
        del pl_module
        if not trainer.sanity_checking:
            self._mark("evaluation")

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:  # noqa: ANN401
        """Mark a checkpoint."""
        del trainer, pl_module, checkpoint
        self._mark("checkpoint")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401 - of Lightning
        """Judge the run, and log what was found."""
        del pl_module
        self._end(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ANN401
        """Judge a run that an error ends."""
        del pl_module
        self._end(trainer, exception)

    def _mark(self, kind: str, **facts: Any) -> None:  # noqa: ANN401 - any JSON value
        """Mark an event in the history."""
        if self._guard is not None:
            self._guard.mark(kind, **facts)

    def _save(self, trainer: Any, folder: Path) -> Path:  # noqa: ANN401 - of Lightning
        """Write a checkpoint.

        Raises:
            CheckpointError: It cannot be written.
        """
        try:
            return EpochCheckpoints(folder / "lightning").save(trainer, self._steps)
        except not_the_scripts(OSError, RuntimeError) as error:
            raise CheckpointError(f"no checkpoint can be written into {folder}: {error}") from error

    def _keep(self, trainer: Any) -> None:  # noqa: ANN401 - of Lightning
        """Write the checkpoint of a stop; without it the run is not stopped.

        Raises:
            CheckpointError: It cannot be written.
        """
        folder = self._out or Path(trainer.default_root_dir) / "holdwater"
        self._kept = self._save(trainer, folder)

    def _stop(self, trainer: Any, reason: str) -> None:  # noqa: ANN401 - of Lightning
        """Let the trainer end after this step, whose checkpoint is written.

        Args:
            trainer: Lightning's.
            reason: Why.
        """
        self.stop_reason = reason
        where = f"continue with ckpt_path={str(self._kept)!r}"
        log.warning("training ends after step %d: %s; %s%s", self._steps, reason, where, _inside(trainer))
        trainer.should_stop = True

    def _end_supervised(self, trainer: Any) -> None:  # noqa: ANN401 - of Lightning
        """Count a step for the supervisor, and end the run if its budget is spent.

        Raises:
            SystemExit: The run stops; it can be resumed from its checkpoint.
        """
        supervised = self._supervised
        if supervised is None:
            return
        reason = supervised.step(self._steps)
        if reason is None:
            return
        try:
            self._save(trainer, supervised.folders[-1])
        except CheckpointError as error:
            sessions.say(f"{error}")
        sessions.say(f"stopped at step {self._steps}: {reason}{_inside(trainer)}")
        raise SystemExit(STOPPED)

    def _log(self, trainer: Any, guard: ObservedGuard) -> None:  # noqa: ANN401 - of Lightning
        """Write what is in use to the trainer's loggers; one that fails says so once."""
        metrics = guard.metrics()
        for logger in trainer.loggers:
            try:
                logger.log_metrics(metrics, step=trainer.global_step)
            except not_the_scripts(Exception) as error:  # a guard never kills what it guards
                log.warning("memory is not logged any more: %r", error)
                self._every = sys.maxsize

    def _end(self, trainer: Any, error: BaseException | None = None) -> None:  # noqa: ANN401 - of Lightning
        """Judge the run, and log what was found."""
        guard, self._guard = self._guard, None
        if self._supervised is not None:
            self._supervised.end()
        if guard is None:
            return
        guard.__exit__(None if error is None else type(error), error, None)
        self.summary = guard.summary()
        self._log(trainer, guard)
        if guard.is_observed_already:
            return
        log.info("memory: %s after %d steps", self.summary["verdict"], self.summary["steps"])
        for finding in self.summary["findings"]:
            log.info("  %s: %s: %s", finding["component"], finding["verdict"], finding["advice"])


def _inside(trainer: Any) -> str:  # noqa: ANN401 - of Lightning
    """A remark on a checkpoint inside an epoch; empty at an epoch's end."""
    if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
        return ""
    return (
        "; this is inside an epoch, whose other batches Lightning draws anew unless its loader has a state_dict, "
        "so what follows is not exact"
    )
