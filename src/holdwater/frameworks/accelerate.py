"""A guard for training loops that are written with Accelerate.

    with accelerate_guard(accelerator, max_memory="70GB", out="runs/today") as guard:
        for batch in guard.steps(loader):
            with accelerator.accumulate(model):
                ...

A step is an optimizer step: batches whose gradients are accumulated are none, several optimizers that step after
one batch are one, and a step that a loss scaler skips counts. Each process is guarded by itself. When the budget
of one is spent, all end after the same step, at most 16 steps later, and `accelerator.save_state` writes the
states of all into `accelerate` in `out`; without `out` no loop is ended.

The process is never replaced: `load_state` and `skip_first_batches` begin an epoch in the middle with other random
states than it began with, so what follows is not exact. A loop of one process continues exactly under `holdwater
run --supervise` with `holdwater.batches` over a loader that was not prepared: docs/frameworks-other.md shows it.
"""

import logging
from pathlib import Path
from typing import Any, Self

from holdwater.errors import ConfigError
from holdwater.frameworks.agreed_guard import AgreedGuard
from holdwater.signal_errors import not_the_scripts

try:
    from accelerate import Accelerator
except ImportError as missing:
    raise ImportError(
        "the guard needs Accelerate, which is not installed; write: pip install accelerate"
    ) from missing

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

log = logging.getLogger("holdwater")


class AccelerateGuard(AgreedGuard):
    """Counts the optimizer steps of Accelerate, and ends all processes together."""

    accelerator: Any
    """Given by `accelerate_guard`."""
    _stepped = False
    _step_hook: Any = None

    def __enter__(self) -> Self:
        """Begin to guard.

        Raises:
            ConfigError: The budget cannot be kept.
            StoreError: The folder of the run cannot be written.
        """
        entered = super().__enter__()
        self._step_hook = register_optimizer_step_post_hook(self._note_step)
        return entered

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Judge the whole run, store the verdict, release everything."""
        if self._step_hook is not None:
            self._step_hook.remove()
        super().__exit__(kind, error, trace)

    def has_stepped(self) -> bool:
        """Whether an optimizer has stepped since the last call, or a loss scaler has skipped that."""
        stepped, self._stepped = self._stepped, False
        return stepped or bool(self.accelerator.sync_gradients and self.accelerator.optimizer_step_was_skipped)

    def leave(self) -> None:
        """Write the states of all processes: each calls this after the same step."""
        super().leave()
        folder = Path(self.settings.out or ".") / "accelerate" / f"step-{self.step_number:08d}"
        try:
            self.accelerator.save_state(str(folder))
        except not_the_scripts(OSError, RuntimeError) as error:
            log.warning("the states cannot be written into %s: %s", folder, error)
        else:
            log.warning("continue with accelerator.load_state(%r)", str(folder))

    def _note_step(self, *_: object) -> None:
        """An optimizer has stepped."""
        self._stepped = True


def accelerate_guard(
    accelerator: "Accelerator",
    *,
    max_memory: str | None = None,
    max_host_memory: str | None = None,
    out: str | Path | None = None,
    first_step: int = 0,
) -> AccelerateGuard:
    """Make a guard for a loop that is written with Accelerate.

    Args:
        accelerator: The program's.
        max_memory: The budget of the memory in which tensors live, such as `70GB`; None finds one.
        max_host_memory: The budget of the host's memory beside a device; None finds one.
        out: The folder of the run, with its history and the states of a stop; None keeps none, and ends no loop.
        first_step: The last step that was done before.

    Raises:
        ConfigError: What is given is no accelerator.
    """
    if not isinstance(accelerator, Accelerator):
        raise ConfigError(
            f"accelerate_guard was given {type(accelerator).__name__}, which has no processes to ask; "
            "give it the Accelerator of the program"
        )
    guard = AccelerateGuard.for_rank(
        accelerator.process_index, max_memory=max_memory, max_host_memory=max_host_memory, out=out,
        first_step=first_step,
    )  # fmt: skip
    guard.accelerator, guard.processes = accelerator, accelerator.num_processes
    if out is not None:
        guard.stops_without_lever()

    def agree(stops: bool) -> bool:  # noqa: FBT001 - the answer of this process
        """Whether any process must stop."""
        said = torch.tensor(float(stops), device=accelerator.device)
        return float(accelerator.reduce(said, reduction="sum")) > 0

    guard.agree = agree
    return guard
