"""The judgement of a run as JSON: schema 1 of `--json`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from holdwater.actions.perform import Outcome
from holdwater.attribution.patterns import named_pattern
from holdwater.attribution.site import Explanation
from holdwater.budget import Budgets
from holdwater.detectors.verdict import GRAVITY, Finding, Forecast, Plateau, Rate, Verdict
from holdwater.guard.account import Overhead

SCHEMA = 1
_PRIVATE = {"host.native", "host.python", "host.tensors"}
_LASTING = {"leak", "pressure", "fragmentation"}
"""Verdicts of one process that hold for the run, even if a later process starts afresh."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """The summary of a run, from the guard or the watcher; only `as_json` makes JSON of it."""

    verdict: Verdict
    steps: int
    budgets: Budgets
    overhead: Overhead
    peak: dict[str, int | None]
    """`host_bytes` and `device_bytes`."""
    loss: dict[str, int | None] | None = None
    """`first_nonfinite_step`; None if the loop reports no loss."""
    outcomes: Iterable[Outcome] = ()
    """What was done about memory."""
    experiments: Sequence[dict[str, Any]] = ()
    """The experiments before a leak was reported, as actions."""
    explanations: Mapping[Finding, Explanation] = field(default_factory=dict)
    attribution_seconds: float = 0.0
    """Seconds that counting and explaining cost the process."""
    watching: dict[str, float] = field(default_factory=dict)
    """The watcher's own cost: `watcher_seconds`, `watcher_grew_bytes`."""
    step_source: str | None = None
    """What counts the steps; None if the caller's own loop does."""
    seconds_per_step: float | None = None
    """The length of a tick, for a run that is judged by the clock."""
    parts: dict[str, int] | None = None
    """The split of resident memory."""
    evidence: dict[str, Any] | None = None
    errors: Sequence[str] = ()
    """Errors of readings and of the watcher."""

    def as_json(self) -> dict[str, Any]:
        """Schema 1, without the command and its exit code."""
        budget = self.budgets.main
        costs = {"attribution_seconds": self.attribution_seconds} | self.watching
        optional = {
            "loss": self.loss,
            "step_source": self.step_source,
            "seconds_per_step": self.seconds_per_step,
            "parts": self.parts,
            "evidence": self.evidence,
            "errors": list(self.errors) or None,
        }
        return {
            "schema": SCHEMA,
            "steps": self.steps,
            "verdict": self.verdict.kind,
            "findings": summarise_findings(self.verdict, self.explanations),
            "actions": [*map(_action, self.outcomes), *self.experiments],
            "overhead": asdict(self.overhead) | costs,
            "peak": self.peak,
            "budget": {"bytes": int(budget.limit), "origin": budget.origin, "reason": budget.reason},
            "budgets": summarise_budgets(self.budgets),
        } | {name: value for name, value in optional.items() if value is not None}


def of_command(summary: Mapping[str, Any], command: Sequence[str], exit_code: int) -> dict[str, Any]:
    """The whole of `--json`: a run's summary with the command that made it.

    Args:
        summary: As JSON.
        command: As the user typed it.
        exit_code: The command's.
    """
    return {"schema": summary["schema"], "command": list(command), "exit_code": exit_code} | dict(summary)


def summarise_budgets(budgets: Budgets) -> dict[str, dict[str, Any]]:
    """The budget of each pool, by the pool's name."""
    return {
        name: {"limit_bytes": int(budget.limit), "origin": budget.origin, "reason": budget.reason}
        for name, budget in budgets.by_name().items()
    }


