"""Run a training from its configuration to its exit code: set up, run the loop, write the report."""

import logging
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import holdwater
from holdwater.actions.levers import Levers
from holdwater.config import Config
from holdwater.config.replacement import replacement_config
from holdwater.errors import CheckpointError, ConfigError, HoldwaterError, RunFolderError, StoreError
from holdwater.exit_codes import MISTAKE, SPOILT, STOPPED
from holdwater.guard.guard import Guard
from holdwater.guard.settings import GuardSettings
from holdwater.guard.summary import join_summaries
from holdwater.oom.recovering_step import HalfUpdated
from holdwater.process.restart_context import RestartContext, only_here, stop_soon
from holdwater.store.checkpoints import CheckpointFolder
from holdwater.store.history import read_history
from holdwater.store.lock import hold
from holdwater.store.run_store import amend_summary
from holdwater.train.callbacks import find_callback
from holdwater.train.loop import NotFiniteError, TrainingLoop, recovering_step
from holdwater.train.pretrain.state import new_state
from holdwater.train.pretrain.text import find_files, read_text, tokenise
from holdwater.train.progress import Speed, open_screen
from holdwater.train.resuming import resume
from holdwater.train.run_folder import RunFolder
from holdwater.train.settings import TrainSettings, TuneSettings, train_settings
from holdwater.train.supervisor_link import SupervisorLink
from holdwater.train.threads import choose_threads, explicit_threads
from holdwater.train.trainable import Trainable

