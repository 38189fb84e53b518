"""Resume any PyTorch script exactly where an earlier process stopped, under `holdwater run --supervise`.

    holdwater.resumable("model", model)
    holdwater.resumable("optimizer", optimizer)
    for step in holdwater.steps(3000):
        ...

Without a supervisor the loop is a plain `range`, and nothing is stored. Random states of Python, NumPy and
PyTorch are kept automatically.
"""

import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from holdwater.deferred_signals import DeferredSignals
from holdwater.errors import CheckpointError, ConfigError
from holdwater.exit_codes import STOPPED
from holdwater.observe.agent import session as sessions
from holdwater.process.restart_context import (
    NOT_REPLACED,
    RestartContext,
    flush_each,
    flush_open_files,
    leave_at_once,
    reason_file,
    refusal_file,
)
from holdwater.resume.live_variables import why_unknown
from holdwater.resume.stop_signals import StopSignals
from holdwater.signal_errors import suppressed
from holdwater.store.checkpoints import Checkpoint, CheckpointFolder
from holdwater.store.lock import hold
from holdwater.supervise.budget_callback import BudgetCallback
from holdwater.supervise.replaceable_steps import go_on_from, replaceable_step

if TYPE_CHECKING:
    from holdwater.resume.unregistered import Unregistered

TRY_AGAIN = 30.0
"""Seconds after a replacement that found no space for its checkpoint, before another is tried."""
BATCHES = "holdwater.batches"
"""The name under which the position in a loader is registered."""
NOTHING = (
    "nothing is registered that a fresh process could go on with; register the script's state with "
    "holdwater.resumable(name, object)"
)


