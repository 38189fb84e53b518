"""The examples that a run passes over: each is named once, in the log and in a file of the run's folder.

The file tells a later process of the run what was named already, however the earlier one ended.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from holdwater.train.run_folder import PASSED_OVER, holds_run

log = logging.getLogger("holdwater")


class PassedOverExamples:
    """Remembers which examples were named."""

    def __init__(self, folder: Path) -> None:
        """Read what earlier processes of the run have named.

        Args:
            folder: Of the run. In a folder without a run the file is of one that was refused, and is removed.
        """
        self._path = folder / PASSED_OVER
        if not holds_run(folder):
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
        text = _text(self._path)
        self._named = set(_numbers(text))
        if text and not text.endswith("\n"):
            self._append("\n")

    def name(self, number: int, reason: str) -> None:
        """Name an example, unless that was done.

        Args:
            number: Of the example, from 0.
            reason: Names it, and says what is wrong.
        """
        if number in self._named:
            return
        self._named.add(number)
        line = json.dumps({"example": number + 1, "reason": reason}, ensure_ascii=False)
        self._append(f"{line}\n")
        log.warning("passed over: %s", reason)

    def _append(self, text: str) -> None:
        """Add to the file, if that is possible: the log has it in any case."""
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(text)


def _text(path: Path) -> str:
    """What a file holds; nothing if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _numbers(text: str) -> Iterator[int]:
    """The examples that are named in lines of JSON, from 0; a killed process may have cut the last one."""
    for line in text.splitlines():
        with suppress(ValueError, KeyError, TypeError):
            yield int(json.loads(line)["example"]) - 1
