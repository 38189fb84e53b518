"""Guard a training loop: one call a step, in any loop, with any framework.

    with Guard(max_memory="70GB", out="runs/today") as guard:
        for batch in guard.steps(loader):
            ...

The guard never kills what it guards: its own errors are recorded and logged once, and training continues.
"""

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

from holdwater.actions.levers import Levers
from holdwater.actions.limits import LimitChange, set_framework_limits
from holdwater.actions.perform import Outcome, applies, perform, rehearsed
from holdwater.budget import Budget, Budgets, MachineMemory
from holdwater.clock import Clock, SystemClock
from holdwater.detectors.verdict import Verdict
from holdwater.errors import StoreError
from holdwater.guard.account import Account, Overhead
from holdwater.guard.budgets import read_budgets, read_budgets_anew
from holdwater.guard.core import GuardCore, configure
from holdwater.guard.losses import Losses
from holdwater.guard.settings import GuardSettings
from holdwater.guard.summary import RunSummary, summarise_budgets
from holdwater.policy.decision import Decision
from holdwater.probes.observer import Observer
from holdwater.probes.pace import Pace
from holdwater.probes.sample import Sample
from holdwater.signal_errors import not_the_scripts
from holdwater.store.run_store import RunStore
from holdwater.units import Bytes, Step, parse_size

Batch = TypeVar("Batch")
log = logging.getLogger("holdwater")

FLUSH_EVERY = 2.0
"""Least seconds between two writes to the store."""
FLUSH_SHARE = 0.0005
"""Writing takes at most this part of the time, unless that would leave half a minute unwritten."""
STOP_AGAIN = 60.0
"""Seconds before a stop that failed (without a checkpoint, for example) is tried again."""
NEVER = 1 << 62
"""A step that no run reaches."""
NO_RECYCLING = (
    "the loop gives no checkpoint that a fresh process could continue from, or no supervisor would start one; "
    "start it with `holdwater train` or `holdwater run --supervise`, and register its state with "
    "holdwater.resumable"
)
JUDGING = 0.15
"""Judgements take at most this part of what readings may take (`holdwater.probes.pace`)."""
MOST_WAITING = 64
"""Samples that wait at most until they are observed together: Python that was not run for a few milliseconds has
left the processor's caches, and is several times as slow as in a loop."""
MOST_OUTCOMES = 1000
"""Outcomes that are kept in memory; the store has them all."""


