"""Inside a loader's worker: dormant until a growth of the workers is looked into, then two counts, then dormant.

A worker that was forked from the training process inherits this, with the channel and the folder of its session.
Of several workers one answers. A worker that was spawned anew knows nothing of it, and stays as it is.
"""

import json
import os
from typing import Any

from holdwater.attribution.census import Counter
from holdwater.attribution.gains import Gains
from holdwater.attribution.user_code import users_modules
from holdwater.integrations.session import Session

BATCHES = 16
"""Batches between the two counts."""


class WorkerAgent:
    """Counts what one worker holds, when somebody asks."""

    def __init__(self, session: Session) -> None:
        """Prepare, in the training process.

        Args:
            session: The one that the workers are forked from.
        """
        self._session = session
        self._batches = self._began = self._number = 0
        self._handled = 0
        self._counter, self._gains = Counter(), Gains()

    def tick(self) -> None:
        """A batch was made; an error of ours costs the answer, not the batch."""
        self._batches += 1
        try:
            if self._number == 0:
                self._look_for_a_question()
            elif self._batches - self._began >= BATCHES:
                self._answer()
        except Exception:  # noqa: BLE001 - the observer never kills what it observes
            self._number, self._handled = 0, 1 << 62

    def _look_for_a_question(self) -> None:
        """Begin, if the workers are asked and no other one has begun."""
        asked = self._session.channel.get("asked")
        for number in range(self._handled + 1, asked + 1):
            request = self._session.folder / f"window-{number}"
            text = request.read_text(encoding="utf-8") if request.exists() else ""
            if text and json.loads(text).get("workers") and self._is_first(number):
                self._counter.take(self._batches, note=self._gains.remember)
                self._number, self._began = number, self._batches
        self._handled = max(asked, self._handled)

    def _is_first(self, number: int) -> bool:
        """Whether no other worker has taken up a question."""
        try:
            os.close(os.open(self._session.folder / f"worker-{number}.claim", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def _answer(self) -> None:
        """Count again, and say what has grown."""
        self._counter.take(self._batches, note=self._gains.compare)
        found: dict[str, Any] = {
            "from_step": self._began,
            "to_step": self._batches,
            "gains": [gain.as_json() for gain in self._gains.found],
            "users_files": [module.__file__ for module in users_modules()],
            "inside": f"inside a loader worker (process {os.getpid()})",
            "missing": [],
        }
        self._gains.forget()
        part = self._session.folder / f"worker-{self._number}.part"
        part.write_text(json.dumps(found), encoding="utf-8")
        part.rename(part.with_suffix(".json"))
        self._number = 0
