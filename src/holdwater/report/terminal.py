"""Show the report of a run in the terminal."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from holdwater.report.explained import explanation_in_words
from holdwater.report.words import (
    figures,
    forecast_in_words,
    headline,
    how_it_ended,
    loss_in_words,
    slope_in_words,
)
from holdwater.store.history import History
from holdwater.units import format_size

BARS = " ▁▂▃▄▅▆▇█"
COLOURS = {"leak": "red", "pressure": "red", "flat": "green", "bounded": "green", "cyclic": "green"}
MOST_ACTIONS = 12


def print_report(history: History, console: Console) -> None:
    """Print the verdict, the numbers, a small curve, and the actions."""
    summary = history.summary
    verdict = "unknown" if summary is None else summary["verdict"]
    colour = COLOURS.get(verdict, "yellow")
    console.print(f"[bold {colour}]{verdict}[/]  {headline(summary)}", highlight=False)
    for finding in () if summary is None else summary["findings"]:
        console.print(
            f"  {finding['component']}: {finding['verdict']}, {slope_in_words(finding)}", highlight=False
        )
        if finding["forecast"]:
            console.print(f"    {forecast_in_words(finding)}", highlight=False)
        for line in explanation_in_words(finding):
            console.print(f"    {escape(line)}", highlight=False)
    numbers = Table.grid(padding=(0, 2))
    for label, value in figures(history):
        numbers.add_row(label, f"[bold]{value}[/]")
    console.print(numbers)
    curve = sparkline(history, width=max(console.width - 24, 20))
    if curve:
        console.print(curve, highlight=False)
    if how_it_ended(history):
        console.print(f"The run was {how_it_ended(history)}.", highlight=False)
    if loss_in_words(summary):
        console.print(loss_in_words(summary), highlight=False)
    _print_actions(history, console)


def sparkline(history: History, width: int) -> str:
    """Resident memory over steps in one line of text; empty if nothing was read."""
    if not len(history.samples):
        return ""
    highs = history.samples.highs("resident")
    chunks = [highs[len(highs) * i // width : len(highs) * (i + 1) // width] for i in range(width)]
    peaks = [float(chunk.max()) for chunk in chunks if len(chunk)]
    top = max(peaks)
    line = "".join(BARS[max(1, round(8 * peak / top))] for peak in peaks)
    return f"{line}  up to {format_size(top)}"


def _print_actions(history: History, console: Console) -> None:
    """Print what the newest remedies did."""
    if not history.outcomes:
        console.print("No action was needed.", highlight=False)
        return
    table = Table("step", "action", "why", "freed", "took", "result", box=None, padding=(0, 2, 0, 0))
    for row in history.outcomes[-MOST_ACTIONS:]:
        table.add_row(
            f"{row['step']:,}",
            row["action"],
            escape(row["reason"]),
            format_size(row["freed_bytes"]),
            f"{1000 * row['seconds']:.1f} ms",
            escape(row["error"] or "done"),
        )
    console.print(table)
