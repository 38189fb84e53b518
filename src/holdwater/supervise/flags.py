"""The flags of `holdwater run --supervise`, and what they need."""

import argparse
import logging
import os
from typing import Any

from holdwater.errors import ConfigError
from holdwater.supervise.supervisor import another_supervises

log = logging.getLogger("holdwater")


def add_supervision_flags(parser: Any) -> None:  # noqa: ANN401 - argparse has no public type for it
    """Add the flags.

    Args:
        parser: Of the subcommand.
    """
    parser.add_argument(
        "--supervise", action="store_true", help="start the script's process again when it dies or is replaced"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, under --supervise")
    numbers = (
        ("--reload-interval", int, "N", "replace the process every N steps"),
        ("--reload-threshold", str, "SIZE", "replace it when it holds more"),
        ("--checkpoint-interval", int, "N", "steps between two checkpoints on disk (default: every 5 minutes)"),
        ("--keep-checkpoints", int, "N", "how many of them to keep (default: 3)"),
        ("--hang-timeout", float, "SECONDS", "replace it when it has made no step for so long"),
        ("--max-restarts", int, "N", "how often one that died is started again (default: 1000)"),
    )
    defaults = {"--max-restarts": 1000, "--keep-checkpoints": 3}
    for flag, kind, metavar, text in numbers:
        default = defaults.get(flag)
        parser.add_argument(flag, type=kind, metavar=metavar, default=default, help=text)


def is_supervised(options: argparse.Namespace) -> bool:
    """Whether the script is to be supervised here.

    Args:
        options: The parsed command line.

    Raises:
        ConfigError: A flag makes no sense, or needs another one.
    """
    for name in ("reload_interval", "checkpoint_interval", "hang_timeout"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}, but it must be more than 0")
    wanted = [
        name for name in ("resume", "reload_interval", "reload_threshold", "hang_timeout") if _given(options, name)
    ]
    if not options.supervise:
        if wanted:
            flag = f"--{wanted[0].replace('_', '-')}"
            raise ConfigError(f"{flag} needs a supervisor; add --supervise")
        return False
    if options.resume and options.out is None:
        raise ConfigError("--resume needs the folder of the run; add --out FOLDER")
    if another_supervises(os.environ):
        log.warning("another launcher has started this process, or several: the script is watched only")
        return False
    return True


def _given(options: argparse.Namespace, name: str) -> bool:
    """Whether a flag was given."""
    return getattr(options, name) not in {None, False}