def join_summaries(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Combine the judgements of a run's processes.

    Args:
        summaries: One for each process in order, at least one. Growth in any of them is a finding; of one kind and
            component the newest is kept, and `unknown` counts only if no process could be judged.
    """
    newest = next((one for one in reversed(summaries) if one["verdict"] != "unknown"), summaries[-1])
    findings: dict[tuple[str, str], dict[str, Any]] = {}
    for summary in summaries:
        for finding in summary["findings"]:
            key = (finding["verdict"], finding["component"])
            first = findings.get(key, finding)
            if finding["verdict"] in _LASTING or summary is newest:
                findings[key] = _begun_as(first, finding)
    rows = sorted(findings.values(), key=lambda finding: GRAVITY.index(finding["verdict"]))
    if any(_is_private_leak(row) and row["sites"] for row in rows):  # later processes are not asked again
        rows = [row for row in rows if row["sites"] or not _is_private_leak(row)]
    if len(summaries) > 1 and any(row["verdict"] != "unknown" for row in rows):
        rows = [row for row in rows if row["verdict"] != "unknown"]
    kinds = {row["verdict"] for row in rows} or {newest["verdict"]}
    added = ("guard_seconds", "run_seconds", "attribution_seconds")
    overheads = [summary["overhead"] for summary in summaries]
    peaks = [summary["peak"] for summary in summaries]
    losses = [summary["loss"]["first_nonfinite_step"] for summary in summaries if "loss" in summary]
    first_nonfinite = min((step for step in losses if step is not None), default=None)
    return (
        summaries[-1]
        | {
            "verdict": next((kind for kind in GRAVITY if kind in kinds), "unknown"),
            "findings": rows,
            "actions": [action for summary in summaries for action in summary["actions"]],
            "overhead": newest["overhead"] | {name: sum(one[name] for one in overheads) for name in added},
            "peak": {name: max((one[name] or 0 for one in peaks), default=0) or None for name in newest["peak"]},
            "budgets": {name: row for summary in summaries for name, row in summary.get("budgets", {}).items()},
            "processes": len(summaries),
        }
        | ({"loss": {"first_nonfinite_step": first_nonfinite}} if losses else {})
    )


def _begun_as(first: dict[str, Any], finding: dict[str, Any]) -> dict[str, Any]:
    """A finding with the onset of the earlier process that had it first."""
    began, begins = (f"since step {one['onset_step']}" for one in (finding, first))
    said = finding["advice"].replace(began, begins)
    return finding | {name: first[name] for name in ("onset_step", "detected_step")} | {"advice": said}


def _is_private_leak(finding: Mapping[str, Any]) -> bool:
    """Whether a finding is a leak of private memory."""
    return finding["verdict"] == "leak" and finding["component"] in _PRIVATE


def summarise_findings(
    verdict: Verdict, explanations: Mapping[Finding, Explanation] | None = None
) -> list[dict[str, Any]]:
    """The findings alone, the most severe first, each with its explanation."""
    return [_finding(finding, (explanations or {}).get(finding)) for finding in verdict.findings]


def _finding(finding: Finding, explanation: Explanation | None) -> dict[str, Any]:
    """One finding; an unexplained one has the share zero."""
    row = _judged(finding)
    if explanation is None:
        return row
    row |= {
        "explained": explanation.explained,
        "answer": explanation.answer,
        "sites": [asdict(site) for site in explanation.sites],
        "explained_step": explanation.step,
        "chain": list(explanation.chain),
        "missing": list(explanation.missing),
    }
    known = explanation.pattern if row["pattern"] is None else named_pattern(row["pattern"])
    if known is not None:
        row |= {"pattern": known.name, "known": asdict(known)}
    return row


def _judged(finding: Finding) -> dict[str, Any]:
    """One finding without its explanation."""
    return {
        "verdict": finding.verdict,
        "component": finding.component,
        "rate": None if finding.rate is None else _rate(finding.rate),
        "follows": finding.follows,
        "onset_step": finding.onset_step,
        "detected_step": finding.detected_step,
        "forecast": None if finding.forecast is None else _forecast(finding.forecast),
        "explained": 0.0,
        "sites": [],
        "pattern": finding.pattern,
        "advice": finding.message,
    }


def _rate(rate: Rate) -> dict[str, float | None]:
    """A rate with its interval; an infinite end is null."""
    return {
        "bytes_per_step": rate.bytes_per_step,
        "low": _finite(rate.low),
        "high": _finite(rate.high),
        "bytes_per_event": rate.bytes_per_step if rate.per_event is None else rate.per_event,
        "every_steps": rate.every_steps,
    }


def _forecast(forecast: Forecast | Plateau) -> dict[str, float | None]:
    """A forecast; an infinite end is null."""
    return {name: _finite(value) for name, value in asdict(forecast).items()}


def _action(outcome: Outcome) -> dict[str, Any]:
    """What an action did; an error only if there was one."""
    row = asdict(outcome)
    return row if row["error"] is not None else {key: row[key] for key in row if key != "error"}


def _finite(value: float) -> float | None:
    """A number, or null for infinity, which JSON does not have."""
    return value if math.isfinite(value) else None
