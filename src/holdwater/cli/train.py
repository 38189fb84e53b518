"""`holdwater train`: fine-tune a large model, or train a small GPT from scratch, under the guard."""

import argparse
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdwater.cli.checks import attempt, check_writable, needs_torch, write_verdict
from holdwater.cli.fail_on import failure
from holdwater.cli.termination import leave_message
from holdwater.config import Config, Profile, choose_profile, gather, load_profile
from holdwater.config.flags import add_flags
from holdwater.config.keys import FOLDER, KEYS, MODEL, PROCESSES, STEPS, VERDICT
from holdwater.process.restart_context import RestartContext, leave_at_once
from holdwater.process.signals import hold_signals
from holdwater.store.checkpoints import MANIFEST
from holdwater.supervise.launchers import another_supervises

if TYPE_CHECKING:
    from holdwater.train.run_folder import RunFolder

log = logging.getLogger("holdwater")


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse has no public type for it
    """Add the subcommand."""
    parser = commands.add_parser(
        "train",
        help="fine-tune a large model, or train a small GPT from scratch, under the guard",
        description="Fine-tune the adapters of a large model (--model, with examples in --data), or train a "
        "small GPT from scratch on text. Memory is held inside a budget, shown while the "
        "run goes on, and judged at its end. Every flag is also a key of --config FILE and an "
        "environment variable HOLDWATER_NAME; flags are strongest.",
    )
    groups = add_flags(parser, "train")
    add_config_flag(groups)
    groups[FOLDER].add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="PATH",
        help="go on in --out, in the newest run, or from the run or checkpoint PATH; a checkpoint with a new "
        "--out begins a branch, which may have another --learning-rate, --warmup-steps and --steps",
    )
    groups[VERDICT].add_argument("--json", type=Path, metavar="FILE", help="write the verdict as JSON")
    groups[STEPS].add_argument(
        "--callback", metavar="MODULE:FUNCTION", help="called with the guard after each step"
    )
    groups[PROCESSES].add_argument(
        "--no-supervise", action="store_true", help="train in this process: no other is started when it dies"
    )
    parser.set_defaults(run=run)


def add_config_flag(groups: Mapping[str, Any]) -> None:
    """Add --config.

    Args:
        groups: Of the command's help text, by name.
    """
    groups[MODEL].add_argument("--config", type=Path, metavar="FILE", help="YAML file of the same keys")


def run(options: argparse.Namespace) -> int:
    """Train under a supervisor, unless this process was started by one; return the exit code."""
    restart = RestartContext.take()
    if restart is not None or options.no_supervise or not hasattr(os, "fork") or another_supervises(os.environ):
        return _train(options, restart)
    config = gather_config(options)
    check_writable("--json", options.json)
    hold_signals()
    from holdwater.train.run_folder import find_run_folder  # noqa: PLC0415
    from holdwater.train.supervised import keep_training  # noqa: PLC0415 - brings numpy, which starts threads

    def leave_word(text: str) -> None:
        """Where the machine that started the run looks."""
        attempt("the termination message", lambda: leave_message(f"holdwater: {text}\n"))

    folder = find_run_folder(config["out"], options.resume)
    return keep_training(sys.argv, folder, config, leave_word=leave_word)


def _train(options: argparse.Namespace, restart: RestartContext | None) -> int:
    """Train in this process; return the exit code."""
    config = gather_config(options)
    needs_torch("training")
    from holdwater.train.run import train  # noqa: PLC0415 - torch takes seconds, and may be missing

    check_writable("--json", options.json)
    folder = _folder(config, options, restart)
    if folder.settings is not None and options.config is None:
        options.config = folder.settings  # a resumed run keeps its settings; flags still win
        if restart is None or restart.number == 0:
            log.info("settings as in %s", folder.settings)
    config = _with_profile(gather_config(options), options, quiet=restart is not None and restart.number > 0)
    command = ["holdwater", *sys.argv[1:]]
    result = train(config, folder, command=command, callback=options.callback, restart=restart)
    if result.recycled_at is not None:
        leave_at_once(restart, result.recycled_at)
    code = result.exit_code
    code = code or failure(result.summary, config)
    if options.json is not None:
        verdict = {**result.summary, "step_source": "train", "command": command, "exit_code": code}
        write_verdict(options.json, verdict)
    print(f"verdict: {result.summary.get('verdict', 'unknown')}; report: {folder.out / 'report.html'}")  # noqa: T201
    return code


def _folder(config: Config, options: argparse.Namespace, restart: RestartContext | None) -> "RunFolder":
    """The folder of the run: the supervisor's, if one has chosen it."""
    from holdwater.train.run_folder import RunFolder, find_run_folder  # noqa: PLC0415

    if restart is None or (restart.number == 0 and options.resume is not None):
        return find_run_folder(config["out"], options.resume)
    if restart.number == 0:
        return replace(find_run_folder(Path(restart.out), None), unnamed=config["out"] is None)
    branch = Path(options.resume or "")
    return RunFolder(Path(restart.out), checkpoint=branch if (branch / MANIFEST).exists() else None, resume=True)


def gather_config(options: argparse.Namespace, profile: Profile | None = None) -> Config:
    """Gather the configuration from flags, environment and file.

    Args:
        options: The parsed command line.
        profile: A hardware profile whose rows count as defaults.

    Returns:
        The configuration.

    Raises:
        SeveralConfigErrors: There are mistakes; all are listed.
    """
    flags = {key.name: getattr(options, key.name) for key in KEYS}
    return gather(flags=flags, environment=os.environ, file=options.config, profile=profile)


def _with_profile(config: Config, options: argparse.Namespace, *, quiet: bool) -> Config:
    """Add the rows of the profile that was named, or that fits the device."""
    import torch  # noqa: PLC0415 - imported above already

    from holdwater.probes.machine import read_machine  # noqa: PLC0415 - after torch, which it asks

    device = config["device"]
    on_cuda = device == "auto" and config["backend"] == "torch" and torch.cuda.is_available()
    gpu = device == "cuda" or on_cuda
    machine = read_machine(device="cuda" if gpu and torch.cuda.is_available() else "cpu")
    if config["profile"] is None:
        profile = choose_profile(machine.device_size or machine.total, gpu=gpu)
    else:
        profile = load_profile(config["profile"])
    if profile is None:
        return config
    gathered = gather_config(options, profile)
    if not quiet:
        how = "named" if config["profile"] else "chosen by the machine's memory"
        log.info("profile %s (%s)%s", profile.name, how, _set_by_profile(gathered, profile.name))
    return gathered


def _set_by_profile(config: Config, profile: str) -> str:
    """The values that came from the profile, as text."""
    said = [name for name, origin in config.origins.items() if origin == f"profile {profile}"]
    return ": " + ", ".join(f"{name} {config[name]}" for name in said) if said else ""
