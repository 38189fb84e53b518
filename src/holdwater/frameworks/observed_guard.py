"""A guard that names the line and the holder of a leak: a second process watches, as `holdwater run` does.

    with ObservedGuard(max_memory="70GB", out="runs/today") as guard:
        for batch in guard.steps(loader):
            ...

The guard keeps the budget. The process beside it judges, and asks for an explanation; it ends with the guard.
Under `holdwater run` there is such a process already: then the guard counts steps for it, and starts none.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from holdwater.errors import StoreError
from holdwater.frameworks.attached_session import AttachedSession, observing_session
from holdwater.guard.guard import Guard
from holdwater.guard.settings import GuardSettings
from holdwater.observe.agent.session import Session
from holdwater.observe.attached_run import WatchRequest
from holdwater.observe.news import GRAVE
from holdwater.signal_errors import not_the_scripts
from holdwater.store.run_store import amend_summary
from holdwater.units import Bytes

log = logging.getLogger("holdwater")

MEGABYTE = 1e6
SPACING = 1 / 50
"""The part of the time passed that may lie between two samples of the guard, where a process beside it judges."""


class ObservedGuard(Guard):
    """A guard that explains what it finds; used like `holdwater.Guard`."""

    _attached: AttachedSession | None = None
    """None under `holdwater run`, and where no process could be started."""
    _session: Session | None = None
    _last_metrics: Mapping[str, float] | None = None
    """When training has ended."""
    is_observed_already = False
    """Whether `holdwater run` observes this process: its verdict is the run's."""
    quiet = False
    """Whether the process beside prints nothing while training goes on; set before the guard is entered."""

    @classmethod
    def for_rank(  # noqa: PLR0913 - what the one line of a user says; everything is keyword-only
        cls,
        rank: int = 0,
        *,
        max_memory: str | Bytes | None = None,
        max_host_memory: str | Bytes | None = None,
        out: str | Path | None = None,
        first_step: int = 0,
        quiet: bool = False,
    ) -> Self:
        """Make a guard for one process of a run; the frameworks' own limits stay as they are.

        Args:
            rank: The number of this process among those of the run.
            max_memory: The budget of the pool in which tensors live, such as `70GB`; None finds one.
            max_host_memory: The budget of the host's memory beside a device; None finds one.
            out: The folder of the run; None stores nothing.
            first_step: The last step that was done before.
            quiet: Print nothing while training goes on.

        Raises:
            UnitError: A budget is no size.
        """
        settings = GuardSettings(rank=rank, first_step=first_step, set_limits=False)
        guard = cls(settings, max_memory=max_memory, max_host_memory=max_host_memory, out=out)
        guard.quiet = quiet
        return guard

    def __enter__(self) -> Self:
        """Begin to guard, and to observe.

        Raises:
            ConfigError: The budget cannot be kept.
            StoreError: The folder of the run cannot be written.
        """
        super().__enter__()
        self._session = session = observing_session()
        if session is not None:
            self.is_observed_already, self._account.spacing = True, SPACING
            session.source = session.channel.source = "holdwater.step"  # from the first step on
            return self
        try:
            self._observe()
        except not_the_scripts(Exception) as error:  # a guard never kills what it guards
            log.warning("this run is guarded, but its growth will not be explained: %r", error)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Judge the whole run, store the verdict, release everything."""
        self._session = None
        judged = None if self._attached is None else self._attached.end()
        self._last_metrics = self.metrics()
        super().__exit__(kind, error, trace)
        if self.settings.out is not None and judged is not None:
            try:
                amend_summary(self.settings.out, self.summary(), rank=self.settings.rank)
            except not_the_scripts(StoreError, OSError) as failure:
                log.warning("%s", failure)

    def step(self, *, loss: float | None = None) -> None:
        """Count an optimizer step that has ended.

        Args:
            loss: The step's loss, for the report, which names the first step whose loss is not finite.
        """
        super().step(loss=loss)
        if self._session is not None:
            self._session.step("holdwater.step")

    def mark(self, kind: str, **facts: Any) -> None:  # noqa: ANN401 - any JSON value
        """Mark an event of the run: `epoch`, `evaluation`, `checkpoint`, or a word of your own."""
        super().mark(kind, **facts)
        if self._attached is not None:
            self._attached.mark(kind)

    def summary(self) -> dict[str, Any]:
        """Return the judgement so far as JSON (schema 1), without command and exit code."""
        own = super().summary()
        seen = self._seen()
        if seen is None or seen["verdict"] == "unknown":
            return own
        kept: dict[str, Any] = {name: own[name] for name in ("steps", "budget", "budgets", "loss") if name in own}
        peak = {name: max(own["peak"][name] or 0, size or 0) or None for name, size in seen["peak"].items()}
        pressed = [one for one in own["findings"] if one["verdict"] == "pressure"]
        findings = seen["findings"] if seen["verdict"] in {"leak", "pressure"} else [*pressed, *seen["findings"]]
        return {**seen, **kept, "peak": peak, "findings": findings, "actions": [*own["actions"], *seen["actions"]],
                "verdict": findings[0]["verdict"] if findings else seen["verdict"]}  # fmt: skip

    def metrics(self) -> dict[str, float]:
        """What is in use, and how fast it grows, as numbers for a logger.

        Returns:
            `memory/host_mb`, `memory/device_mb` where one is used, `memory/budget_percent`, and with a leak
            `memory/leak_bytes_per_step`.
        """
        if self._last_metrics is not None:
            return dict(self._last_metrics)
        host, device = self.observer.in_use()
        used = device or host
        found = {"memory/host_mb": host / MEGABYTE, "memory/budget_percent": 100 * used / int(self.budget.limit)}
        if device:
            found["memory/device_mb"] = device / MEGABYTE
        seen = self._seen()
        rate = self._own_leak() if seen is None else _leak(seen)
        return found if rate is None else found | {"memory/leak_bytes_per_step": rate}

    def finding(self) -> str | None:
        """The gravest leak, fragmentation or pressure so far, as one line of text; None without one."""
        grave = [one for one in self.summary()["findings"] if one["verdict"] in GRAVE]
        if not grave:
            return None
        held = [one for one in grave[0]["sites"] if one["role"] == "held"]
        where = f", held by {held[0]['name']} at {held[0]['file']}:{held[0]['line']}" if held else ""
        return f"{grave[0]['verdict']} of {grave[0]['component']}: {grave[0]['advice']}{where}"

    def _seen(self) -> Mapping[str, Any] | None:
        """The newest verdict of the process beside; None before the first."""
        return None if self._attached is None else self._attached.newest()

    def _own_leak(self) -> float | None:
        """Bytes per step of the leak that the guard itself has found so far; None without one."""
        rates = [one.rate.bytes_per_step for one in self.verdict.findings if one.verdict == "leak" and one.rate]
        return max(rates, default=None)

    def _observe(self) -> None:
        """Start the process beside this one."""
        settings = self.settings
        self._attached = AttachedSession(WatchRequest(
            max_memory=settings.max_memory, max_host_memory=settings.max_host_memory, rank=settings.rank,
            first_step=settings.first_step, quiet=self.quiet,
        ))  # fmt: skip
        self._session = self._attached.session
        self._account.spacing = SPACING


def _leak(verdict: Mapping[str, Any]) -> float | None:
    """Bytes per step of the largest leak of a verdict; None without one."""
    rates = [one["rate"]["bytes_per_step"] for one in verdict["findings"]
             if one["verdict"] == "leak" and one["rate"]]  # fmt: skip
    return max(rates, default=None)
