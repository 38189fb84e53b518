"""Observe the training of this process without `holdwater run`: a session here, and a watcher beside it.

What `holdwater run` finds is found, with line and holder: the same readings, questions and judgements. What only a
parent can do is missing: a script that dies before its training is not seen, and no exit status is known.
"""

import atexit
import contextlib
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from holdwater.frameworks.torch_clock import Loaders, watch_compiler
from holdwater.observe.agent.harmless import harmless
from holdwater.observe.agent.session import Session
from holdwater.observe.attached_run import FINDINGS, MARKS, READY, SUMMARY, WatchRequest
from holdwater.process.channel_folder import channel_folder
from holdwater.signal_errors import not_the_scripts, suppressed
from holdwater.standard_error import write_line
from holdwater.units import Bytes

PATIENCE = 60.0
"""Seconds that the end of a training waits at most for its judgement: a recording may have to be read."""
FIRST_PATIENCE = 5.0
"""Seconds that it waits for a watcher that has not begun yet."""
PATCHED = {
    "torch.utils.data.dataloader": ("DataLoader", "_BaseDataLoaderIter", "_MultiProcessingDataLoaderIter"),
    "torch.utils.data._utils.fetch": ("_MapDatasetFetcher", "_IterableDatasetFetcher"),
    "torch.utils.data.sampler": (),
    "torch.utils.data.distributed": (),
}
"""The modules, and the classes in them, that are hooked while a training is observed."""

Mark = Literal["evaluation", "checkpoint"]


class AttachedSession:
    """One training of this process, and what watches it."""

    def __init__(
        self,
        *,
        out: Path | None = None,
        max_memory: Bytes | None = None,
        first_step: int = 0,
        rank: int = 0,
    ) -> None:
        """Begin to observe.

        Args:
            out: The folder of the run; None keeps no history.
            max_memory: The budget, for forecasts; None finds one.
            first_step: The last step that was done before.
            rank: The number of this process among those of the run.

        Raises:
            StoreError: There is no room for the channel.
        """
        self._closing = contextlib.ExitStack()
        channel = self._closing.enter_context(channel_folder(out or Path.cwd()))
        self._folder, self._began = channel.path.parent, time.monotonic()
        self._session = Session(self._folder)
        self._session.steps = first_step
        self._undo = _hook_loaders(self._session)
        self._findings_at, self._findings = 0, list[dict[str, Any]]()
        self._pid = os.getpid()
        self.summary: dict[str, Any] | None = None
        """The judgement, when it has ended; None if there is none."""
        command = [sys.executable, "-P", "-m", "holdwater.observe.attached_run"]
        request = WatchRequest(
            folder=str(self._folder), pid=self._pid, words=tuple(sys.argv), max_memory=max_memory,
            out=None if out is None else str(out.resolve()), first_step=first_step, rank=rank,
        )  # fmt: skip
        with suppressed(OSError):
            _run_to_its_end([*command, request.as_text()])
        atexit.register(self.end)

    def step(self) -> None:
        """Count a step that has ended."""
        self._session.step("holdwater.step")

    def mark(self, kind: Mark) -> None:
        """Mark an evaluation or a checkpoint that has ended.

        Args:
            kind: Which.
        """
        session = self._session
        if kind == "evaluation":
            session.evaluations += 1
        else:
            session.checkpoints += 1
        row = json.dumps([session.steps, time.monotonic() - self._began, kind])
        with suppressed(OSError), (self._folder / MARKS).open("a", encoding="utf-8") as file:
            file.write(row + "\n")

    def findings(self) -> list[dict[str, Any]]:
        """The newest findings, as in the JSON verdict."""
        with suppressed(OSError, ValueError):
            file = self._folder / FINDINGS
            changed = file.stat().st_mtime_ns
            if changed != self._findings_at:
                self._findings = json.loads(file.read_text(encoding="utf-8"))
                self._findings_at = changed
        return self._findings

    @property
    def steps(self) -> int:
        """The step that ended last."""
        return self._session.steps

    @property
    def channel_path(self) -> Path:
        """The channel's file: remedies are recorded beside it."""
        return self._folder / "channel"

    def end(self) -> dict[str, Any] | None:
        """End observing; return the judgement as JSON (schema 1), None if there is none."""
        if os.getpid() != self._pid or self._closing is _ENDED:
            return self.summary
        closing, self._closing = self._closing, _ENDED
        atexit.unregister(self.end)
        self._undo()
        try:
            if self._has_begun():
                self._session.finish()
                self.summary = self._await_summary()
        except not_the_scripts(Exception) as error:  # the observer never kills what it observes
            write_line(f"holdwater: the end of the training could not be observed: {error!r}")
        finally:
            closing.close()
        return self.summary

    def _has_begun(self) -> bool:
        """Whether the watcher watches; wait for it if it was started a moment ago."""
        deadline = self._began + FIRST_PATIENCE
        while not (self._folder / READY).exists():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def _await_summary(self) -> dict[str, Any] | None:
        """Wait for the judgement."""
        file, deadline = self._folder / SUMMARY, time.monotonic() + PATIENCE
        while not file.exists():
            if time.monotonic() > deadline:
                return None
            time.sleep(0.005)
        summary: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return summary


_ENDED = contextlib.ExitStack()
"""In place of what is to be closed, once it was."""


def _run_to_its_end(command: list[str]) -> None:
    """Start the watcher: the process that is started leaves it, and ends."""
    subprocess.run(  # noqa: S603 - this interpreter, and a module of ours
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True, check=False
    )


def _hook_loaders(session: Session) -> Callable[[], None]:
    """Record epochs, first visits and shapes, as under `holdwater run`; return what takes the hooks away again."""
    owners: list[Any] = []
    for name, classes in PATCHED.items():
        module = importlib.import_module(name)
        owners += [module, *(found for kind in classes if (found := getattr(module, kind, None)) is not None)]
    before = [(owner, dict(vars(owner))) for owner in owners]
    loaders = Loaders(session)
    for name, hook in (
        ("torch.utils.data.dataloader", loaders.watch),
        ("torch.utils.data.sampler", loaders.watch_lengths),
        ("torch.utils.data.distributed", loaders.watch_lengths),
        ("torch.utils.data._utils.fetch", loaders.watch_workers),
        ("torch._dynamo.utils", lambda module: watch_compiler(session, module)),
    ):
        if name in sys.modules:
            _hook(hook, sys.modules[name])
    changed = [
        (owner, name, was.get(name, _ABSENT), value)
        for owner, was in before
        for name, value in dict(vars(owner)).items()
        if was.get(name, _ABSENT) is not value
    ]

    def undo() -> None:
        """Put back what nobody else has changed since."""
        for owner, name, old, ours in changed:
            if vars(owner).get(name) is not ours:
                continue
            if old is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, old)

    return undo


_ABSENT = object()


def _hook(hook: Callable[[ModuleType], None], module: ModuleType) -> None:
    """Hook a module; another version of it may lack what is hooked."""

    def failed(error: Exception) -> None:
        """Say so."""
        write_line(f"holdwater: {module.__name__} cannot be watched: {error!r}")

    harmless(hook, failed)(module)
