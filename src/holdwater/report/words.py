"""A run's judgement in words."""

from typing import Any

from holdwater.clock import format_duration
from holdwater.store.history import History
from holdwater.units import format_rate, format_size

HEADLINES = {
    "flat": "Memory stayed flat.",
    "bounded": "Memory rose, then stopped.",
    "cyclic": "Memory comes and goes.",
    "warming": "Memory still rises, ever more slowly: too early to judge.",
    "leak": "Memory leaks.",
    "fragmentation": "Memory is fragmented.",
    "pressure": "Memory ran short.",
    "unknown": "Too few steps to judge.",
}


def headline(summary: dict[str, Any] | None) -> str:
    """The verdict in one sentence."""
    return HEADLINES["unknown" if summary is None else summary["verdict"]]


def slope_in_words(finding: dict[str, Any]) -> str:
    """A finding's slope and its interval."""
    rate = finding["rate"]
    if rate is None:
        return "too few steps for a slope"
    low = "−∞" if rate["low"] is None else format_rate(rate["low"])
    high = "∞" if rate["high"] is None else format_rate(rate["high"])
    return f"{format_rate(rate['bytes_per_step'])} (95 % interval {low} to {high})"


def forecast_in_words(finding: dict[str, Any]) -> str:
    """Where a finding leads; empty if nowhere."""
    forecast = finding["forecast"]
    if forecast is None:
        return ""
    if "settles_at_bytes" in forecast:
        if not forecast["steps"]:
            return f"has settled at {format_size(forecast['settles_at_bytes'])}"
        return f"settles at {format_size(forecast['settles_at_bytes'])} in {forecast['steps']:,.0f} steps"
    after = f"reaches the budget of {format_size(forecast['limit_bytes'])} in {forecast['steps']:,.0f} steps"
    return f"{after}, about {format_duration(forecast['seconds'])}"


def figures(history: History) -> list[tuple[str, str]]:
    """The few numbers that matter, with their names."""
    summary = history.summary
    if summary is None:
        return [("steps", "none judged yet")]
    budget = summary["budget"]["bytes"]
    peak = {name: _peak(history, name) for name in ("host_bytes", "device_bytes")}
    rows = [
        ("steps", f"{summary['steps']:,}"),
        ("peak resident memory", format_size(peak["host_bytes"])),
        (f"budget, {summary['budget']['origin']}", format_size(budget)),
        ("peak against budget", f"{max(peak['host_bytes'], peak['device_bytes']) / budget:.1%}"),
    ]
    if peak["device_bytes"]:
        rows.insert(2, ("peak device memory reserved", format_size(peak["device_bytes"])))
    overhead = summary["overhead"]
    if overhead["run_seconds"]:
        share = overhead["guard_seconds"] / overhead["run_seconds"]
        label = f"cost of the guard, {overhead['step_us_mean']:.1f} µs a step"
        rows.append((label, f"{share:.2%} of the run"))
    if overhead.get("attribution_seconds"):
        rows.append(("objects counted and garbage collected", f"{overhead['attribution_seconds']:.1f} s"))
    return rows


def _peak(history: History, name: str) -> int:
    """The largest of all sessions: a run that was killed over its budget did not keep it."""
    return max((s.summary["peak"][name] or 0 for s in history.sessions if s.summary is not None), default=0)


def how_it_ended(history: History) -> str:
    """Whether the run was whole, recycled, killed, or stopped, for people; empty for a whole one."""
    recycled = sum(outcome["action"] == "recycle" for outcome in history.outcomes)
    resumed = max(len(history.sessions) - 1 - recycled, 0)
    parts = [f"moved to a fresh process {_times(recycled)}"] if recycled else []
    parts += [f"killed or stopped, and resumed, {_times(resumed)}"] if resumed else []
    return " and ".join(parts)


def _times(count: int) -> str:
    """A number of times."""
    return "once" if count == 1 else f"{count} times"