log = logging.getLogger("holdwater")


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended."""

    exit_code: int
    summary: dict[str, Any]
    """The judgement as JSON (schema 1), without command and exit code."""
    recycled_at: int | None = None
    """The step after which a fresh process continues; None if the run has ended."""


def train(
    config: Config,
    folder: RunFolder,
    *,
    command: Sequence[str],
    callback: str | None = None,
    restart: RestartContext | None = None,
) -> Result:
    """Train a model as configured.

    Args:
        config: The gathered configuration.
        folder: The run's folder.
        command: What the user typed, for the record.
        callback: `module:function`, called with the guard after each step.
        restart: The restart context; None without a supervisor.

    Returns:
        The exit code and the judgement.

    Raises:
        ConfigError: A setting cannot work here.
        DataError: The text cannot be trained on.
        RunFolderError: The folder cannot be used, or holds a run with other settings.
        CheckpointError: No checkpoint can be written at all.
        HoldwaterError: These, and any other error that is reported in one line.
    """
    with hold(folder.out):
        try:
            function = None if callback is None else find_callback(callback)
            return _train(config, folder, command, function, None if restart is None else SupervisorLink(restart))
        except HoldwaterError:
            folder.forget()
            raise


def _train(
    config: Config,
    folder: RunFolder,
    command: Sequence[str],
    function: Callable[[Guard], None] | None,
    link: SupervisorLink | None,
) -> Result:
    """Train in a folder that no other process uses."""
    settings = train_settings(config, folder.out)
    torch.set_num_threads(settings.threads)
    _check_merged(settings)
    state = _new_trainable(settings)
    checkpoints = CheckpointFolder(folder.checkpoints, keep=settings.keep_checkpoints)
    _prepare(state, config, checkpoints, folder, link)
    if state.step >= settings.steps:
        _merge(settings, checkpoints)
        return _nothing_left(state.step, folder)
    _write_config(config, folder.out / "config.yaml")
    levers = Levers(
        checkpoint=lambda: loop.save(),  # noqa: PLW0108 - the loop is made below
        recycle=None if link is None else lambda: link.agree(guard),
    )
    deaths = 0 if link is None else link.restart.out_of_memory_restarts
    guard = Guard(_guard_settings(config, settings, state.step, deaths), levers=levers)
    guard.facts = _facts(command, settings, state) | ({} if link is None else {"run": link.restart.channel_path})
    with guard:
        if link is None or link.is_first:
            _say_limits(guard)
        pace = Speed(
            first_step=state.step,
            steps=settings.steps,
            tokens_in_step=settings.tokens_in_step,
            began=None if link is None else link.began(state.step),
        )
        loop = TrainingLoop(
            settings,
            state,
            recovering_step(settings, state, deaths=deaths),
            checkpoints,
            guard,
            open_screen(pace),
            function,
            link,
        )
        exit_code = _run(loop)
    if state.step >= settings.steps and exit_code != MISTAKE:
        _merge(settings, checkpoints)
    return _leave(loop, exit_code, folder.out)


def _prepare(
    state: Trainable,
    config: Config,
    checkpoints: CheckpointFolder,
    folder: RunFolder,
    link: SupervisorLink | None,
) -> None:
    """Resume, or check the data and choose the number of threads."""
    threads = explicit_threads(config["threads"], os.environ)
    goes_on = folder.resume or (link is not None and link.goes_on)
    resumed = goes_on and resume(state, checkpoints, folder, link, threads=threads)
    if state.step == 0 and (link is None or link.is_first):
        state.check_data()
    if not resumed and threads is None:
        choose_threads(state)


def _check_merged(settings: TrainSettings) -> None:
    """Refuse a whole model that could not be written at the end, before anything begins."""
    folder, tuning = settings.merged, settings.tuning
    if folder is None:
        return
    if tuning is None:
        raise ConfigError(f"merged is {folder}, but only fine-tuning has adapters; leave it out, or add --model")
    if not tuning.lora_rank:
        raise ConfigError(f"merged is {folder}, but lora_rank is 0: checkpoints are whole models; leave it out")
    if folder.exists():
        raise RunFolderError(f"--merged {folder} is there already; name another folder")


def _new_trainable(settings: TrainSettings) -> Trainable:
    """The trainable: the adapters of a named model, or a model from scratch."""
    if settings.tuning is not None:
        return _new_tuning(settings, settings.tuning)
    text = read_text(find_files(settings.data))
    length = settings.train_seq_length
    tokens = tokenise(text, settings.level, validation_share=settings.validation_share, length=length)
    return new_state(settings, tokens)


def _new_tuning(settings: TrainSettings, tuning: TuneSettings) -> Trainable:
    """The adapters of a named model, which may see pictures."""
    if tuning.backend == "mlx":
        from holdwater.train.finetune.mlx.state import new_mlx_tuning  # noqa: PLC0415 - brings mlx and mlx_lm

        return new_mlx_tuning(settings, tuning)
    from holdwater.train.finetune.state import new_tuning  # noqa: PLC0415 - brings Transformers
    from holdwater.train.finetune.vision.generic_loading import learns_from_pictures  # noqa: PLC0415
    from holdwater.train.finetune.vision.loading import is_vision_language  # noqa: PLC0415

    if is_vision_language(tuning.model):
        from holdwater.train.finetune.vision.state import new_vision_tuning  # noqa: PLC0415 - brings Pillow

        return new_vision_tuning(settings, tuning)
    if learns_from_pictures(tuning.model, settings.data):
        from holdwater.train.finetune.vision.generic_state import new_generic_tuning  # noqa: PLC0415

        return new_generic_tuning(settings, tuning)
    return new_tuning(settings, tuning)


def _merge(settings: TrainSettings, checkpoints: CheckpointFolder) -> None:
    """Write the model with the adapters of the last checkpoint, if that was asked for."""
    if settings.tuning is None or settings.merged is None:
        return
    if settings.tuning.backend == "mlx":
        from holdwater.train.finetune.mlx.merging import merge_newest  # noqa: PLC0415 - brings mlx and mlx_lm

        merge_newest(settings.tuning.model, checkpoints, settings.merged)
        return
    from holdwater.train.finetune.model import merging  # noqa: PLC0415 - brings Transformers
    from holdwater.train.finetune.vision import generic_loading, loading  # noqa: PLC0415

    newest, name = checkpoints.newest(log.warning), settings.tuning.model
    pictured = loading.is_vision_language(name) or generic_loading.learns_from_pictures(name, settings.data)
    load = loading.load_to_merge if pictured else merging.load_to_merge
    if newest is not None:
        merging.write_merged(name, newest.folder, settings.merged, load=load)


def _leave(loop: TrainingLoop, exit_code: int, out: Path) -> Result:
    """Write the reason for the next process, or the judgement of the whole run and its report."""
    guard, link = loop.guard, loop.link
    if loop.goes_on and link is not None:
        link.leave(guard.stop_reason or "")
        return Result(0, {}, recycled_at=loop.state.step)
    summary = guard.summary()
    if link is not None and not link.is_first:
        summary = whole_run(out, link.restart.channel_path)
        amend_summary(out, summary)
    write_report(out)
    return Result(exit_code, summary | loop.state.proof)


def _write_config(config: Config, path: Path) -> None:
    """Write the configuration as it was resolved."""
    try:
        path.write_text(config.as_yaml(), encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"{path} cannot be written: {error.strerror}") from error


def _run(loop: TrainingLoop) -> int:
    """Run the loop; return 0, 75 if it stopped on purpose or could not write a checkpoint, 2 if it diverged."""
    with _stop_on_signals(loop.guard):
        _save_first(loop)
        try:
            loop.run()
        except HalfUpdated as error:
            log.error("%s: the run resumes from its newest checkpoint", error)  # noqa: TRY400 - no bug to trace
            return SPOILT
        except NotFiniteError as error:
            log.error("%s: training stops%s", error, _how_to_branch(loop))  # noqa: TRY400 - no bug to trace
            loop.guard.recycling = False  # a fresh process would only repeat it
            return MISTAKE
        except CheckpointError as error:
            newest = loop.checkpoints.newest(log.warning)
            place = (
                "no checkpoint is complete" if newest is None else f"the newest complete one is step {newest.step}"
            )
            log.error("%s; %s: free some space, then continue with --resume", error, place)  # noqa: TRY400
            loop.guard.stop("a checkpoint could not be written")
        finally:
            loop.screen.close(goes_on=loop.goes_on)
    if loop.guard.recycling:
        return 0  # a fresh process goes on, unless this was the last step
    if loop.guard.stop_reason is not None:
        log.warning(
            "stopped at step %d: %s; continue with: holdwater train --out %s --resume",
            loop.state.step,
            loop.guard.stop_reason,
            loop.settings.out,
        )
        return STOPPED
    return 0


def _save_first(loop: TrainingLoop) -> None:
    """Write the checkpoint that a run begins with: a folder that cannot hold one must be found now, not later."""
    if loop.state.step > 0 and loop.checkpoints.begun:
        return
    try:
        loop.save()
    except CheckpointError as error:
        raise RunFolderError(f"{error}; free some space or name another folder with --out") from error


def _how_to_branch(loop: TrainingLoop) -> str:
    """The newest checkpoint, and the command that goes on from it with half the learning rate."""
    newest = loop.checkpoints.newest(log.warning)
    if newest is None:
        return "; no checkpoint is complete"
    half = f"--out NEW --learning-rate {loop.settings.learning_rate / 2:g}"
    return (
        f"; the newest checkpoint is of step {newest.step}, and finite; go on from it with a smaller learning "
        f"rate: holdwater train --resume {newest.folder} {half}"
    )


@contextmanager
def _stop_on_signals(guard: Guard) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM end the run after its step, with a checkpoint; a second one ends it now.

    What the caller ignores stays ignored.
    """
    stop = stop_soon(guard.stop, lambda: guard.stop_reason is not None)
    heeded = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, only_here(stop)) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _guard_settings(config: Config, settings: TrainSettings, step: int, deaths: int) -> GuardSettings:
    """The guard's part of the configuration."""
    return GuardSettings(
        max_memory=config["max_memory"],
        max_host_memory=config["max_host_memory"],
        wired_limit=config["wired_limit"],
        leak_threshold=config["memory_leak_threshold_mb"],
        threshold=config["memory_threshold_percentage"],
        waiting_below=config["waiting_below"],
        stopping_below=config["stopping_below"],
        cache_clear_interval=config["periodic_cache_clear_interval"],
        replacement=replacement_config(config),
        dry_run=config["remedies"] == "dry-run",
        deaths=deaths,
        device=settings.device,
        out=settings.out,
        first_step=step,
    )


