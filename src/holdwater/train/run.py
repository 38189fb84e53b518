"""Train from scratch, from a configuration to an exit code: set up, run the loop, leave a report."""

import importlib
import logging
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import holdwater
from holdwater.actions.levers import Levers
from holdwater.config import Config
from holdwater.errors import CheckpointError, ConfigError, RunFolderError, StoreError
from holdwater.guard.guard import Guard
from holdwater.guard.settings import GuardSettings
from holdwater.store.checkpoints import CheckpointFolder, read_checkpoint
from holdwater.store.history import read_history
from holdwater.train.loop import Loop
from holdwater.train.run_folder import RunFolder, hold
from holdwater.train.screen import Pace, open_screen
from holdwater.train.settings import TrainSettings, train_settings
from holdwater.train.state import TrainState, new_state
from holdwater.train.text import find_files, read_text, tokenise

log = logging.getLogger("holdwater")

RESUMABLE = 75
"""The exit code of a run that stopped on purpose and can be resumed."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended."""

    exit_code: int
    summary: dict[str, Any]
    """The judgement as JSON (schema 1), without command and exit code."""


def train(config: Config, folder: RunFolder, *, command: Sequence[str], callback: str | None = None) -> Result:
    """Train a model as configured.

    Args:
        config: The gathered configuration.
        folder: Where the run lies.
        command: What the user typed, for the record.
        callback: `module:function`, called with the guard after each step.

    Returns:
        The exit code and the judgement.

    Raises:
        ConfigError: A setting cannot work here.
        DataError: The text cannot be trained on.
        RunFolderError: The folder cannot be used, or holds a run with other settings.
        CheckpointError: No checkpoint can be written at all.
    """
    function = None if callback is None else find_callback(callback)
    with hold(folder.out):
        return _train(config, folder, command, function)


def _train(
    config: Config, folder: RunFolder, command: Sequence[str], function: Callable[[Guard], None] | None
) -> Result:
    """Train in a folder that no other process uses."""
    settings = train_settings(config, folder.out)
    torch.set_num_threads(settings.threads)
    text = read_text(find_files(settings.data))
    tokens = tokenise(
        text, settings.level, validation_share=settings.validation_share, length=settings.train_seq_length
    )
    del text
    state = new_state(settings, tokens)
    checkpoints = CheckpointFolder(folder.checkpoints, keep=settings.keep_checkpoints)
    if folder.resume:
        _resume(state, checkpoints, folder, threads=settings.threads)
    if state.step >= settings.steps:
        return _nothing_left(state.step, folder)
    _write_config(config, folder.out / "config.yaml")
    levers = Levers(checkpoint=lambda: loop.save())  # noqa: PLW0108 - the loop is made below
    guard = Guard(_guard_settings(config, settings, state.step), levers=levers)
    guard.facts = _facts(command, settings, state)
    with guard:
        _say_limits(guard)
        pace = Pace(first_step=state.step, steps=settings.steps, tokens_in_step=settings.tokens_in_step)
        loop = Loop(settings, state, tokens, checkpoints, guard, open_screen(pace), function)
        exit_code = _run(loop)
    summary = guard.summary()
    write_report(folder.out)
    return Result(exit_code, summary)


def _write_config(config: Config, path: Path) -> None:
    """Write the configuration as it was resolved."""
    try:
        path.write_text(config.as_yaml(), encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"{path} cannot be written: {error.strerror}") from error


def find_callback(name: str) -> Callable[[Guard], None]:
    """Import the function that `--callback` names.

    Args:
        name: `module:function`; modules in the working folder are found.

    Returns:
        The function.

    Raises:
        ConfigError: There is no such module or function.
    """
    module, _, function = name.partition(":")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as `python -m` does
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"--callback {name}: {error}; write module:function, both importable from here"
        ) from None
    if not callable(found):
        raise ConfigError(f"--callback {name} is no function; write module:function")
    return found  # type: ignore[no-any-return] # what a user's module holds


