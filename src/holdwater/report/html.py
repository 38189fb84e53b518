"""Write the report of a run as one self-contained HTML file."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Literal

import numpy as np

from holdwater.report.explained import explanations_as_html
from holdwater.report.parts import MemoryParts, memory_parts
from holdwater.report.plot import Chart, Level, PlotSeries
from holdwater.report.words import (
    figures,
    forecast_in_words,
    headline,
    how_it_ended,
    loss_in_words,
    slope_in_words,
)
from holdwater.store.history import History
from holdwater.timeline.buckets import thin
from holdwater.units import format_size

POINTS = 700
"""Most points in a chart; thinning keeps peaks."""


@dataclass(frozen=True, slots=True)
class _Figure:
    """A chart with its captions."""

    name: str
    title: str
    note: str
    chart: Chart
    unit_of: dict[str, Any]
    """What the pointer shows: steps, and rows of written values."""


def write_html(history: History, path: Path, *, note: str = "") -> None:
    """Write the report.

    Args:
        history: The run's.
        path: The file to write.
        note: The rank that is shown; empty for a run of one process.

    Raises:
        OSError: The file cannot be written.
    """
    path.write_text(render_html(history, note=note), encoding="utf-8")


def render_html(history: History, *, note: str = "") -> str:
    """Return the report as the text of an HTML file."""
    summary = history.summary
    drawn = _figures(history)
    template = Template((files("holdwater.report") / "page.html").read_text(encoding="utf-8"))
    name = history.path.parent.name
    return template.substitute(
        title=escape(f"holdwater: {name}"),
        name=escape(name),
        verdict="unknown" if summary is None else summary["verdict"],
        headline=escape(headline(summary)),
        lead=escape(f"{note} {_lead(history)}".strip()),
        tiles="".join(
            f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
            for label, value in figures(history)
        ),
        charts="".join(map(_section, drawn)),
        findings=_findings(summary) + explanations_as_html(summary),
        actions=_actions(history),
        facts=_facts(history),
        footer=escape(f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC from {history.path.name}."),
        data=json.dumps({figure.name: figure.unit_of for figure in drawn}).replace("</", "<\\/"),
    )


def _lead(history: History) -> str:
    """The lines under the verdict: the slope, and how the run ended."""
    summary = history.summary
    parts = []
    if summary is not None and summary["findings"]:
        finding = summary["findings"][0]
        parts.append(f"Slope after warm-up: {slope_in_words(finding)}.")
        if finding["forecast"]:
            parts.append(f"It {forecast_in_words(finding)}.")
    ended = how_it_ended(history)
    if ended:
        parts.append(f"The run was {ended}.")
    if loss_in_words(summary):
        parts.append(loss_in_words(summary))
    return " ".join(parts)


def _figures(history: History) -> list[_Figure]:
    """The charts that have data."""
    if not len(history.samples):
        return []
    samples = thin(history.samples, POINTS)
    parts = memory_parts(samples)
    drawn = [_memory_figure(history, parts)]
    steps = samples.last_step.astype(np.float64)
    if samples.seen("device_reserved"):
        reserved, allocated = samples.highs("device_reserved"), samples.highs("device_allocated")
        lines = [
            PlotSeries("reserved", reserved, "--device"),
            PlotSeries("allocated", allocated, "--allocated"),
        ]
        peak = float(np.nanmax(reserved)) or 1.0
        levels = _levels(history, "device")
        top = max(1.15 * peak, *(1.12 * level.value for level in levels if level.value < 3 * peak), 0.0)
        chart = Chart(steps, 0, top, format_size, 240, lines=lines, levels=levels)
        note = "Memory that the framework holds on the accelerator, and its part in live tensors."
        drawn.append(_Figure("device", "Device memory", note, chart, _pointer(steps, lines, format_size)))
    if samples.seen("loss"):
        loss = samples.means("loss")
        lines = [PlotSeries("loss", loss, "--loss")]
        spread = max(float(np.nanmax(loss) - np.nanmin(loss)), 1e-9)
        low, high = float(np.nanmin(loss)) - 0.08 * spread, float(np.nanmax(loss)) + 0.05 * spread
        chart = Chart(steps, low, high, _write_loss, 220, lines=lines, marks=_marks(history))
        note = "Mean training loss; the ticks are evaluations, checkpoints and epochs."
        drawn.append(_Figure("loss", "Loss", note, chart, _pointer(steps, lines, _write_loss)))
    return drawn


def _memory_figure(history: History, parts: MemoryParts) -> _Figure:
    """Memory by part over steps, with the budget and the marks."""
    peak = max(float(np.nanmax(parts.total)), 1.0)
    levels = _levels(history, "host")
    top = 1.12 * max(peak, *(level.value for level in levels if level.value < 3 * peak), 0.0)
    chart = Chart(
        parts.steps,
        0,
        top,
        format_size,
        areas=parts.areas,
        levels=levels,
        marks=_marks(history),
    )
    total = PlotSeries("all together", parts.total, "--ink")
    return _Figure(
        "memory",
        "Memory by part",
        "Resident memory of the process and its children at the end of each step; the highest of each bucket.",
        chart,
        _pointer(parts.steps, [total, *reversed(parts.areas)], format_size),
    )


def _section(figure: _Figure) -> str:
    """A chart in its frame, with its legend."""
    series = [*figure.chart.areas, *figure.chart.lines]
    legend = "".join(
        f'<span><i style="background:var({one.colour})"></i>{escape(one.name)}</span>' for one in series
    )
    kinds = dict.fromkeys(kind for _, kind, _ in figure.chart.marks)
    colours = {"checkpoint": "--good", "evaluation": "--loss", "resumed": "--bad"}
    legend += "".join(
        f'<span><i style="background:var({colours.get(kind, "--soft")});width:4px"></i>{escape(kind)}</span>'
        for kind in kinds
    )
    return (
        f"<section><h2>{escape(figure.title)}</h2><p class='note'>{escape(figure.note)}</p>"
        f"<div class='plot'>{figure.chart.svg(figure.name)}</div><div class='legend'>{legend}</div></section>"
    )


def _pointer(steps: Any, series: Iterable[PlotSeries], write: Any) -> dict[str, Any]:  # noqa: ANN401
    """What the pointer shows at each step."""
    return {
        "steps": [int(step) for step in steps],
        "rows": [
            {
                "name": one.name,
                "values": [None if np.isnan(value) else write(float(value)) for value in one.values],
            }
            for one in series
        ],
    }


def _marks(history: History) -> list[tuple[float, str, str]]:
    """Events to mark: evaluations, checkpoints, epochs, and where the run was resumed."""
    marks = [
        (float(mark.step), mark.kind, f"{mark.kind} at step {mark.step}")
        for mark in history.marks[-400:]
        if mark.kind in {"evaluation", "checkpoint", "epoch"}
    ]
    first, last = int(history.samples.first_step[0]), int(history.samples.last_step[-1])
    resumed = [
        (float(session.first_step), "resumed", f"resumed from step {session.first_step}")
        for session in history.sessions[1:]
    ]
    return [mark for mark in marks + resumed if first <= mark[0] <= last]


def _findings(summary: dict[str, Any] | None) -> str:
    """All findings as a table."""
    if summary is None or not summary["findings"]:
        return ""
    rows = "".join(
        f"<tr><td>{escape(finding['verdict'])}</td><td>{escape(finding['component'])}</td>"
        f"<td class='number'>{escape(slope_in_words(finding))}</td><td>{escape(finding['advice'])}"
        f"{'; ' if finding['forecast'] else ''}{escape(forecast_in_words(finding))}</td></tr>"
        for finding in summary["findings"]
    )
    head = "<tr><th>verdict</th><th>component</th><th>slope after warm-up</th><th>advice</th></tr>"
    return f"<section><h2>Findings</h2><div class='scroll'><table>{head}{rows}</table></div></section>"


def _actions(history: History) -> str:
    """What remedies did, and how much they freed."""
    if not history.outcomes:
        return "<section><h2>Actions</h2><p class='note'>None was needed.</p></section>"
    rows = "".join(
        f"<tr><td class='number'>{row['step']:,}</td><td>{escape(row['action'])}</td>"
        f"<td>{escape(row['reason'])}</td><td class='number'>{format_size(row['freed_bytes'])}</td>"
        f"<td class='number'>{1000 * row['seconds']:.1f} ms</td><td>{escape(row['error'] or 'done')}</td></tr>"
        for row in history.outcomes[-200:]
    )
    head = "<tr><th>step</th><th>action</th><th>why</th><th>freed</th><th>took</th><th>result</th></tr>"
    return f"<section><h2>Actions</h2><div class='scroll'><table>{head}{rows}</table></div></section>"


def _facts(history: History) -> str:
    """The facts on the process, from its newest session."""
    if not history.sessions:
        return "<tr><td>The run was ended before it began.</td></tr>"
    session = history.sessions[-1]
    facts = {"began": f"{datetime.fromtimestamp(session.began, UTC):%Y-%m-%d %H:%M:%S} UTC", **session.facts}
    for name in ("budget_bytes", "budgets"):
        facts.pop(name, None)
    if (session.summary or {}).get("budgets"):  # set since the session began
        facts["budget"] = str(history.budgets)
    facts["command"] = " ".join(facts.get("command", []))
    facts["limits"] = "; ".join(facts.get("limits", [])) or "no framework's own limit was set"
    return "".join(
        f"<tr><th>{escape(name.replace('_', ' '))}</th><td>{escape(str(value))}</td></tr>"
        for name, value in facts.items()
        if value != ""
    )


def _levels(history: History, pool: Literal["host", "device"]) -> list[Level]:
    """The budget of one pool as a level; nothing if it has none of its own."""
    budgets = history.budgets
    budget = None if budgets is None else budgets.host if pool == "host" else budgets.device
    return [] if budget is None else [Level(float(budget.limit), f"budget {format_size(budget.limit)}")]


def _write_loss(value: float) -> str:
    """A loss, without its unit (nats a token)."""
    return f"{value:.2f}"
