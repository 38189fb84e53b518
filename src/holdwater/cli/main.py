"""The command `holdwater`: dispatch to a subcommand; a user's mistake is one message and exit code 2."""

import argparse
import logging
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
    options = _parser(words).parse_args(words)
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


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command that is called, or of all commands if none is named."""
    parser = argparse.ArgumentParser(prog="holdwater", description=holdwater.__doc__)
    parser.add_argument("--version", action="version", version=f"holdwater {holdwater.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    called = [name for name in COMMANDS if words and words[0] == name]
    for name in called or COMMANDS:
        import_module(f"holdwater.cli.{name.replace('-', '_')}").add_parser(commands)
    return parser


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
