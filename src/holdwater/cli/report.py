"""`holdwater report`: show what a run's memory did, in the terminal or as one HTML file."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from holdwater.errors import StoreError
from holdwater.report.html import write_html
from holdwater.report.ranks import read_ranks
from holdwater.report.terminal import print_report
from holdwater.store.history import read_history


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse has no public type for it
    """Add the subcommand."""
    parser = commands.add_parser(
        "report",
        help="show what a run's memory did",
        description="Show the report of a run, while it runs or after it has ended in any way.",
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one self-contained HTML file")
    parser.add_argument("--rank", type=int, metavar="N", help="which process of the run (default: the worst)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show or write the report; return the exit code.

    Args:
        options: The parsed command line.

    Returns:
        0.

    Raises:
        StoreError: There is no run, or the file cannot be written.
    """
    if options.rank is None:
        ranks = read_ranks(options.folder)
        history, note = ranks.history, ranks.in_words()
    else:
        history, note = read_history(options.folder, rank=options.rank), f"This is rank {options.rank}."
    if note and not options.quiet:
        Console().print(note, highlight=False)
    if not options.quiet:
        print_report(history, Console())
    if options.html is not None:
        try:
            write_html(history, options.html, note=note)
        except OSError as error:
            raise StoreError(f"--html {options.html} cannot be written: {error.strerror}") from error
        if not options.quiet:
            Console().print(f"written: {options.html}", highlight=False)
    return 0
