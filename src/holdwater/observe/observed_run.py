"""One observed script: its process, its history, and its verdict as JSON.

Separate from the command because it needs numpy: it is imported while the script starts.
"""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

from holdwater.budget import Terms
from holdwater.detectors.ending import EndFacts, RunEnd, explain_end
from holdwater.detectors.parts import split_resident
from holdwater.errors import StoreError
from holdwater.guard.account import Account, Overhead
from holdwater.guard.summary import RunSummary, summarise_budgets, summarise_findings
from holdwater.observe.agent.shared_memory import NOTED
from holdwater.observe.last_reading import LastReading, read_uncaught
from holdwater.observe.news import News
from holdwater.observe.recorder import Record
from holdwater.observe.watcher import Watcher
from holdwater.probes.outside import Outside
from holdwater.probes.statm import read_resident
from holdwater.process.channel import Channel
from holdwater.process.channel_folder import remove_channel
from holdwater.store.run_store import RunStore

log = logging.getLogger("holdwater")

SHORTEST, LONGEST, SPACING = 0.05, 3.0, 1 / 400
"""Least and most seconds between two turns of the watcher, and their spacing as a part of the time passed."""

GROWING = frozenset(("leak", "fragmentation", "warming"))
"""Verdicts on growth that can have used memory up."""

EAGER = 0.005
"""Seconds between two looks at the channel while an answer is expected soon."""


class FollowedProcess(Protocol):
    """A process that is watched until it ends."""

    pid: int
    exit_status: int | None
    """Negative for a signal; None while it runs, and if it is not known."""

    def wait(self, seconds: float) -> bool:
        """Wait at most so long; True while it runs."""
        ...


