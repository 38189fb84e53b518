"""Count objects inside a forked child, only while a growth of the children is being explained.

A process that was forked from the training process inherits this, with the channel and the folder of its session:
a loader worker, or a multiprocessing process that receives messages. Of several loader workers one answers; of
other processes the one that has grown most. The distance between its counts doubles, so that rare growth lies
between two of them. Each count is made in turns of a few milliseconds, one after each batch or message. When a
count has shown what grows, the next waits until it is asked for. A spawned process does not have this.
"""

import contextlib
import json
import os
import sys
import time
from typing import Any

from holdwater.actions.perform import trim
from holdwater.attribution.gain import Gain
from holdwater.attribution.kinds import full_name_of
from holdwater.attribution.roots import DATASET
from holdwater.attribution.user_code import users_modules
from holdwater.errors import ActionError
from holdwater.observe.agent.counting import Counting
from holdwater.observe.agent.harmless import harmless
from holdwater.observe.agent.session import Session
from holdwater.probes.children import private_resident
from holdwater.signal_errors import is_the_scripts, not_the_scripts

BATCHES = 16
"""Batches (or messages) between the first two counts."""
MOST_COUNTS = 8
"""Most counts of one process: the last two are 1,024 batches apart."""
SHOWN = 1 << 18
"""Bytes of gains that are enough to show what grows."""


class WorkerAgent:
    """Counts what one forked child holds, on request."""

    def __init__(self, session: Session, *, loader: bool = True) -> None:
        """Prepare, in the training process.

        Args:
            session: The one that the children are forked from.
            loader: Whether they are a loader's workers, of which any may answer.
        """
        self._session, self._loader = session, loader
        self._batches = self._handled = self._number = 0
        self._counts: Counting | None = None
        self._made = self._from = self._next = 0
        self._waits = False
        """Whether the next count waits for another question."""
        self._ticked_at, self._held = 0.0, 0

    def tick(self) -> None:
        """A batch was made, or a message received; an internal error costs the answer, not the batch."""
        self._batches += 1
        try:
            if self._counts is not None and not self._waits:
                self._go_on(self._counts)
            elif self._session.channel.get("workers_asked") > self._handled:
                self._look_for_a_question()
        except Exception as error:
            harmless(self._give_up)()
            if is_the_scripts(error):
                raise

    def _look_for_a_question(self) -> None:
        """Begin, if this process is asked and no other worker is answering the newest question."""
        self._handled = self._session.channel.get("workers_asked")
        if self._session.channel.get("worker_wanted") != (0 if self._loader else os.getpid()):
            return
        try:
            claim = self._session.folder / f"worker-{self._handled}.claim"
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL))
        except not_the_scripts(FileExistsError):
            return
        from multiprocessing.util import Finalize  # noqa: PLC0415 - a worker has it loaded

        self._number, self._waits, self._ticked_at = self._handled, False, time.perf_counter()
        if self._counts is not None:
            return  # it continues with the counts that it has
        self._next, self._counts = self._batches, Counting(_datasets, by_names=True)
        Finalize(None, self._end, exitpriority=0)  # it runs when the worker is idle

    def _go_on(self, counts: Counting) -> None:
        """Begin a count if one is due; count for a turn; when a count is done, report what has grown."""
        now, then = time.perf_counter(), self._ticked_at
        self._ticked_at = now
        if not counts.busy and self._batches >= self._next:
            note = counts.gains.compare if self._made else counts.gains.remember
            self._held = private_resident(os.getpid()) or 0
            self._begin_a_count()
            counts.begin(note, purpose="explain", period=now - then)
        if counts.busy:
            self._count(counts)

    def _count(self, counts: Counting, *, to_the_end: bool = False) -> None:
        """Count for a turn, or to the end of the count."""
        step = self._batches if self._loader else self._session.channel.get("steps")
        census = counts.go_on(step, to_the_end=to_the_end)
        if census is None:
            return
        if self._made:
            self._answer(counts, census.step)
        with contextlib.suppress(ActionError):
            trim()  # memory freed by the count must not hide the growth for a while
        self._book()
        self._made += 1
        self._from = census.step
        self._next = self._batches + BATCHES * 2 ** (self._made - 1)
        if self._made >= MOST_COUNTS:
            self._give_up()

    def _answer(self, counts: Counting, to: int) -> None:
        """Report what has grown since the previous count."""
        found: dict[str, Any] = {
            "from_step": self._from,
            "to_step": to,
            "gains": [gain.as_json() for gain in counts.gains.found],
            "in_dataset": sum(gain.weight.total for gain in counts.gains.found if _is_in_dataset(gain)),
            "users_files": [module.file for module in users_modules()],
            "inside": f"inside {self._name()} (process {os.getpid()})",
            "pid": None if self._loader else os.getpid(),
            "processes": {} if self._loader else {str(os.getpid()): _process_name()},
            "missing": [],
        }
        counts.gains.forget()
        self._waits = sum(gain.weight.total + gain.files for gain in counts.gains.found) >= SHOWN
        part = self._session.folder / f"worker-{self._number}-{self._made}.part"
        part.write_text(json.dumps(found), encoding="utf-8")
        part.rename(part.with_suffix(".json"))

    def _name(self) -> str:
        """The name of this process in messages."""
        return "a loader worker" if self._loader else f"the process `{_process_name()}` of multiprocessing"

    def _begin_a_count(self) -> None:
        """Announce that this worker counts, which makes it larger."""
        channel, pid = self._session.channel, os.getpid()
        if channel.get("worker_pid") != pid:
            channel.put("worker_own", 0)  # that was another's
            channel.put("worker_pid", pid)
        channel.put("worker_counts", 1)

    def _book(self) -> None:
        """Report how much our counts have added to this worker: that is not its own growth."""
        channel = self._session.channel
        grown = (private_resident(os.getpid()) or 0) - self._held
        channel.put("worker_own", channel.get("worker_own") + max(grown, 0))
        channel.put("worker_counts", 0)

    def _give_up(self) -> None:
        """Stop counting."""
        self._counts, self._handled = None, 1 << 62
        channel = self._session.channel
        if channel.get("worker_pid") == os.getpid():
            channel.put("worker_counts", 0)

    def _end(self) -> None:
        """The worker is idle: make the second count now, if it was not made."""
        counts = self._counts
        try:
            if counts is not None and self._made == 1 and self._batches > self._next - BATCHES:
                if not counts.busy:
                    counts.begin(counts.gains.compare, purpose="end", period=0.0)
                self._count(counts, to_the_end=True)
        except Exception:  # noqa: BLE001 - as in `tick`; nothing of the script could catch it now
            self._counts = None
        channel = self._session.channel
        if channel.get("worker_pid") == os.getpid():
            channel.put("worker_pid", 0)  # memory of our counts ends with this process


def _process_name() -> str:
    """The name that multiprocessing knows this process by."""
    from multiprocessing import current_process  # noqa: PLC0415 - a multiprocessing child has it loaded

    return str(current_process().name)


def _is_in_dataset(gain: Gain) -> bool:
    """Whether the dataset of this worker holds what has grown, itself or through other objects."""
    first = gain.path[0] if gain.path else None
    return first == DATASET or (first is not None and first.owner in {full_name_of(type(d)) for d in _datasets()})


def _datasets() -> list[object]:
    """The dataset of this worker."""
    loading = sys.modules.get("torch.utils.data")
    info = None if loading is None else loading.get_worker_info()
    return [] if info is None else [info.dataset]
