"""The flags of `holdwater run --supervise`, and what they need."""

import argparse
import logging
import os
from collections.abc import Mapping
from typing import Any

from holdwater.config.keys import BY_NAME
from holdwater.errors import ConfigError
from holdwater.supervise.launchers import another_supervises

log = logging.getLogger("holdwater")

NEED_A_SUPERVISOR = ("reload_interval_steps", "reload_memory_threshold_gb", "hang_timeout")
"""Keys that mean nothing where no other process would be started."""


def add_supervision_flags(group: Any) -> None:  # noqa: ANN401 - argparse has no public type for it
    """Add the two flags that are no keys of the configuration.

    Args:
        group: Of the subcommand's help text.
    """
    group.add_argument(
        "--supervise", action="store_true", help="start the script's process again when it dies or is replaced"
    )
    group.add_argument("--resume", action="store_true", help="go on with the run in --out, under --supervise")


def is_supervised(options: argparse.Namespace, values: Mapping[str, Any]) -> bool:
    """Whether the script is to be supervised here.

    Args:
        options: The parsed command line.
        values: Its flags that are keys, by the name of the key.

    Raises:
        ConfigError: A flag needs another one.
    """
    if not options.supervise:
        wanted = ["--resume"] if options.resume else []
        wanted += [BY_NAME[name].flag for name in NEED_A_SUPERVISOR if values[name] is not None]
        if wanted:
            raise ConfigError(f"{wanted[0]} needs a supervisor; add --supervise")
        return False
    if options.resume and options.out is None:
        raise ConfigError("--resume needs the folder of the run; add --out FOLDER")
    if another_supervises(os.environ):
        log.warning("another launcher has started this process, or several: the script is watched only")
        return False
    return True
