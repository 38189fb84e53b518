"""Count first visits: rows of a dataset that are read for the first time, by a program or by one loader worker.

What a dataset caches in a worker grows with the first visits of that worker. A row that two workers read is a
first visit of each.
"""

import functools
import weakref
from types import ModuleType
from typing import Any

from holdwater.attribution.kinds import is_a
from holdwater.observe.agent.harmless import harmless
from holdwater.observe.agent.session import Session

MOST = 50_000_000
"""Rows that are distinguished; of a larger dataset only those below this index."""
MOST_OF_WORKERS = 200_000_000
"""Rows that are distinguished in all workers together: 25 MB. Beyond it workers are not counted."""


class Visits:
    """Which rows of a dataset were read: a bit for each."""

    def __init__(self, rows: int) -> None:
        """Start with none.

        Args:
            rows: Length of the dataset; 0 if unknown.
        """
        self._rows, self._count = rows, 0
        self._seen = bytearray(min(rows, MOST) // 8 + 1)

    def note(self, index: Any) -> int:  # noqa: ANN401 - what a sampler gives
        """Record the rows of a batch; return how many are new.

        Args:
            index: Their indices; anything but a list of whole numbers is ignored.
        """
        if not is_a(index, list) or (self._rows and self._count >= self._rows):
            return 0
        seen, before = self._seen, self._count
        for number in list.__iter__(index):
            if type(number) is not int or not 0 <= number < MOST:
                continue
            at, bit = number >> 3, 1 << (number & 7)
            if at >= len(seen):
                seen.extend(bytes(at + 1024 - len(seen)))
            if not seen[at] & bit:
                seen[at] |= bit
                self._count += 1
        return self._count - before


class WorkerVisits:
    """Counts the first visits of each loader worker, in the training process."""

    def __init__(self, session: Session) -> None:
        """Start without loaders.

        Args:
            session: Receives the counts.
        """
        self._session = session
        self._drawn: tuple[int, Any] | None = None
        """The batch that is about to be given to a worker: its task, and its indices."""
        self._loaders: weakref.WeakKeyDictionary[Any, tuple[int, dict[int, Visits]]] = weakref.WeakKeyDictionary()
        """Rows of each loader's dataset, and visits by process: one that replaces another has seen nothing."""
        self._possible = self._distinguished = 0

    def watch(self, module: ModuleType) -> None:
        """Record which worker each batch is given to (module `torch.utils.data.dataloader`).

        Args:
            module: The loader's.
        """
        kind: Any = module._MultiProcessingDataLoaderIter  # noqa: SLF001 - there is no public name
        put = kind._try_put_index  # noqa: SLF001
        note = harmless(self._note)

        @functools.wraps(put)
        def noted_put(iterator: Any) -> None:  # noqa: ANN401 - a loader's own
            """Give the next batch to a worker."""
            put(iterator)
            note(iterator)

        kind._try_put_index = noted_put  # noqa: SLF001

    def draw(self, iterator: Any, index: Any) -> None:  # noqa: ANN401 - a loader's own
        """Remember a batch until it is known which worker makes it.

        Args:
            iterator: The loader's.
            index: The indices of its rows.
        """
        task = getattr(iterator, "_send_idx", None)
        self._drawn = None if task is None else (task, index)

    def begin(self, iterator: Any, rows: int) -> None:  # noqa: ANN401
        """Add what the workers of a loader can read for the first time.

        Args:
            iterator: The loader's.
            rows: Length of its dataset; 0 if unknown.
        """
        if not rows or not hasattr(iterator, "_workers") or iterator in self._loaders:
            return
        self._loaders[iterator] = (rows, {})
        workers = iterator._num_workers  # noqa: SLF001
        self._distinguished += rows * workers
        # workers that end with the epoch read each row once, together
        self._possible += rows * (workers if iterator._persistent_workers else 1)  # noqa: SLF001
        known = self._distinguished <= MOST_OF_WORKERS
        self._session.channel.put("worker_rows", self._possible if known else 0)

    def _note(self, iterator: Any) -> None:  # noqa: ANN401
        """Record the first visits of the worker that was given the batch."""
        drawn, self._drawn = self._drawn, None
        counted = self._loaders.get(iterator) if self._distinguished <= MOST_OF_WORKERS else None
        given = None if drawn is None else iterator._task_info.get(drawn[0])  # noqa: SLF001
        if drawn is None or counted is None or given is None:
            return
        rows, by_process = counted
        pid = iterator._workers[given[0]].pid  # noqa: SLF001
        if pid not in by_process:
            by_process[pid] = Visits(rows)
        self._session.worker_visits += by_process[pid].note(drawn[1])
