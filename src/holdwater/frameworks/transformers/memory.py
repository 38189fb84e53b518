"""A callback for the Transformers `Trainer` (and TRL's) that logs memory every N steps, and a final verdict.

    trainer = Trainer(..., callbacks=[holdwater.frameworks.transformers.memory.MemoryCallback()])

It uses the guard like any other program, so the run is judged, and stored in a folder if one is named. What it
finds is not explained: `holdwater.HoldwaterCallback` names line and holder too, and keeps a budget.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdwater.attribution.inventory import inventory
from holdwater.errors import ConfigError
from holdwater.frameworks.transformers.required import from_transformers
from holdwater.guard.guard import Guard
from holdwater.guard.settings import GuardSettings
from holdwater.units import format_size

if TYPE_CHECKING:
    TrainerCallback = object
else:
    TrainerCallback = from_transformers("TrainerCallback")

log = logging.getLogger("holdwater")


class MemoryCallback(TrainerCallback):
    """Logs resident and device memory, and the verdict at the end."""

    def __init__(self, *, every: int = 50, out: Path | str | None = None, max_memory: str | None = None) -> None:
        """Prepare.

        Args:
            every: Steps between two lines.
            out: Folder of the run; None stores nothing.
            max_memory: The budget for forecasts, such as `70GB`; None finds one.

        Raises:
            ConfigError: There is no step between two lines.
        """
        if every < 1:
            raise ConfigError(f"every is {every}, but a line needs a step; set every = 1 or more")
        self.every = every
        self.summary: dict[str, Any] | None = None
        """The judgement as JSON (schema 1), when training has ended."""
        self._out, self._max_memory = out, max_memory
        self._guard: Guard | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Begin to observe."""
        del args, control, kwargs
        settings = GuardSettings(first_step=state.global_step, set_limits=False)
        self._guard = Guard(settings, max_memory=self._max_memory, out=self._out)
        self._guard.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Observe a step."""
        del args, control, kwargs
        if self._guard is None:
            return
        self._guard.step()
        if state.global_step % self.every == 0:
            log.info("%s", self._line(state.global_step))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Judge, and log the verdict."""
        del args, state, control, kwargs
        guard, self._guard = self._guard, None
        if guard is None:
            return
        guard.__exit__(None, None, None)
        self.summary = guard.summary()
        log.info("memory: %s after %d steps", self.summary["verdict"], self.summary["steps"])
        for finding in self.summary["findings"]:
            log.info("  %s: %s: %s", finding["component"], finding["verdict"], finding["advice"])
        for line in str(inventory()).splitlines():
            log.info("  %s", line)

    def _line(self, step: int) -> str:
        """The current state as one line."""
        host, device = (0, 0) if self._guard is None else self._guard.observer.in_use()
        reserved = f", reserved on the device {format_size(device)}" if device else ""
        return f"step {step}: resident {format_size(host)}{reserved}"