class ObservedRun:
    """One script, its process and its history."""

    def __init__(  # noqa: PLR0913 - the parts of a run, by name
        self,
        process: FollowedProcess,
        channel: Channel,
        terms: Terms,
        store: RunStore,
        *,
        words: Sequence[str],
        asks: bool = True,
        first_step: int = 0,
        news: News | None = None,
    ) -> None:
        """Observe a script that was started.

        Args:
            process: The script's process.
            channel: In the folder of the process's answers.
            terms: The inputs of the budgets.
            store: Stores the history.
            words: What is run, for the report.
            first_step: The step that the process continues from.
            news: Tells what is found while the run goes on; None tells nothing.
            asks: Whether to ask the process what it holds; unnecessary if the growth is explained already.
        """
        self.process, self.channel = process, channel
        self._news = news or News(quiet=True)
        place = channel.path.parent
        folder = place if asks else None
        outside = Outside(process.pid, noted=place / NOTED, may_have_ended=True)
        self._last = LastReading(outside)
        self.watcher = Watcher(outside, terms, channel=self.channel, folder=folder)
        budgets = self.watcher.budgets
        facts = {
            "command": list(words),
            "budget": str(budgets),
            "budget_bytes": int(budgets.main.limit),
            "budgets": summarise_budgets(budgets),
        }
        self.store = _begun(store, first_step, facts)
        self._record = Record(self.store, self.watcher)
        self._began, self._looked_at = time.perf_counter(), -math.inf
        self._began_at = (time.process_time(), read_resident())
        """The watcher's own processor time and memory when it began to watch."""

    @property
    def exit_code(self) -> int:
        """The script's exit code; negative for a signal."""
        if self.channel.get("stopped") and self.process.exit_status in {0, None}:
            return 0
        return self.process.exit_status or 0

    def follow(self) -> None:
        """Watch until the script's process has ended."""
        while self.process.wait(self.pause()):
            self.look()
        self.finish()

    def look(self) -> None:
        """Take in what is new, while the script's process runs; only its answer, if that is expected sooner."""
        now = time.perf_counter()
        if self._expects_answer and now < self._looked_at + self._spacing:
            return
        self._looked_at = now
        self.watcher.turn()
        self._last.see()
        if self.channel.state == "ending":
            self.watcher.end()
        self._news.tell(self.watcher)
        self._write()

    def finish(self) -> None:
        """Judge for the last time, when the script's process has ended."""
        self._last.end()
        self.watcher.finish()
        self._news.tell(self.watcher, final=True)

    def _write(self) -> None:
        """Write the history to the store; an error here must not reach the script."""
        try:
            self._record.write(self.summary)
        except Exception as error:  # noqa: BLE001 - reported once, at the end
            self.watcher.note_error(error)

    def summary(self) -> dict[str, Any]:
        """The judgement so far as JSON (schema 1), without command and exit code."""
        watcher = self.watcher
        peaks = [
            watcher.by_time.peak("peak_resident"),
            watcher.by_time.peak("resident"),
            watcher.by_step.peak("resident"),
        ]
        device = watcher.by_step.peak("device_reserved")
        errors = watcher.errors + ([] if watcher.questions is None else watcher.questions.errors)
        return RunSummary(
            verdict=watcher.verdict,
            steps=watcher.steps,
            budgets=watcher.budgets,
            overhead=self._overhead(),
            peak={
                "host_bytes": int(max(peak or 0 for peak in peaks)),
                "device_bytes": None if device is None else int(device),
            },
            experiments=watcher.experiments,
            explanations=watcher.explanations,
            attribution_seconds=self.channel.get_seconds("attribution_seconds"),
            watching={
                "watcher_seconds": time.process_time() - self._began_at[0],
                "watcher_grew_bytes": read_resident() - self._began_at[1],
            },
            step_source=watcher.source,
            parts=parts(watcher),
            evidence=asdict(watcher.evidence),
            errors=errors[:10],
        ).as_json()

    def ending(self) -> dict[str, Any]:
        """Why the process has ended, as `end` of the JSON; empty if it ended well."""
        try:
            found = self._ending()
        except Exception as error:  # noqa: BLE001 - there is a verdict in any case
            self.watcher.note_error(error)
            return {}
        return {} if found is None else {"end": found.as_json()}

    def _ending(self) -> RunEnd | None:
        """As `ending`."""
        watcher = self.watcher
        grown = [one for one in watcher.verdict.findings if one.verdict in GROWING]
        return explain_end(EndFacts(
            status=self.exit_code, step=watcher.steps, raised=read_uncaught(self.channel.path.parent),
            parts=parts(watcher), findings=tuple((one.component, one.message) for one in grown),
            **self._last.facts(watcher.by_step.buckets()),
        ))  # fmt: skip

    def write_down(self, summary: dict[str, Any]) -> None:
        """Write the last state of the process into the store."""
        try:
            self._record.write(lambda: summary, now=True)
        except Exception as error:  # noqa: BLE001 - there is a verdict in any case
            self.watcher.note_error(error)

    def findings(self) -> list[dict[str, Any]]:
        """The findings so far as in the JSON verdict, each with its explanation."""
        return summarise_findings(self.watcher.verdict, self.watcher.explanations)

    def close_reading(self) -> None:
        """End what still reads the process's answers."""
        if self.watcher.questions is not None:
            self.watcher.questions.explainer.close()

    def close(self) -> None:
        """End what still reads the process's answers, and remove them with the channel."""
        self.close_reading()
        remove_channel(self.channel)

    def pause(self) -> float:
        """Seconds until the next look."""
        if self.channel.state == "ending":
            return 0.002
        return EAGER if self._expects_answer else self._spacing

    @property
    def _expects_answer(self) -> bool:
        """Whether the process will soon answer a question, and has not yet."""
        questions = self.watcher.questions
        return questions is not None and questions.expecting and self.channel.state != "ending"

    @property
    def _spacing(self) -> float:
        """Seconds between two turns of the watcher."""
        elapsed = time.perf_counter() - self._began
        return min(max(elapsed * SPACING, SHORTEST), LONGEST)

    def _overhead(self) -> Overhead:
        """What observing has cost the script."""
        channel, account = self.channel, Account()
        costs = self.watcher.costs
        steps = max(self.watcher.steps, 1)
        for cost in costs:
            account.add(cost, steps=max(steps // max(len(costs), 1), 1))
        hook = channel.get_seconds("hook_seconds")
        return Overhead(
            guard_seconds=hook,
            run_seconds=channel.get_seconds("last_step_at") - channel.get_seconds("first_step_at"),
            step_us_mean=1e6 * hook / steps,
            step_us_p50=1e6 * account.percentile(0.50),
            step_us_p99=1e6 * account.percentile(0.99),
            startup_seconds=0.0,
        )


def _begun(store: RunStore, first_step: int, facts: dict[str, Any]) -> RunStore:
    """A store that has begun a session: the given one, or one in memory if that cannot be written."""
    began = time.time()
    try:
        store.begin(began=began, first_step=first_step, facts=facts)
    except StoreError as error:
        log.warning("%s; the run goes on without a history", error)
        store = RunStore(store.path.parent, kept=False)
        store.begin(began=began, first_step=first_step, facts=facts)
    return store


def parts(watcher: Watcher) -> dict[str, int]:
    """The split of resident memory at the newest count of objects, in bytes, with an unexplained rest."""
    buckets = watcher.timeline.buckets()
    held = watcher.evidence.holdings[-1] if watcher.evidence.holdings else None
    if len(buckets) == 0 or held is None:
        return {}
    return split_resident(buckets, held)
