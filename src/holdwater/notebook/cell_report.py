"""The report of a watched cell or notebook, as HTML for a notebook and as text elsewhere."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console

from holdwater.attribution.inventory import Inventory
from holdwater.notebook.holdings import NotebookHoldings
from holdwater.report.explained import explanations_as_html
from holdwater.report.terminal import print_report, sparkline
from holdwater.report.words import figures, forecast_in_words, headline, slope_in_words
from holdwater.store.history import read_history
from holdwater.units import format_size

WIDTH = 100
COLOURS = {"leak": "#b3261e", "pressure": "#b3261e", "fragmentation": "#8a5a00", "warming": "#8a5a00"}
GREEN = "#1b6e3c"


@dataclass(frozen=True, slots=True)
class LiveLine:
    """The state of a cell while it runs."""

    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        """For a notebook."""
        return f"<div style='font-family:monospace'>{escape(self.text)}</div>"


@dataclass(frozen=True, slots=True)
class CellReport:
    """The verdict on a cell or a session, and what the notebook itself keeps."""

    summary: Mapping[str, Any]
    """The verdict as JSON, schema 1."""
    out: Path
    """The folder of the run."""
    holdings: NotebookHoldings
    names: Mapping[str, str]
    """How cells are called, by the names of their files."""

    @property
    def verdict(self) -> str:
        """The verdict in one word."""
        return str(self.summary["verdict"])

    def __repr__(self) -> str:
        """For a terminal."""
        text = io.StringIO()
        print_report(read_history(self.out), Console(file=text, width=WIDTH, no_color=True))
        kept = "" if not self.holdings.rows else f"\nThe notebook itself keeps:\n{self.holdings}"
        return self._named(text.getvalue().rstrip()) + kept

    def _repr_html_(self) -> str:
        """For a notebook."""
        summary, history = dict(self.summary), read_history(self.out)
        findings = "".join(
            f"<li>{escape(one['component'])}: {escape(one['verdict'])}, {escape(slope_in_words(one))}"
            f"{escape('; ' + forecast_in_words(one) if one['forecast'] else '')}</li>"
            for one in summary["findings"]
        )
        rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in figures(history))
        colour = COLOURS.get(self.verdict, GREEN)
        return self._named(
            f"<div><b style='color:{colour}'>{escape(self.verdict)}</b> {escape(headline(summary))}<ul>{findings}</ul>"
            f"<pre>{escape(sparkline(history, 60))}</pre>{explanations_as_html(summary)}<table>{rows}</table>"
            f"{holdings_as_html(self.holdings)}</div>"
        )

    def _named(self, text: str) -> str:
        """A text with cells as the notebook calls them."""
        for file, name in self.names.items():
            for written in {file, file.rpartition("/")[2]}:
                text = text.replace(escape(written), name).replace(written, name)
        return text


def holdings_as_html(holdings: NotebookHoldings) -> str:
    """What the notebook itself keeps, as a table; empty if it is nothing large.

    Args:
        holdings: Of the notebook.
    """
    if not holdings.rows:
        return ""
    rows = "".join(
        f"<tr><td>{escape(row.holder)}</td><td>{escape(row.type)}</td><td>{format_size(row.bytes)}</td>"
        f"<td><code>{escape(row.release)}</code></td></tr>"
        for row in holdings.rows
    )
    return (
        "<p>The notebook itself keeps:</p><table><tr><th>name</th><th>type</th><th>size</th><th>let go with</th></tr>"
        f"{rows}</table>"
    )


@dataclass(frozen=True, slots=True)
class NotebookInventory:
    """What the kernel holds now, and what of it the notebook itself keeps."""

    inventory: Inventory
    holdings: NotebookHoldings

    def __repr__(self) -> str:
        """For a terminal."""
        return f"{self.inventory}\nthe notebook itself keeps:\n{self.holdings}"

    def _repr_html_(self) -> str:
        """For a notebook."""
        tensors = "".join(
            f"<tr><td>{format_size(row.bytes)}</td><td>{row.count:,}</td><td>{escape(row.dtype)} "
            f"{escape(str(list(row.shape)))}</td><td>{escape(row.device)}</td><td>{escape(row.holder)}</td></tr>"
            for row in self.inventory.tensors
        )
        types = "".join(
            f"<tr><td>{row.count:,}</td><td>{row.grown:+,}</td><td>{escape(row.type)}</td></tr>"
            for row in self.inventory.types
        )
        return (
            "<table><tr><th>size</th><th>number</th><th>tensor</th><th>device</th><th>holder</th></tr>"
            f"{tensors}</table><table><tr><th>objects</th><th>more than before</th><th>type</th></tr>{types}</table>"
            f"{holdings_as_html(self.holdings)}"
        )
