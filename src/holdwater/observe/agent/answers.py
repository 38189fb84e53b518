"""Write a session's answers for the watcher, and inventories that a user asked for."""

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdwater.deferred_signals import DeferredSignals
from holdwater.signal_errors import suppressed

if TYPE_CHECKING:
    from holdwater.attribution.census import Census
    from holdwater.observe.agent.readings import Readings
    from holdwater.process.channel import Channel


GRAIN = 1 << 20
"""Less garbage than this is not explained."""


class Answers:
    """The answers of one session, numbered in the order in which they are written."""

    def __init__(self, folder: Path, channel: "Channel") -> None:
        """Start with none.

        Args:
            folder: Where they are written.
            channel: Reports that a question is answered, and the cost.
        """
        self.answered = 0
        """The number of the newest question that is answered."""
        self._folder, self._channel = folder, channel
        self._left = 0

    def leave(self, step: int, number: int, answer: dict[str, Any], seconds: float) -> None:
        """Write an answer; with the number of its question if it completes that.

        Args:
            step: The step that ended last, unless the answer names its step.
            number: The question's; 0 for an unasked count, and for a part of an answer.
            answer: JSON data.
            seconds: Its cost to the training since the previous answer.
        """
        self.book(seconds)
        self._left += 1
        text = self._folder / f"answer-{self._left}.part"
        with suppressed(OSError):  # no space: the watcher sees that it is missing
            text.write_text(json.dumps({"step": step, "number": number, "seconds": seconds} | answer), "utf-8")
            text.rename(text.with_suffix(".json"))
        if number:
            self.answered = number
            self._channel.put("answered", number)

    def book(self, seconds: float) -> None:
        """Add to the time that examining the process has cost it.

        Args:
            seconds: Training time.
        """
        spent = self._channel.get_seconds("attribution_seconds") + seconds
        self._channel.put_seconds("attribution_seconds", spent)

    def note_work(self, seconds: float) -> None:
        """Add to its processor time: less than elapsed time when other programs are busy.

        Args:
            seconds: This thread's.
        """
        worked = self._channel.get_seconds("attribution_work") + seconds
        self._channel.put_seconds("attribution_work", worked)

    def is_experiment(self, asked: int) -> bool:
        """Whether a question that is not answered yet asks for what a collection and a trim free.

        Args:
            asked: The question's number.
        """
        return asked > self.answered and os.access(self._folder / f"experiment-{asked}", os.F_OK)

    def experiment(self, asked: int, census: "Census | None", readings: "Readings") -> dict[str, Any]:
        """What a collection and a trim free, if that was asked for; else nothing.

        Args:
            asked: The number of the question.
            census: What was held before; None counts the tensors alone.
            readings: Make the experiment.
        """
        with DeferredSignals():
            from holdwater.attribution.census import Census  # noqa: PLC0415 - only when it is asked for

        if not self.is_experiment(asked):
            return {}
        before = Census.tensors_now() if census is None else census.tensors
        found = readings.experiment()
        freed = before - Census.tensors_now() if found["collected"] > GRAIN else 0
        found["collected_tensors"] = max(freed, 0)
        return {"experiment": found}

    def give_inventory(self, step: int, readings: "Readings") -> None:
        """Write an inventory of what this process holds.

        Args:
            step: The step that ended last.
            readings: They exclude our own memory.
        """
        with DeferredSignals():
            from holdwater.attribution.inventory import leave_inventory  # noqa: PLC0415 - only when it is asked for

        wanted, began = self._channel.get("wanted"), time.perf_counter()
        try:
            with readings.without_own(), suppressed(OSError):  # whoever asked waits in vain
                leave_inventory(self._folder / f"inventory-{wanted}.json", step)
        finally:
            self.book(time.perf_counter() - began)
            self._channel.put("given", wanted)