def _resume(state: TrainState, checkpoints: CheckpointFolder, folder: RunFolder, *, threads: int) -> None:
    """Go on from the named checkpoint, or from the newest whole one; start afresh where there is none."""
    if folder.checkpoint is not None:
        try:
            checkpoint = read_checkpoint(folder.checkpoint)
        except CheckpointError as error:
            raise RunFolderError(f"--resume: {error}; name another, or the folder of the run") from None
    else:
        found = checkpoints.newest(log.warning)
        if found is None:
            log.info("%s has no whole checkpoint: the run starts afresh", folder.out)
            return
        checkpoint = found
    for remark in state.load(checkpoint):
        log.warning(remark)
    if torch.get_num_threads() != threads:
        log.warning(
            "going on with %d threads, as the run began, and not with %d: the rest is exact only so",
            torch.get_num_threads(),
            threads,
        )
    log.info("going on from step %d (%s)", state.step, checkpoint.folder)


def _run(loop: Loop) -> int:
    """Run the loop; return 0, or 75 when it stopped on purpose or could not write a checkpoint."""
    with _stop_on_signals(loop.guard):
        try:
            if loop.state.step == 0:
                loop.save()  # a folder that cannot hold a checkpoint is found out now, not at hour nine
        except CheckpointError as error:
            raise RunFolderError(f"{error}; free some space or name another folder with --out") from error
        try:
            loop.run()
        except CheckpointError as error:
            newest = loop.checkpoints.newest(log.warning)
            place = "there is no whole one" if newest is None else f"the newest whole one is step {newest.step}"
            log.error("%s; %s: free some space, then go on with --resume", error, place)  # noqa: TRY400
            loop.guard.stop("a checkpoint could not be written")
        finally:
            loop.screen.close()
    if loop.guard.stop_reason is not None:
        log.warning(
            "stopped at step %d: %s; go on with: holdwater train --out %s --resume",
            loop.state.step,
            loop.guard.stop_reason,
            loop.settings.out,
        )
        return RESUMABLE
    return 0


@contextmanager
def _stop_on_signals(guard: Guard) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM end the run after its step, with a checkpoint; a second one ends it now."""

    def stop(number: int, _frame: object) -> None:
        if guard.stop_reason is not None:
            raise KeyboardInterrupt
        guard.stop(f"it received {signal.Signals(number).name}")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _guard_settings(config: Config, settings: TrainSettings, step: int) -> GuardSettings:
    """The guard's part of the configuration."""
    return GuardSettings(
        max_memory=config["max_memory"],
        leak_threshold=config["memory_leak_threshold_mb"],
        threshold=config["memory_threshold_percentage"],
        waiting_below=config["waiting_below"],
        stopping_below=config["stopping_below"],
        cache_clear_interval=config["periodic_cache_clear_interval"],
        device=settings.device,
        out=settings.out,
        first_step=step,
    )


def _facts(command: Sequence[str], settings: TrainSettings, state: TrainState) -> dict[str, Any]:
    """What the store says of this process."""
    return {
        "command": list(command),
        "holdwater": holdwater.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {settings.threads} threads, {settings.device}",
        "preset": settings.preset,
        "parameters": sum(parameter.numel() for parameter in state.model.parameters()),
        "steps": settings.steps,
        "tokens_in_step": settings.tokens_in_step,
    }


def _say_limits(guard: Guard) -> None:
    """Print the budget, where it comes from, and what was set."""
    log.info("%s", guard.budget)
    for change in guard.limits:
        log.info("%s", change)


def _nothing_left(steps: int, folder: RunFolder) -> Result:
    """A run that has all its steps already keeps its judgement."""
    log.info("%s has its %d steps already: nothing to do", folder.out, steps)
    try:
        summary = read_history(folder.out).summary
    except StoreError:
        summary = None
    return Result(0, summary or {})


def write_report(out: Path) -> None:
    """Write the HTML report in a process of its own: it reads the store only, and cannot harm the run."""
    command = [
        sys.executable,
        "-m",
        "holdwater",
        "report",
        str(out),
        "--html",
        str(out / "report.html"),
        "--quiet",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if done.returncode:
        log.warning("the report could not be written: %s", done.stderr.strip())
