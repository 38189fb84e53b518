"""The command `holdwater`: dispatch to a subcommand; a user's mistake is one message and exit code 2."""

import argparse
import difflib
import logging
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

import holdwater
from holdwater.errors import HoldwaterError
from holdwater.exit_codes import MISTAKE, STOPPED
from holdwater.standard_error import occupy_closed_streams, write_line

COMMANDS = ("train", "run", "watch", "plan", "report", "replay", "doctor", "verify-resume")
"""Each is a module of this package, imported when it is called."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    occupy_closed_streams()
    _log_to_stderr()
    options = _parse(words)
    try:
        return int(options.run(options))
    except HoldwaterError as error:
        write_line(f"holdwater: {error}")
        return MISTAKE


def run_and_exit() -> None:
    """Run the command line and exit with its code; a supervisor starts this."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before a run handles it, or after
        with suppress(KeyboardInterrupt):  # the supervisor forwards a signal that all processes receive
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        write_line("holdwater: stopped")
        sys.exit(STOPPED)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; a flag that is unknown shows the usage of the command that was called.

    Args:
        words: As the user typed them.
    """
    parser = argparse.ArgumentParser(prog="holdwater", description=holdwater.__doc__)
    parser.add_argument("--version", action="version", version=f"holdwater {holdwater.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    called = [name for name in COMMANDS if words and words[0] == name]
    for name in called or COMMANDS:
        import_module(f"holdwater.cli.{name.replace('-', '_')}").add_parser(commands)
    options, unknown = parser.parse_known_args(words)
    if unknown:
        command = commands.choices[called[0]] if called else parser
        command.error(f"unrecognized arguments: {' '.join(unknown)}{_suggest(unknown[0], command.format_help())}")
    return options


def _suggest(flag: str, help_text: str) -> str:
    """The flag of a help text that is nearest to an unknown one; empty where none is near."""
    near = difflib.get_close_matches(flag.partition("=")[0], re.findall(r"--[a-z][a-z-]*", help_text), n=1)
    return f"; did you mean {near[0]}?" if near else ""


class _StandardError(logging.Handler):
    """Writes to the current `sys.stderr`: a live line prints messages above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        write_line(self.format(record))


def _log_to_stderr() -> None:
    """Send holdwater's log messages to standard error, prefixed with `holdwater:`."""
    logger = logging.getLogger("holdwater")
    if not logger.handlers:
        handler = _StandardError()
        handler.setFormatter(logging.Formatter("holdwater: %(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
