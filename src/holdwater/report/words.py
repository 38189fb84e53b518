"""Describe a run's verdict and numbers as text."""

from typing import Any

import numpy as np

from holdwater.budget import Budget
from holdwater.clock import format_duration
from holdwater.detectors.verdict import COUNTED
from holdwater.store.history import History
from holdwater.units import format_rate, format_size

HEADLINES = {
    "flat": "Memory stayed flat.",
    "bounded": "Memory rose, then stopped.",
    "cyclic": "Memory rises and falls again.",
    "warming": "Memory still rises: too early to judge.",
    "leak": "Memory leaks.",
    "fragmentation": "Memory is fragmented.",
    "pressure": "Memory ran short.",
    "unknown": "Too few steps to judge.",
}


def headline(summary: dict[str, Any] | None) -> str:
    """The verdict in one sentence."""
    return HEADLINES["unknown" if summary is None else summary["verdict"]]


def loss_in_words(summary: dict[str, Any] | None) -> str:
    """The first step whose loss was not finite, as a sentence; empty if there was none."""
    first = ((summary or {}).get("loss") or {}).get("first_nonfinite_step")
    return "" if first is None else f"The loss of step {first:,} was the first that is not finite."


def slope_in_words(finding: dict[str, Any]) -> str:
    """A finding's slope and its interval."""
    rate = finding["rate"]
    if rate is None:
        return "too few steps for a slope"
    said = _number_a_step if finding["component"] in COUNTED else format_rate
    low = "−∞" if rate["low"] is None else said(rate["low"])
    high = "∞" if rate["high"] is None else said(rate["high"])
    return f"{said(rate['bytes_per_step'])} (95 % interval {low} to {high})"


def _number_a_step(rate: float) -> str:
    """A rate of what is counted, such as buffers."""
    return f"{rate:+,.0f}/step" if abs(rate) >= 100 else f"{rate:+.3g}/step"


def forecast_in_words(finding: dict[str, Any]) -> str:
    """A finding's forecast as text; empty if it has none."""
    forecast = finding["forecast"]
    if forecast is None:
        return ""
    if "settles_at_bytes" in forecast:
        if not forecast["steps"]:
            return f"has settled at {format_size(forecast['settles_at_bytes'])}"
        return f"settles at {format_size(forecast['settles_at_bytes'])} in {forecast['steps']:,.0f} steps"
    limit = forecast["limit_bytes"]
    what = f"limit of {limit:,}" if finding["component"] in COUNTED else f"budget of {format_size(limit)}"
    after = f"reaches the {what} in {forecast['steps']:,.0f} steps"
    return f"{after}, about {format_duration(forecast['seconds'])}"


def figures(history: History) -> list[tuple[str, str]]:
    """The main numbers, with their names."""
    summary = history.summary
    if summary is None:
        return [("steps", "none judged yet")]
    host, device = _peak(history, "host_bytes"), _peak(history, "device_bytes")
    rows = [("steps", f"{summary['steps']:,}"), ("peak resident memory", format_size(host))]
    if device:
        rows.append(("peak device memory reserved", format_size(device)))
    rows += _against_budgets(history, host, device)
    overhead = summary["overhead"]
    if overhead["run_seconds"]:
        share = overhead["guard_seconds"] / overhead["run_seconds"]
        label = f"cost of the guard, {overhead['step_us_mean']:.1f} µs a step"
        rows.append((label, f"{share:.2%} of the run"))
    if overhead.get("attribution_seconds"):
        rows.append(("objects counted and garbage collected", f"{overhead['attribution_seconds']:.1f} s"))
    return rows


def _against_budgets(history: History, host: int, device: int) -> list[tuple[str, str]]:
    """Each pool's budget, and its peak against it; a run of an older version has one budget.

    Args:
        history: The run's.
        host: The peak of resident memory, in bytes.
        device: The peak of reserved device memory, in bytes.
    """
    budgets = history.budgets
    if budgets is None:
        return []
    if budgets.device is None:
        held = _peak_together(history) if budgets.unified else max(host, device)
        return [
            (f"budget, {_origin(history, budgets.host)}", format_size(budgets.host.limit)),
            ("peak against budget", f"{held / budgets.host.limit:.1%}"),
        ]
    return [
        (f"budget of the device, {budgets.device.origin}", format_size(budgets.device.limit)),
        ("device's peak against its budget", f"{device / budgets.device.limit:.1%}"),
        (f"budget of the host, {budgets.host.origin}", format_size(budgets.host.limit)),
        ("host's peak against its budget", f"{host / budgets.host.limit:.1%}"),
    ]


def _origin(history: History, budget: Budget) -> str:
    """Where a budget comes from, by the summary: the facts of older runs do not have it."""
    summary = history.summary
    return str(budget.origin if summary is None else summary["budget"]["origin"])


def _peak_together(history: History) -> float:
    """The most shared memory that host and device held at once, in bytes."""
    samples = history.samples
    parts = np.nan_to_num(np.stack([samples.highs("resident"), samples.highs("device_reserved")]))
    return float(parts.sum(axis=0).max(initial=0.0))


def _peak(history: History, name: str) -> int:
    """The largest of all sessions: a run that was killed over its budget did not keep it."""
    return max((s.summary["peak"][name] or 0 for s in history.sessions if s.summary is not None), default=0)


def how_it_ended(history: History) -> str:
    """Whether the run was recycled, killed or stopped, as text; empty if none of these."""
    recycled = sum(outcome["action"] == "recycle" for outcome in history.outcomes)
    resumed = max(len(history.sessions) - 1 - recycled, 0)
    parts = [f"moved to a fresh process {_times(recycled)}"] if recycled else []
    parts += [f"killed or stopped, and resumed, {_times(resumed)}"] if resumed else []
    return " and ".join(parts)


def _times(count: int) -> str:
    """A number of times."""
    return "once" if count == 1 else f"{count} times"