def _facts(command: Sequence[str], settings: TrainSettings, state: Trainable) -> dict[str, Any]:
    """Facts on this process for the store."""
    return {
        "command": list(command),
        "holdwater": holdwater.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads, "
        f"{settings.device}",
        "preset": settings.preset,
        "parameters": state.parameters,
        "steps": settings.steps,
        "tokens_in_step": settings.tokens_in_step,
    } | ({"mlx": version("mlx")} if settings.device == "mlx" else {})


def _say_limits(guard: Guard) -> None:
    """Print the budgets, where they come from, and what was set."""
    log.info("%s", guard.budgets)
    for change in guard.limits:
        log.info("%s", change)


def whole_run(out: Path, run: str) -> dict[str, Any]:
    """The judgement of all processes of a run.

    Args:
        out: The folder of the run.
        run: The facts that its sessions share.
    """
    sessions = [session for session in read_history(out).sessions if session.facts.get("run") == run]
    return join_summaries([session.summary for session in sessions if session.summary is not None])


def _nothing_left(steps: int, folder: RunFolder) -> Result:
    """A run that has all its steps already keeps its judgement."""
    log.info("%s has its %d steps already: nothing to do", folder.out, steps)
    try:
        summary = read_history(folder.out).summary
    except StoreError:
        summary = None
    return Result(0, summary or {})


def write_report(out: Path) -> None:
    """Write the HTML report in a separate process: it only reads the store, and cannot harm the run."""
    command = [
        sys.executable,
        "-P",
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
