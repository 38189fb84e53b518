"""Resume any PyTorch script exactly where an earlier process stopped, under `holdwater run --supervise`.

    holdwater.resumable("model", model)
    holdwater.resumable("optimizer", optimizer)
    for step in holdwater.steps(3000):
        ...

Without a supervisor the loop is a plain `range`, and nothing is stored. Random states of Python, NumPy and
PyTorch are kept automatically.
"""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NoReturn

from holdwater.errors import CheckpointError, ConfigError
from holdwater.exit_codes import STOPPED
from holdwater.observe.agent import session as sessions
from holdwater.process.restart_context import RestartContext, only_here, reason_file, stop_received, stop_soon
from holdwater.store.checkpoints import Checkpoint, CheckpointFolder
from holdwater.store.lock import hold
from holdwater.supervise.budget_callback import BudgetCallback
from holdwater.supervise.replaceable_steps import go_on_from, replaceable_step

USUAL: dict[int, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
"""The signals that end the run after a step, where the script leaves them to Python: with Python's handlers."""
TRY_AGAIN = 30.0
"""Seconds after a replacement that found no space for its checkpoint, before another is tried."""


class Resumption:
    """The registered states of this process, and where they are stored."""

    def __init__(self, restart: RestartContext | None) -> None:
        self.things: dict[str, Any] = {}
        self.restart = restart
        self.begun = self._said = False
        self._held = ExitStack()
        self._recycling = None if restart is None else BudgetCallback(restart)
        self._stop: str | None = None
        self._handlers: dict[int, Any] = {}
        """Our handlers of signals, while the loop runs."""
        self._try_again_at = 0.0
        self._saved_at = time.monotonic()
        if restart is not None:
            self._in_memory = CheckpointFolder(Path(restart.in_memory) / "checkpoints", keep=1)
            self._durable = CheckpointFolder(
                Path(restart.out) / "checkpoints", keep=int(restart.settings.get("keep_checkpoints", 3))
            )

    def register(self, name: str, thing: object) -> None:
        """Keep the state of an object.

        Args:
            name: Its unique name.
            thing: As for `holdwater.resumable`.

        Raises:
            ConfigError: The name is taken, the loop has begun, or the object has no state that can be kept.
        """
        from holdwater.resume.state_codec import state_of  # noqa: PLC0415 - imports torch

        if name in self.things or not name:
            raise ConfigError(f"holdwater.resumable({name!r}, ...): the name is taken; give each its own")
        if self.begun:
            raise ConfigError(f"holdwater.resumable({name!r}, ...) comes after the loop began; call it before")
        state_of(thing, name)
        self.things[name] = thing

    def begin(self) -> int:
        """Restore the states of an earlier process; return the number of steps that were done.

        Raises:
            ConfigError: What was stored does not fit what is registered.
            CheckpointError: The first checkpoint cannot be written.
        """
        self.begun = True
        session = sessions.current()
        if self.restart is None or session is None:
            return 0
        self._take_signals()
        self._held.enter_context(hold(Path(self.restart.out), sessions.say))
        session.channel.put("resumable", 1)
        if self._recycling is not None:
            self._recycling.look_after(session)
        session.budget_callback = None  # this loop handles memory itself
        found = [one for one in (self._in_memory.newest(sessions.say), self._durable.newest(sessions.say)) if one]
        newest = max(found, key=lambda one: one.step, default=None)
        if newest is None:
            self._save(self._durable, 0)
            go_on_from(session, 0)
            return 0
        self._restore(newest)
        go_on_from(session, newest.step)
        return newest.step

    def end_step(self, step: int, *, last: bool) -> None:
        """A step has ended: keep the state if it is due, and end this process if another is to continue.

        Args:
            step: Steps done.
            last: Whether it was the last step.

        Raises:
            SystemExit: The run was asked to stop; its state is kept.
        """
        session, restart, recycling = sessions.current(), self.restart, self._recycling
        if restart is None or session is None or recycling is None:
            sessions.step()
            return
        replaceable_step(session, recycling.in_use)
        if self._stop is not None:
            self._end_stopped(step)
        due = recycling.is_due(step, time.monotonic() - self._saved_at)
        saved = due and self._keeps(self._durable, step)
        ending = None if last else recycling.end(step)
        if ending is not None and ending.recycled:
            if saved or self._keeps_for_next(step):
                self._leave(ending.reason)
        elif ending is not None:
            self._stop = ending.reason
            self._end_stopped(step)

    def _end_stopped(self, step: int) -> NoReturn:
        """Keep the state, and end the script: the run was stopped."""
        self._keeps(self._durable, step)
        out = "" if self.restart is None else self.restart.out
        sessions.say(f"stopped at step {step}: {self._stop}; continue with --resume --out {out}")
        raise SystemExit(STOPPED)

    def finish(self, step: int) -> None:
        """The loop has ended: keep its last state."""
        if self.restart is not None:
            self._keeps(self._durable, step)
            self.give_signals_back()

    def _keeps(self, folder: CheckpointFolder, step: int) -> bool:
        """Write a checkpoint; False if that is not possible, which is said once: the script goes on."""
        try:
            self._save(folder, step)
        except CheckpointError as error:
            if folder is self._durable:
                self._saved_at = time.monotonic()  # not tried again at each step
                if not self._said:
                    sessions.say(f"{error}; the script goes on without it")
                self._said = True
            return False
        return True

    def _keeps_for_next(self, step: int) -> bool:
        """Write a checkpoint for a process that follows; False if it is not, or lately was not, possible."""
        if time.monotonic() < self._try_again_at:
            return False
        kept = self._keeps(self._in_memory, step) or self._keeps(self._durable, step)
        self._try_again_at = 0.0 if kept else time.monotonic() + TRY_AGAIN
        return kept

    def _leave(self, reason: str) -> NoReturn:
        """End: the state is kept for the next process."""
        session, restart = sessions.current(), self.restart
        if session is None or restart is None:
            raise RuntimeError("no supervisor has started this process")
        with suppress(OSError):  # no space for it
            reason_file(restart.channel_path).write_text(reason, encoding="utf-8")
        session.channel.put("in_use", self._recycling.in_use() if self._recycling else 0)
        self._held.close()
        raise sessions.GoOn

    def _save(self, folder: CheckpointFolder, step: int) -> None:
        """Write a checkpoint.

        Args:
            folder: Its folder.
            step: Steps done.

        Raises:
            CheckpointError: It cannot be written.
            ConfigError: A state cannot be kept exactly.
        """
        from safetensors.torch import save_file  # noqa: PLC0415 - imports torch

        from holdwater.random_states import random_states  # noqa: PLC0415
        from holdwater.resume.exactness import exactness  # noqa: PLC0415
        from holdwater.resume.state_codec import encode, state_of  # noqa: PLC0415

        tensors: dict[str, Any] = {}
        states = {
            name: encode(state_of(thing, name), name, tensors) for name, thing in sorted(self.things.items())
        }
        random = random_states()
        files = {"random.safetensors": lambda path: save_file(random, path)}
        if tensors:
            files["state.safetensors"] = lambda path: save_file(tensors, path)
        folder.write(step, files, {"states": states, "exactness": exactness()}, best=False)
        self._saved_at = time.monotonic()

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Restore all states."""
        from safetensors.torch import load_file  # noqa: PLC0415 - imports torch

        from holdwater.random_states import restore_random_states  # noqa: PLC0415
        from holdwater.resume.exactness import restore_exactness  # noqa: PLC0415
        from holdwater.resume.state_codec import decode, set_state  # noqa: PLC0415

        states = checkpoint.state["states"]
        if states.keys() != self.things.keys():
            raise ConfigError(
                f"{checkpoint.folder} holds the states of {', '.join(states) or 'nothing'}, but this script "
                f"registers {', '.join(self.things) or 'nothing'}; register the same objects under the same names"
            )
        for remark in restore_exactness(checkpoint.state["exactness"]):
            sessions.say(remark)
        file = checkpoint.folder / "state.safetensors"
        tensors = load_file(file) if file.exists() else {}
        for name, thing in self.things.items():
            set_state(thing, name, decode(states[name], tensors))
        restore_random_states(load_file(checkpoint.folder / "random.safetensors"))

    def _take_signals(self) -> None:
        """Let SIGTERM and SIGINT end the run after its step, unless the script has its own handlers."""

        def stop(reason: str) -> None:
            """Stop after this step."""
            self._stop = reason

        handler = only_here(stop_soon(stop, lambda: self._stop is not None))
        for number, usual in USUAL.items():
            if signal.getsignal(number) == usual:
                signal.signal(number, handler)
                self._handlers[number] = handler
        self._report_handlers()

    def give_signals_back(self) -> None:
        """The loop has ended: signals do again what they did before it; one that came too late does so now."""
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == handler:
                signal.signal(number, USUAL[number])
        handled, self._handlers = set(self._handlers), {}
        self._report_handlers()
        late = stop_received()
        if self._stop is not None and late in handled:
            signal.raise_signal(late)

    def _report_handlers(self) -> None:
        """Report to the supervisor whether this process ends by itself when it is asked to stop."""
        session = sessions.current()
        if session is not None:
            session.channel.put("takes_stops", int(signal.SIGTERM in self._handlers))


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
            random generator of Python, NumPy or PyTorch; or a dictionary of numbers, strings, tensors and arrays.

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
        CheckpointError: The first checkpoint cannot be written.
        GeneratorExit: The script leaves the loop.
    """
    resumption = current()
    for step in range(resumption.begin(), total):
        try:
            yield step
        except GeneratorExit:  # the script leaves the loop
            resumption.give_signals_back()
            raise
        resumption.end_step(step + 1, last=step + 1 == total)
    resumption.finish(total)


if sys.platform == "win32":
    raise ImportError("a supervised run needs POSIX signals and processes")
