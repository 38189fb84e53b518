"""A callback for the trainer of `mlx_lm`: every step is counted, evaluations are marked, and memory is guarded.

    with Guard(max_memory="70GB", out="runs/today") as guard:
        memory = MlxMemoryCallback(guard)
        train(model, optimizer, rows, args=args, training_callback=memory, iterate_batches=memory.iterate_batches)

The trainer calls a callback only every `steps_per_report` steps, so steps are counted where it takes its batches.
It also sets MLX's wired limit to all that the device recommends, which is undone: docs/apple-silicon.md says why.
It saves adapters only, neither optimizer nor position, so no other process could continue it: a run that must stop
ends after its step, and the trainer saves its adapters.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holdwater.guard.guard import Guard
from holdwater.units import format_size

if TYPE_CHECKING:
    TrainingCallback = object
else:
    try:
        from mlx_lm.tuner.callbacks import TrainingCallback
    except ImportError as missing:
        raise ImportError(
            "the callback needs mlx_lm, which is not installed; on Linux MLX's package is mlx[cpu]; "
            "write: pip install mlx mlx-lm"
        ) from missing

import mlx.core as mx
from mlx_lm.tuner import trainer

log = logging.getLogger("holdwater")


class MlxMemoryCallback(TrainingCallback):
    """Guards the memory of one call of `mlx_lm.tuner.trainer.train`."""

    def __init__(self, guard: Guard) -> None:
        """Prepare.

        Args:
            guard: One that was entered; it stops the run after a step if memory makes that necessary.
        """
        self.guard = guard
        if guard.levers.checkpoint is None:  # the trainer saves its adapters when its batches end
            guard.levers = replace(guard.levers, checkpoint=lambda: None)
        for change in guard.limits:
            log.info("%s", change)
        self._counted = 0
        """Steps of this call of `train`."""
        self._clocked = False
        """Whether the trainer takes its batches from `iterate_batches`."""

    def iterate_batches(self, *, loop: bool = False, **arguments: Any) -> Iterator[Any]:  # noqa: ANN401
        """The trainer's own batches: for `train(..., iterate_batches=...)`.

        Args:
            loop: Whether they are for training; an evaluation ends with the data.
            arguments: What the trainer passes to its own function.

        Yields:
            The batches; no more of them if the run must stop.
        """
        batches: Iterator[Any] = trainer.iterate_batches(loop=loop, **arguments)  # type: ignore[no-untyped-call]
        if not loop:
            yield from batches
            return
        self._clocked = True
        self._reset_wired_limit()
        begun = self._counted
        for taken, batch in enumerate(batches):
            if begun + taken > self._counted:  # not counted by a report
                self._count()
            if self.guard.stop_reason is not None:
                log.warning("training ends after step %d: %s", self._counted, self.guard.stop_reason)
                return
            yield batch

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        """Count the step that has just ended, with the mean loss since the last report.

        Args:
            train_info: Of the trainer.
        """
        missing = int(train_info["iteration"]) - self._counted
        if missing > 1 and not self._clocked:
            log.warning(
                "the trainer has made %d steps since its last report, and memory was read at none of them; "
                "pass iterate_batches=callback.iterate_batches to train",
                missing,
            )
        for _ in range(missing - 1):
            self._count()
        if missing > 0:
            self._count(loss=float(train_info["train_loss"]))

    def on_val_loss_report(self, val_info: dict[str, Any]) -> None:
        """Mark an evaluation.

        Args:
            val_info: Of the trainer.
        """
        self.guard.mark("evaluation", lasted=float(val_info["val_time"]), loss=float(val_info["val_loss"]))

    def _count(self, *, loss: float | None = None) -> None:
        """Count a step."""
        self._counted += 1
        self.guard.step(loss=loss)

    def _reset_wired_limit(self) -> None:
        """Undo what the trainer has set, unless the user has asked for a limit."""
        wanted = self.guard.settings.wired_limit
        before = mx.set_wired_limit(0 if wanted is None else int(wanted))
        if before and wanted is None:
            log.warning("MLX wired memory: %s, set by mlx_lm -> 0 B", format_size(before))
