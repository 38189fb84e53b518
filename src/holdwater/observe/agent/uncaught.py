"""Leave word of the exception that ends a script, for the watcher."""

import json
from pathlib import Path

FILE = "uncaught.json"
LONGEST = 4000
"""Characters of its message that are kept."""


def note_uncaught(folder: Path, error: BaseException) -> None:
    """Write down what it says.

    Args:
        folder: Of the channel.
        error: Has left the script; not an end that was asked for.
    """
    from holdwater.oom.out_of_memory import said_by, shortage_of  # noqa: PLC0415 - only when it is needed

    row = {"kind": type(error).__name__, "text": said_by(error)[:LONGEST], "shortage": shortage_of(error)}
    (folder / FILE).write_text(json.dumps(row), encoding="utf-8")
