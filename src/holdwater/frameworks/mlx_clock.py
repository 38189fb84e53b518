"""Count the steps of an MLX script: optimizer updates, and calls of a compiled function that contains one.

Inside `mx.compile` an update runs only while the function is traced; afterwards calls of the compiled function
count. Source: MLX documentation, "Compilation".
"""

import functools
from types import ModuleType
from typing import Any

from holdwater.attribution.kinds import ids_of, is_one_of
from holdwater.observe.agent.harmless import harmless
from holdwater.observe.agent.session import Session
from holdwater.signal_errors import suppressed

_CHOOSING = ids_of(bool, int, str)


class MlxClock:
    """Counts the updates of the first MLX optimizer of a session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._updates = 0
        self._first: int | None = None
        self._tracing = 0

    def watch_optimizers(self, module: ModuleType) -> None:
        """Hook the base class of all optimizers (module `mlx.optimizers.optimizers`)."""
        original = module.Optimizer.update

        @functools.wraps(original)
        def update(optimizer: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            """Update, and count it."""
            result = original(optimizer, *args, **kwargs)
            count(optimizer)
            return result

        count = harmless(self._count)
        module.Optimizer.update = update

    def _count(self, optimizer: Any) -> None:  # noqa: ANN401
        """Count an update of the first optimizer."""
        if self._first is None:
            self._first = id(optimizer)
        if self._first == id(optimizer):
            self._updates += 1
            self._step()

    def watch_compile(self, module: ModuleType) -> None:
        """Let calls of compiled functions that contain an update count as steps (module `mlx.core`)."""
        original = module.compile

        @functools.wraps(original)
        def compile_(function: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            """Compile, and count the calls that contain an update."""
            compiled = original(function, *args, **kwargs)
            holds: set[tuple[Any, ...]] = set()

            def call(*values: Any, **named: Any) -> Any:  # noqa: ANN401
                """Call, and count it if it contains an update."""
                before = self._updates
                self._tracing += 1
                try:
                    result = compiled(*values, **named)
                finally:
                    self._tracing -= 1
                count(before, values, holds)
                return result

            with suppressed(Exception):  # what can be called need not have a function's attributes
                functools.update_wrapper(call, function)
            return call

        count = harmless(self._count_call)

        module.__dict__["compile"] = compile_

    def _count_call(self, before: int, values: tuple[Any, ...], holds: set[tuple[Any, ...]]) -> None:
        """Count a call of a compiled function that contains an update.

        Args:
            before: Updates before it.
            values: Its arguments: an argument that is a number or a text chooses another trace.
            holds: Receives the arguments of the calls that contain an update.
        """
        key = tuple(value if is_one_of(value, _CHOOSING) else None for value in values)
        if self._updates > before:
            holds.add(key)
        if key in holds:
            self._step()

    def _step(self) -> None:
        """Count a step, unless a function is being traced, or the script counts its steps itself."""
        if not self._tracing and self._session.source != "holdwater.step":
            self._session.step("mlx")
