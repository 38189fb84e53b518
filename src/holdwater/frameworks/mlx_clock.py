"""Count the steps of an MLX script: optimizer updates, and calls of a compiled function that contains one.

Inside `mx.compile` an update runs only while the function is traced; afterwards calls of the compiled function
count. Source: MLX documentation, "Compilation".
"""

import functools
from types import ModuleType
from typing import Any

from holdwater.observe.agent.session import Session


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
            if self._first is None:
                self._first = id(optimizer)
            if self._first == id(optimizer):
                self._updates += 1
                if not self._tracing:
                    self._session.step("mlx")
            return result

        module.Optimizer.update = update

    def watch_compile(self, module: ModuleType) -> None:
        """Let calls of compiled functions that contain an update count as steps (module `mlx.core`)."""
        original = module.compile

        @functools.wraps(original)
        def compile_(function: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            """Compile, and count the calls that contain an update."""
            compiled = original(function, *args, **kwargs)
            holds: set[tuple[Any, ...]] = set()

            @functools.wraps(function)
            def call(*values: Any, **named: Any) -> Any:  # noqa: ANN401
                """Call, and count it if it contains an update."""
                before = self._updates
                self._tracing += 1
                try:
                    result = compiled(*values, **named)
                finally:
                    self._tracing -= 1
                key = tuple(value if isinstance(value, bool | int | str) else None for value in values)
                if self._updates > before:
                    holds.add(key)
                if key in holds and not self._tracing:
                    self._session.step("mlx")
                return result

            return call

        module.__dict__["compile"] = compile_
