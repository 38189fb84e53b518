"""Write a watcher's history and verdicts to the run's store while it watches."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from holdwater.actions.perform import Outcome
from holdwater.errors import StoreError
from holdwater.observe.watcher import Watcher
from holdwater.store.run_store import RunStore

if TYPE_CHECKING:
    from holdwater.attribution.site import Explanation
    from holdwater.detectors.verdict import Verdict
    from holdwater.timeline.timeline import Timeline

FLUSH_EVERY = 2.0
"""Seconds between two writes, at least."""


class Record:
    """Writes a watcher's history and verdicts to the run's store."""

    def __init__(self, store: RunStore, watcher: Watcher) -> None:
        self._store, self._watcher = store, watcher
        self._next = time.perf_counter() + FLUSH_EVERY
        self._noted: Verdict | None = None
        self._timeline: Timeline | None = None
        self._experiments = 0
        self._explained: dict[str, Explanation] = {}

    def write(self, summary: Callable[[], Mapping[str, Any]], *, now: bool = False) -> None:
        """Write if it is due."""
        verdict, timeline = self._watcher.verdict, self._watcher.timeline
        if timeline is not self._timeline:
            if self._timeline is not None:
                self._store.begin_again()
            self._timeline = timeline
        if self._noted is not verdict:
            self._store.verdict(verdict)
            self._noted = verdict
        self._write_explanations()
        for action in self._watcher.experiments[self._experiments :]:
            self._store.outcome(Outcome(**action, error=None))
        self._experiments = len(self._watcher.experiments)
        if not now and time.perf_counter() < self._next:
            return
        self._store.summary(summary())
        began = time.perf_counter()
        try:
            self._store.flush(timeline)
        except StoreError as error:
            self._watcher.note_error(error)
        self._next = time.perf_counter() + max(FLUSH_EVERY, 1000 * (time.perf_counter() - began))

    def _write_explanations(self) -> None:
        """Write new explanations, at once: the process may die."""
        for finding, made in self._watcher.explanations.items():
            known = self._explained.get(finding.component)
            if known is None or (known.step, known.sites) != (made.step, made.sites):
                self._explained[finding.component] = made
                self._store.explanation(finding.component, made)
                self._next = 0.0