class Guard:
    """Observes, judges and keeps a run's memory; a context manager."""

    def __init__(  # noqa: PLR0913 - the one call that users make; everything is keyword-only
        self,
        settings: GuardSettings | None = None,
        *,
        max_memory: str | Bytes | None = None,
        max_host_memory: str | Bytes | None = None,
        out: str | Path | None = None,
        levers: Levers | None = None,
        clock: Clock | None = None,
        observer: Observer | None = None,
        machine: MachineMemory | None = None,
    ) -> None:
        """Set up a guard; nothing is read or written before it is entered.

        Args:
            settings: All settings at once.
            max_memory: The budget of the pool in which the training's tensors live, such as `70GB`: the device's,
                or the host's where there is none; overrides the settings.
            max_host_memory: The budget of the host's memory when a device is used; overrides the settings.
            out: The folder of the run; overrides the settings.
            levers: The loop's side of the remedies.
            clock: A stand-in for the machine's clock.
            observer: A stand-in for what reads memory.
            machine: A stand-in for what the machine has.

        Raises:
            UnitError: A budget is no size.
        """
        given: dict[str, Any] = {} if out is None else {"out": Path(out)}
        for name, size in (("max_memory", max_memory), ("max_host_memory", max_host_memory)):
            given |= {} if size is None else {name: _size(size)}
        self.settings = settings = replace(settings or GuardSettings(), **given)
        self.levers = levers or Levers()
        self.limits: tuple[LimitChange, ...] = ()
        """The frameworks' own limits, before and now."""
        self.outcomes: deque[Outcome] = deque(maxlen=MOST_OUTCOMES)
        """What actions did, the newest last."""
        self.facts: dict[str, Any] = {}
        """Facts on this process for the store: set before the guard is entered."""
        self._step = settings.first_step  # a plain number: the hook adds to it at each step
        self.stop_reason: str | None = None
        """Why the run must stop; None as long as it may go on."""
        self.recycling = False
        """Whether the run stops so that a fresh process goes on."""
        self._clock = clock or SystemClock()
        self._observer = observer
        self._machine = machine
        self._said: set[str] = set()
        self._rehearsed: dict[str, float] = {}
        self._losses = Losses()

    def __enter__(self) -> Self:
        """Find the budget, set the frameworks' limits, open the store, take the first sample.

        Raises:
            ConfigError: The budget cannot be kept.
            StoreError: The folder of the run cannot be written.
        """
        self._entered = self._clock.elapsed()
        self.observer = self._observer or Observer(self._clock.elapsed)
        budgets, machine = read_budgets(self.settings, self.observer, self._machine)
        self.core = GuardCore(budgets, configure(self.settings, machine, self.levers))
        self._knows_device = budgets.device is not None or budgets.unified
        if self.settings.set_limits:
            self.limits = set_framework_limits(self.budget, wired=self.settings.wired_limit)
        self._account = Account()
        self._store = None if self.settings.out is None else self._open_store(self.settings.out)
        self.core.record(self.observer.sample(self.step_number, everything=True))  # nothing is done before step 1
        now = self._clock.elapsed()
        self._startup = now - self._entered
        self._first_hook = self._last_sample = now
        self._next_flush = now + FLUSH_EVERY
        self._stride, self._next_stop = 1, 0.0
        self._next_sample = self._sampled = self._step
        self._waiting: list[Sample] = []
        self._judging = Pace(JUDGING)
        due = self.core.replacement.due_at
        self._recycle_at = NEVER if due is None else due
        if self.settings.replacement.is_configured and self.levers.recycle is None:
            self._say_once("recycling is refused: " + NO_RECYCLING)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Judge the whole run, store the verdict, release everything."""
        if error is not None:
            self.mark("error", message=f"{kind.__name__ if kind else ''}: {error}")
        try:  # a last sample only: no action on a loop that has ended, or failed within a step
            self._handle_waiting()
            self._note_verdict(self.core.judge_end(self.observer.sample(self.step_number, everything=True)))
        except not_the_scripts(Exception) as failure:  # a guard never kills what it guards
            self._say_once(f"the guard could not judge the run: {failure!r}")
        finally:
            self._flush()
            if self._store is not None:
                self._store.close()
            self.observer.close()

    @property
    def step_number(self) -> Step:
        """The step that ended last."""
        return Step(self._step)

    @property
    def budget(self) -> Budget:
        """The memory that the run may use of the pool in which the training's tensors live."""
        return self.core.budgets.main

    @property
    def budgets(self) -> Budgets:
        """The memory that the run may use, by pool."""
        return self.core.budgets

    @property
    def verdict(self) -> Verdict:
        """The newest judgement."""
        return self.core.verdict

    @property
    def overhead(self) -> Overhead:
        """What the guard has cost so far."""
        account = self._account
        return Overhead(
            guard_seconds=account.total,
            run_seconds=self._last_sample - self._first_hook,
            step_us_mean=1e6 * account.total / max(account.steps, 1),
            step_us_p50=1e6 * account.percentile(0.50),
            step_us_p99=1e6 * account.percentile(0.99),
            startup_seconds=self._startup,
        )

    def steps(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches, count a step after each, and end early if the run must stop; then yield no more."""
        for batch in () if self.stop_reason is not None else batches:
            yield batch
            self.step()
            if self.stop_reason is not None:
                return

    def step(self, *, loss: float | None = None) -> None:
        """Count an optimizer step that has ended.

        Args:
            loss: The step's loss, for the report, which names the first step whose loss is not finite.
        """
        self._step += 1
        if loss is not None:
            self._losses.add(loss, self._step)
        if self._step >= self._next_sample:
            self._sample()

    def mark(self, kind: str, **facts: Any) -> None:  # noqa: ANN401 - any JSON value
        """Mark an event of the run: `epoch`, `evaluation`, `checkpoint`, or a word of your own."""
        if self._store is None:
            return
        try:
            self._store.mark(self.step_number, self._clock.elapsed() - self._entered, kind, facts)
        except not_the_scripts(Exception) as error:  # a guard never kills what it guards
            self._say_once(f"the mark {kind!r} cannot be stored: {error}")

    @contextmanager
    def evaluation(self) -> Iterator[dict[str, Any]]:
        """Mark an evaluation, from its beginning to its end; what is put into the dict is stored."""
        began = self._clock.elapsed()
        facts: dict[str, Any] = {}
        yield facts
        self.mark("evaluation", lasted=self._clock.elapsed() - began, **facts)

    def stop(self, reason: str) -> None:
        """Ask the loop to end after this step."""
        self.stop_reason = self.stop_reason or reason

    def summary(self) -> dict[str, Any]:
        """Return the judgement so far as JSON (schema 1), without command and exit code."""
        self._handle_waiting()
        return RunSummary(
            verdict=self.verdict,
            steps=self._step,
            budgets=self.budgets,
            outcomes=self.outcomes,
            overhead=self.overhead,
            peak=self._peak(),
            loss=self._losses.as_json(),
        ).as_json()

    def _sample(self) -> None:
        """Take a sample, act on it, and schedule the next one."""
        began = self._clock.elapsed()
        loss, spent = self._losses.take_mean(), 0.0
        try:
            sample = self.observer.sample(Step(self._step), loss=loss)
            self._waiting.append(sample)
            known = sample.device is None or self._knows_device
            if known and len(self._waiting) < MOST_WAITING and self.core.can_wait(sample):
                self._next_sample = min(self._step + self._stride, self._recycle_at)
                self._account.wait(self._clock.elapsed() - began)
                return
            spent = self._handle_waiting()
        except not_the_scripts(Exception) as error:  # a guard never kills what it guards
            self._say_once(f"the guard could not sample memory: {error!r}")
        self._schedule(began, spent)

    def _schedule(self, began: float, spent: float) -> None:
        """Account for the newest sample and those that waited for it, and schedule the next one.

        Args:
            began: When the newest sample was begun.
            spent: Seconds that actions took since.
        """
        for name, reason in self.observer.failures.items():
            self._say_once(f"{name} is not read any more: {reason}")
        now = self._clock.elapsed()
        steps = self._step - self._sampled
        period = (began - self._last_sample) / max(steps, 1)
        self._stride = self._account.stride(now - began - spent, period, now - self._first_hook)
        self._next_sample, self._sampled, self._last_sample = self._step + self._stride, self._step, began
        if self._step < self._recycle_at:
            self._next_sample = min(self._next_sample, self._recycle_at)
        if now >= self._next_flush:
            self._flush()
        self._account.add(self._clock.elapsed() - began - spent, steps=steps)

    def _handle_waiting(self) -> float:
        """Hand the samples that wait to the core; returns the seconds that actions took."""
        waiting, self._waiting = self._waiting, []
        return sum(self._handle(sample) for sample in waiting)

    def _handle(self, sample: Sample) -> float:
        """Hand a sample to the core and carry out what it answers; returns the seconds of the actions."""
        began, spent = self._clock.elapsed(), 0.0
        if sample.device is not None and not self._knows_device:
            self._knows_device = True
            self.core.keep(read_budgets_anew(self.settings, self.observer, self._machine))
        for event in self.core.observe(sample):
            if isinstance(event, Verdict):
                self._judging.note(sample.seconds, self._clock.elapsed() - began)
                self.core.judge_after(self._judging.due)
                self._note_verdict(event)
            else:
                spent += self._rehearse(event) if self.settings.dry_run else self._act(event)
        return spent

    def _act(self, decision: Decision) -> float:
        """Carry out a decision, measure and record it; return the seconds that it took."""
        if not (decision.configured or applies(decision.action)):
            return 0.0
        if decision.action in {"stop", "recycle"}:
            if self.stop_reason is not None or self._clock.elapsed() < self._next_stop:
                return 0.0
            self._next_stop = self._clock.elapsed() + STOP_AGAIN
        in_use, elapsed = self.observer.in_use, self._clock.elapsed
        before = in_use()
        outcome = perform(decision, self.levers, measure=lambda: sum(in_use()), elapsed=elapsed)
        if decision.action != "recycle" or outcome.error is not None:
            self.core.learn(outcome.action, in_use().since(before), in_use())
            self.note(outcome)
        if outcome.error is not None:
            self._say_once(f"{decision.action} failed: {outcome.error}")
        elif decision.action in {"stop", "recycle"}:
            self.recycling = decision.action == "recycle"
            self.stop(decision.reason)
        if self._store is not None:
            self._store.decision(decision)
        return outcome.seconds

    def _rehearse(self, decision: Decision) -> float:
        """Record what would be done, from time to time; it takes no time."""
        now = self._clock.elapsed()
        if now >= self._rehearsed.get(decision.action, 0.0):
            self._rehearsed[decision.action] = now + STOP_AGAIN
            self.note(rehearsed(decision))
        return 0.0

    def note(self, outcome: Outcome) -> None:
        """Record what an action did."""
        self.outcomes.append(outcome)
        if self._store is not None:
            self._store.outcome(outcome)

    def _peak(self) -> dict[str, int | None]:
        """The largest memory of the run, by the kernel's own mark where there is one."""
        peak = self.core.timeline.peak
        device = max(peak("device_peak") or 0, peak("device_reserved") or 0)
        return {
            "host_bytes": int(max(peak("peak_resident") or 0, peak("resident") or 0)),
            "device_bytes": int(device) if device else None,
        }

    def _note_verdict(self, verdict: Verdict) -> None:
        """Store a judgement."""
        if self._store is not None:
            self._store.verdict(verdict)

    def _flush(self) -> None:
        """Write new data to the store; an error is logged once, and the data is kept for the next write."""
        if self._store is None:
            return
        began = self._clock.elapsed()
        try:
            self._store.summary(self.summary())
            self._store.flush(self.core.timeline)
        except not_the_scripts(Exception) as error:  # a guard never kills what it guards
            self._say_once(str(error) if isinstance(error, StoreError) else repr(error))
        now = self._clock.elapsed()
        self._next_flush = now + min(max(FLUSH_EVERY, (now - began) / FLUSH_SHARE), 30.0)

    def _open_store(self, out: Path) -> RunStore:
        """Open the run's database and begin a session in it."""
        store = RunStore(out, rank=self.settings.rank)
        facts = {
            "pid": os.getpid(),
            "budget": str(self.budgets),
            "budget_bytes": int(self.budget.limit),
            "budgets": summarise_budgets(self.budgets),
            "limits": [str(change) for change in self.limits],
            **self.facts,
        }
        store.begin(began=self._clock.wall(), first_step=self.step_number, facts=facts)
        return store

    def _say_once(self, message: str) -> None:
        """Log a warning the first time."""
        if message not in self._said and len(self._said) < MOST_OUTCOMES:
            self._said.add(message)
            log.warning(message)


def _size(text: str | Bytes) -> Bytes:
    """A size that was given as text or in bytes."""
    return Bytes(text) if isinstance(text, int) else parse_size(text, bare_unit="GB")
