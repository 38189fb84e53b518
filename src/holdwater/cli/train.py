"""`holdwater train`: train a small GPT from scratch on text, under the guard."""

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from holdwater.cli.checks import LEAK_FOUND, check_writable
from holdwater.config import Config, Profile, choose_profile, gather, load_profile
from holdwater.config.keys import KEYS
from holdwater.errors import HoldwaterError

log = logging.getLogger("holdwater")


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse has no public type for it
    """Add the subcommand."""
    parser = commands.add_parser(
        "train",
        help="train a small GPT from scratch on text, under the guard",
        description="Train a small GPT from scratch on text. Memory is held inside a budget, shown while the "
        "run goes on, and judged at its end. Every flag is also a key of --config FILE and an "
        "environment variable HOLDWATER_NAME; flags are strongest.",
    )
    for key in KEYS:
        text = argparse.SUPPRESS if key.not_built else key.help + _default(key.default)
        parser.add_argument(key.flag, dest=key.name, metavar=key.metavar, help=text)
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of the same keys")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="PATH",
        help="go on in --out, in the newest run, or from the run or checkpoint PATH",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verdict as JSON")
    parser.add_argument("--callback", metavar="MODULE:FUNCTION", help="called with the guard after each step")
    parser.add_argument("--fail-on", choices=["leak"], help="exit with 3 when a leak was found")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train; return the exit code."""
    config = gather_config(options)
    try:
        from holdwater.train.run import train  # noqa: PLC0415 - torch takes seconds, and may be missing
        from holdwater.train.run_folder import find_run_folder  # noqa: PLC0415
    except ImportError as error:
        raise HoldwaterError(
            f'training needs {error.name}, which is not installed; pip install "holdwater[torch]"'
        ) from error
    check_writable("--json", options.json)
    folder = find_run_folder(config["out"], options.resume)
    if folder.settings is not None and options.config is None:
        options.config = folder.settings  # a run goes on with the settings that it began with; flags still win
        log.info("settings as in %s", folder.settings)
    config = _with_profile(gather_config(options), options)
    command = ["holdwater", *sys.argv[1:]]
    result = train(config, folder, command=command, callback=options.callback)
    code = result.exit_code
    if code == 0 and options.fail_on == "leak" and result.summary.get("verdict") == "leak":
        code = LEAK_FOUND
    if options.json is not None:
        text = json.dumps(
            {**result.summary, "step_source": "train", "command": command, "exit_code": code}, indent=1
        )
        options.json.write_text(text + "\n", encoding="utf-8")
    print(f"verdict: {result.summary.get('verdict', 'unknown')}; report: {folder.out / 'report.html'}")  # noqa: T201
    return code


def gather_config(options: argparse.Namespace, profile: Profile | None = None) -> Config:
    """Gather the configuration from flags, environment and file.

    Args:
        options: The parsed command line.
        profile: A hardware profile whose rows count as defaults.

    Returns:
        The configuration.

    Raises:
        SeveralConfigErrors: There are mistakes; all are named.
    """
    flags = {key.name: getattr(options, key.name) for key in KEYS}
    return gather(flags=flags, environment=os.environ, file=options.config, profile=profile)


def _with_profile(config: Config, options: argparse.Namespace) -> Config:
    """Take in the rows of the profile that was named, or that suits the device."""
    import torch  # noqa: PLC0415 - imported above already

    from holdwater.probes.machine import read_machine  # noqa: PLC0415 - after torch, which it asks

    device = config["device"]
    gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    machine = read_machine(device="cuda" if gpu and torch.cuda.is_available() else "cpu")
    if config["profile"] is None:
        profile = choose_profile(machine.device_size or machine.total, gpu=gpu)
    else:
        profile = load_profile(config["profile"])
    if profile is None:
        return config
    log.info("profile %s (%s)", profile.name, "named" if config["profile"] else "chosen by the machine's memory")
    return gather_config(options, profile)


def _default(value: object) -> str:
    """A default, for the help text."""
    if value is None:
        return ""
    shown = {1e6: "1 MB", 0.8: "80"}.get(value, value) if isinstance(value, float) else value
    return f" (default: {shown})"