class Resumption:
    """The registered states of this process, and where they are stored."""

    def __init__(self, restart: RestartContext | None) -> None:
        self.things: dict[str, Any] = {}
        self.restart = restart
        self.begun = self._said = False
        self._loop: Callable[[], object] = lambda: None
        """The generator that the script iterates over."""
        self.refused: str | None = None
        """Why this process is not replaced."""
        self._unneeded: set[str] = set()
        self._beside: list[object] = []
        self._checks: list[Callable[[], str | None]] = [why_unknown]
        self._unregistered: Unregistered | None = None
        self._held = ExitStack()
        self._recycling = None if restart is None else BudgetCallback(restart)
        self._budget_callback: Callable[[int], str | None] | None = None
        self.signals = StopSignals()
        self._try_again_at = 0.0
        self._saved_at = time.monotonic()
        if restart is not None:
            self._in_memory = CheckpointFolder(Path(restart.in_memory) / "checkpoints", keep=1)
            self._durable = CheckpointFolder(
                Path(restart.out) / "checkpoints", keep=int(restart.settings.get("keep_checkpoints", 3))
            )

    @property
    def is_replaceable(self) -> bool:
        """Whether this process may be replaced by a fresh one."""
        return self.restart is not None and sessions.current() is not None and self.refused is None

    def register(self, name: str, thing: object) -> None:
        """Keep the state of an object.

        Args:
            name: Its unique name.
            thing: As for `holdwater.resumable`.

        Raises:
            ConfigError: The name is taken, the loop has begun, or the object has no state that can be kept.
        """
        with DeferredSignals():  # they import torch; what the loop will need is loaded before its first step
            from holdwater.resume import inputs, stored_states, unregistered  # noqa: F401, PLC0415
            from holdwater.resume.state_codec import state_of  # noqa: PLC0415

        if name in self.things or not name:
            raise ConfigError(f"holdwater.resumable({name!r}, ...): the name is taken; give each its own")
        if self.begun:
            raise ConfigError(f"holdwater.resumable({name!r}, ...) comes after the loop began; call it before")
        if thing is None:
            self._unneeded.add(name)
            return
        state_of(thing, name)
        self.things[name] = thing

    def iterate(self, loop: Iterator[Any]) -> Iterator[Any]:
        """Take note of the generator that the script iterates over; of two nested ones, the outer one.

        Args:
            loop: The generator.
        """
        if self._loop() is None:
            self._loop = weakref.ref(loop)
        return loop

    def keep_beside(self, parts: list[object], check: Callable[[], str | None]) -> None:
        """Take note of what a registered object keeps besides itself, and of when it cannot be kept.

        Args:
            parts: Objects whose states are kept with it.
            check: Returns why a fresh process could not continue exactly; None if it can.
        """
        self._beside += parts
        self._checks.append(check)

    def begin(self) -> int:
        """Restore the states of an earlier process; return the number of steps that were done.

        Raises:
            ConfigError: What was stored does not fit what is registered.
        """
        again, self.begun = self.begun, True
        session = sessions.current()
        if self.restart is None or session is None or self.refused is not None:
            return 0
        if (reason := self._why_not_at_all(again=again)) is not None:
            self._refuse(reason, lasting=not again)
            return 0
        self.signals.take()
        self._held.enter_context(hold(Path(self.restart.out), sessions.say))
        session.channel.put("resumable", 1)
        if self._recycling is not None:
            self._recycling.look_after(session)
        # this loop keeps the budget
        self._budget_callback, session.budget_callback = session.budget_callback, None
        found = [one for one in (self._in_memory.newest(sessions.say), self._durable.newest(sessions.say)) if one]
        newest = max(found, key=lambda one: one.step, default=None)
        if newest is not None:
            from holdwater.resume.stored_states import restore  # noqa: PLC0415 - imports torch

            for remark in restore(self.things, newest):
                sessions.say(remark)
        self._watch_variables()
        self._begin_from(newest)
        done = 0 if newest is None else newest.step
        go_on_from(session, done)
        return done

    def _begin_from(self, checkpoint: Checkpoint | None) -> None:
        """Write the first checkpoint, or find out whether this process has the data of the one before.

        Args:
            checkpoint: What was restored; None if nothing was.
        """
        from holdwater.resume.inputs import compare_inputs  # noqa: PLC0415 - imports torch

        if checkpoint is not None and self._unregistered is not None:
            compare_inputs(checkpoint.state.get("inputs", {}), self._unregistered.leaves)
        if checkpoint is None:
            try:
                self._save(self._durable, 0)
            except CheckpointError as error:
                self._miss(error)

    def end_step(self, step: int, *, last: bool) -> None:
        """A step has ended: keep the state if it is due, and end this process if another is to continue.

        Args:
            step: Steps done.
            last: Whether it was the last step.

        Raises:
            SystemExit: The run was asked to stop; its state is kept.
        """
        session, recycling = sessions.current(), self._recycling
        if session is None or recycling is None or not self.is_replaceable:
            sessions.step()
            return
        replaceable_step(session, recycling.in_use)
        if self.signals.stop is not None:
            self._end_stopped(step)
        due = recycling.is_due(step, time.monotonic() - self._saved_at)
        saved = due and self._keep(step)
        ending = None if last or self.refused is not None else recycling.end(step)
        if ending is not None and ending.recycled:
            if saved or self._keep_for_next(step):
                self._leave(ending.reason)
        elif ending is not None:
            self.signals.stop = ending.reason
            self._end_stopped(step)

    def _end_stopped(self, step: int) -> NoReturn:
        """Keep the state, and end the script: the run was stopped."""
        out = "" if self.restart is None else self.restart.out
        kept = self._keep(step)
        end = f"; continue with --resume --out {out}" if kept else ", without a checkpoint of this step"
        sessions.say(f"stopped at step {step}: {self.signals.stop}{end}")
        raise SystemExit(STOPPED)

    def finish(self, step: int) -> None:
        """The loop has ended: keep its last state, and find out whether a fresh process could begin after it."""
        if self.is_replaceable and self._keep(step) and self._unregistered is not None:
            reason = self._unregistered.changed(leaves_loop=True)
            if reason is not None:
                self._note_refusal(reason)
        self.signals.give_back()

    def _leave(self, reason: str) -> None:
        """End: the state is kept for the next process.

        The script is not unwound: its `except` and `finally` belong to the end of the run.

        Raises:
            RuntimeError: No supervisor has started this process.
        """
        session, restart = sessions.current(), self.restart
        if session is None or restart is None:
            raise RuntimeError("no supervisor has started this process")
        with suppressed(OSError):  # no space for it
            reason_file(restart.channel_path).write_text(reason, encoding="utf-8")
        session.channel.put("in_use", self._recycling.in_use() if self._recycling else 0)
        self._held.close()
        leave_at_once(restart, session.steps, session.channel)

    def _keep(self, step: int, *, in_memory: bool = False) -> bool:
        """Write a checkpoint if a fresh process could continue from it exactly; return whether it was written."""
        reason = self._why_not_now()
        if reason is not None:
            self._refuse(reason)
            return False
        return (in_memory and self._keep_in(self._in_memory, step)) or self._keep_in(self._durable, step)

    def _keep_in(self, folder: CheckpointFolder, step: int) -> bool:
        """Write a checkpoint; False if that is not possible, which is said once: the script goes on."""
        try:
            self._save(folder, step)
        except ConfigError as error:
            if self.refused is None:
                self._refuse(str(error))
            return False
        except CheckpointError as error:
            if folder is self._durable:
                self._miss(error)
            return False
        return True

    def _miss(self, error: CheckpointError) -> None:
        """Say once that a checkpoint could not be written; it is not tried again at each step."""
        self._saved_at = time.monotonic()
        if not self._said:
            sessions.say(f"{error}; the script goes on without it")
        self._said = True

    def _keep_for_next(self, step: int) -> bool:
        """Write a checkpoint for a process that follows; False if it is not, or lately was not, possible."""
        if time.monotonic() < self._try_again_at:
            return False
        kept = self._keep(step, in_memory=True)
        self._try_again_at = 0.0 if kept else time.monotonic() + TRY_AGAIN
        return kept

    def _why_not_at_all(self, *, again: bool) -> str | None:
        """Why this process cannot be replaced in a loop that begins; None if it can."""
        if threading.current_thread() is not threading.main_thread():
            return "the loop runs in a thread, and a fresh process could begin only in the main thread"
        if again:
            return "this is the second loop over holdwater.steps; only in the first is a process replaced"
        if not self.things.keys() - {BATCHES}:
            return NOTHING
        return self._why_not_now()

    def _why_not_now(self) -> str | None:
        """Why a fresh process could not continue exactly after this step; None if it can."""
        reason = next((reason for check in self._checks if (reason := check())), None)
        if reason is None and self._unregistered is not None:
            reason = self._unregistered.changed(self._loop())
        return reason

    def _watch_variables(self) -> None:
        """Record what the script needs in addition to what is registered."""
        from holdwater.resume.unregistered import Unregistered  # noqa: PLC0415 - imports torch

        self._unregistered = Unregistered(self.things, self._unneeded, self._beside)

    def _refuse(self, reason: str, *, lasting: bool = True) -> None:
        """Let the script go on in this process alone, as it would without us.

        Args:
            reason: Why.
            lasting: Whether it is not started again after a death either.
        """
        session, self.refused = sessions.current(), reason
        sessions.say(NOT_REPLACED + reason)
        self.signals.give_back()
        if session is not None and self._budget_callback is not None:
            session.budget_callback = self._budget_callback
        if lasting:
            self._note_refusal(reason)

    def _note_refusal(self, reason: str) -> None:
        """Tell the supervisor that no other process could go on."""
        session, restart = sessions.current(), self.restart
        if session is not None and restart is not None:
            session.channel.put("resumable", 0)
            with suppressed(OSError):
                refusal_file(restart.channel_path).write_text(reason, encoding="utf-8")

    def _save(self, folder: CheckpointFolder, step: int) -> None:
        """Write a checkpoint."""
        from holdwater.resume.stored_states import save  # noqa: PLC0415 - imports torch

        if folder is self._durable:  # what was written before a checkpoint must not be lost with this process
            flush_open_files()
        else:  # the process ends at once, and flushes the others
            flush_each((sys.stdout, sys.stderr))
        seed = 0 if self.restart is None else int(self.restart.settings.get("seed", 0))
        inputs = {} if self._unregistered is None else self._unregistered.inputs
        save(self.things, folder, step, inputs=inputs, seed=seed)
        self._saved_at = time.monotonic()


