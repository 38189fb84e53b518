"""Count the steps of an MLX script, and the traces of its compiled functions.

A step is an update of an optimizer, or a call of a compiled function that contains one: inside `mx.compile` an
update runs only while the function is traced. A program that has made no optimizer is counted by the place that
computes gradients, or evaluates arrays, again and again: a loop that updates by hand, an evaluation, a generation.

Source: MLX documentation, "Compilation".
"""

import functools
import sys
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

from holdwater.attribution.kinds import ids_of, is_one_of
from holdwater.observe.agent.harmless import harmless
from holdwater.observe.agent.mlx_traces import FunctionTraces, traces_so_far
from holdwater.observe.agent.session import Session
from holdwater.signal_errors import suppressed

_CHOOSING = ids_of(bool, int, str)
TAKES_OVER = 20
"""Steps that another optimizer, or place, makes alone before it becomes the clock; also the first place."""
Work = Literal["update", "gradient"]


class MlxClock:
    """Counts the steps of a session by its MLX optimizer, or by what its loop repeats."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._done: dict[Work, int] = {"update": 0, "gradient": 0}
        """Updates and gradients so far, those of traces included."""
        self._first: weakref.ref[Any] | None = None
        self._new: dict[int, weakref.ref[Any]] = {}
        """Optimizers that were made since the clock's last update, by identity."""
        self._alone = 0
        self._tracing = self._updating = 0
        self._has_optimizer = False
        self._place: object = None
        self._often: dict[object, int] = {}
        """How often each place came since the clock's last step."""
        self._repeat = harmless(self._note_place)

    def watch_optimizers(self, module: ModuleType) -> None:
        """Hook the base class of all optimizers (module `mlx.optimizers.optimizers`)."""
        base, note = module.Optimizer, harmless(self._note_new)
        make = base.__init__

        @functools.wraps(make)
        def noted_make(optimizer: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
            """Make an optimizer: from now on updates are the clock."""
            self._has_optimizer = True
            make(optimizer, *args, **kwargs)
            note(optimizer)

        base.__init__ = noted_make
        for name in ("update", "apply_gradients"):  # the one calls the other
            setattr(base, name, self._counted_update(getattr(base, name)))

    def _counted_update(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """An optimizer's method that counts as an update, unless another has called it."""
        count = harmless(self._count)

        @functools.wraps(original)
        def update(optimizer: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            """Update, and count it."""
            self._updating += 1
            try:
                result = original(optimizer, *args, **kwargs)
            finally:
                self._updating -= 1
            if not self._updating:
                count(optimizer)
            return result

        return update

    def _note_new(self, optimizer: Any) -> None:  # noqa: ANN401
        """Record an optimizer that was made since the clock's last update: it replaces the clock if it updates."""
        self._new[id(optimizer)] = weakref.ref(optimizer)

    def _count(self, optimizer: Any) -> None:  # noqa: ANN401
        """Count an update of the first optimizer, of one that was made since, or of one that updates alone."""
        first = None if self._first is None else self._first()
        new = self._new.get(id(optimizer))
        replaces = new is not None and new() is optimizer
        if first is not None and first is not optimizer and not replaces:
            self._alone += 1
            if self._alone < TAKES_OVER:
                return
        if first is not optimizer:
            self._first = weakref.ref(optimizer)
        self._alone = 0
        self._new.clear()
        self._done["update"] += 1
        if not self._tracing:
            self._step()

    def watch_core(self, module: ModuleType) -> None:
        """Hook compilation, gradients and evaluation (module `mlx.core`)."""
        self._watch_compile(module)
        self._count_traces()
        for name in ("grad", "value_and_grad"):
            setattr(module, name, self._counted_gradients(getattr(module, name)))
        for name in ("eval", "async_eval"):
            setattr(module, name, self._counted_evaluation(getattr(module, name)))

    def _counted_gradients(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """A transformation whose functions count as gradients that were computed."""

        @functools.wraps(original)
        def transform(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            """Make a function that computes gradients, and count its calls."""
            function = original(*args, **kwargs)

            def call(*values: Any, **named: Any) -> Any:  # noqa: ANN401
                """Compute gradients, and count it."""
                result = function(*values, **named)
                self._done["gradient"] += 1
                if not (self._tracing or self._has_optimizer):
                    self._repeat(call)
                return result

            with suppressed(Exception):
                functools.update_wrapper(call, args[0])
            return call

        return transform

    def _counted_evaluation(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """A function that evaluates, and counts by the place that calls it."""

        @functools.wraps(original)
        def evaluate(*arrays: Any) -> None:  # noqa: ANN401
            """Evaluate, and count it."""
            original(*arrays)
            if not self._has_optimizer:
                caller = sys._getframe(1)  # noqa: SLF001 - the documented function for it
                self._repeat((caller.f_code, caller.f_lineno))

        return evaluate

    def _note_place(self, place: object) -> None:
        """Count a step at the place that is the clock; one that comes often without it takes over."""
        if self._session.source == "torch" or self._has_optimizer:
            return
        if place != self._place:
            self._often[place] = self._often.get(place, 0) + 1
            if self._often[place] < TAKES_OVER:
                return
            self._place = place
        self._often.clear()
        self._step()

    def _step(self) -> None:
        """Count a step, unless the script counts its own."""
        if self._session.source != "holdwater.step":
            self._session.step("mlx")

    def _watch_compile(self, module: ModuleType) -> None:
        """Let calls of compiled functions that contain an update count as steps, and count traces."""
        original = module.__dict__["compile"]
        begin = harmless(FunctionTraces)

        @functools.wraps(original)
        def compile_(function: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            """Compile, and count the calls."""
            compiled = original(function, *args, **kwargs)
            call = self._counted_calls(compiled, None if kwargs.get("shapeless") else begin(function))
            with suppressed(Exception):  # what can be called need not have a function's attributes
                functools.update_wrapper(call, function)
            return call

        module.__dict__["compile"] = compile_

    def _counted_calls(self, compiled: Callable[..., Any], traces: FunctionTraces | None) -> Callable[..., Any]:
        """A compiled function whose calls are counted.

        Args:
            compiled: The function.
            traces: Receives what it is traced for; None if that does not depend on shapes.
        """
        holds: dict[tuple[Any, ...], Work] = {}
        count, note = harmless(self._count_call), harmless(self._note_trace)

        def call(*values: Any, **named: Any) -> Any:  # noqa: ANN401
            """Call, and count it if it contains an update."""
            before = dict(self._done)
            self._tracing += 1
            try:
                result = compiled(*values, **named)
            finally:
                self._tracing -= 1
            if traces is not None and not self._tracing:
                note(traces, [*values, *named.values()])
            count(call, before, values, holds)
            return result

        return call

    def _note_trace(self, traces: FunctionTraces, values: list[Any]) -> None:
        """Record whether a call was traced."""
        traces.note(values, self._session.steps)

    def _count_call(
        self, call: object, before: dict[Work, int], values: tuple[Any, ...], holds: dict[tuple[Any, ...], Work]
    ) -> None:
        """Count a call of a compiled function that contains an update, or computes gradients.

        Args:
            call: The function.
            before: Updates and gradients before it.
            values: Its arguments: an argument that is a number or a text chooses another trace.
            holds: Receives the arguments of the calls that contain either.
        """
        key = tuple(value if is_one_of(value, _CHOOSING) else None for value in values)
        for work in ("gradient", "update"):
            if self._done[work] > before[work]:
                holds[key] = work
        if self._tracing or key not in holds:
            return
        if holds[key] == "update":
            self._step()
        elif not self._has_optimizer:
            self._note_place(call)

    def _count_traces(self) -> None:
        """Report traces beside what another framework compiles."""
        others = self._session.compiles
        self._session.compiles = lambda: traces_so_far() + (0 if others is None else others())