_resumption: Resumption | None = None


def current() -> Resumption:
    """The states of this process."""
    global _resumption  # noqa: PLW0603 - a process has one
    if _resumption is None:
        _resumption = Resumption(RestartContext.taken())
    return _resumption


def resumable(name: str, thing: object) -> None:
    """Register an object whose state a fresh process needs to continue exactly.

    Args:
        name: Its unique name, the same in each process of the run.
        thing: A model, an optimizer, a schedule, a sampler: whatever has `state_dict` and `load_state_dict`; a
            module or an optimizer of MLX; a random generator of Python, NumPy or PyTorch; or a dictionary of
            numbers, strings, tensors and arrays.
            None, with the name of a variable, says that a fresh process may begin without what the loop has
            changed in it, such as a cache.

    Raises:
        ConfigError: The name is taken, the loop has begun, or the object cannot be resumed exactly.
    """
    current().register(name, thing)


def steps(total: int) -> Iterator[int]:
    """Count the steps of a training loop, from the first one that is not done yet.

    Under `holdwater run --supervise` the registered states are restored before the first one; between two steps
    the process may be replaced by a fresh one. Elsewhere this is `range(total)`, with `holdwater.step()` after
    each.

    Args:
        total: Steps of the whole run.

    Yields:
        The number of the step, from 0.

    Raises:
        ConfigError: A registered state cannot be kept or restored exactly.
        GeneratorExit: The script leaves the loop.
    """
    return current().iterate(_steps(total))


def _steps(total: int) -> Iterator[int]:
    """Count the steps of a training loop."""
    resumption = current()
    for step in range(resumption.begin(), total):
        try:
            yield step
        except GeneratorExit:  # the script leaves the loop
            resumption.signals.give_back()
            raise
        resumption.end_step(step + 1, last=step + 1 == total)
    resumption.finish(total)


if sys.platform == "win32":
    raise ImportError("a supervised run needs POSIX signals and processes")
