"""The report of a watched cell or notebook, as HTML for a notebook and as text elsewhere."""

import io
from collections.abc import Iterable, Mapping, Sequence
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

WIDTH = 160
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
        colour = COLOURS.get(self.verdict, GREEN)
        return self._named(
            f"<div><b style='color:{colour}'>{escape(self.verdict)}</b> {escape(headline(summary))}"
            f"<ul>{findings}</ul><pre>{escape(sparkline(history, 60))}</pre>{explanations_as_html(summary)}"
            f"{table((), figures(history))}{holdings_as_html(self.holdings)}</div>"
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
    rows = [(row.holder, row.type + row.besides, format_size(row.bytes), row.release) for row in holdings.rows]
    return f"<p>The notebook itself keeps:</p>{table(('name', 'type', 'size', 'let go with'), rows)}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as HTML.

    Args:
        head: The names of its columns; none for a table without.
        rows: Its cells, as text.
    """
    lines = ["".join(f"<th>{escape(name)}</th>" for name in head)] if head else []
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


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
        tensors = [
            (format_size(row.bytes), f"{row.count:,}", f"{row.dtype} {list(row.shape)}", row.device, row.holder)
            for row in self.inventory.tensors
        ]
        types = [(f"{row.count:,}", f"{row.grown:+,}", row.type) for row in self.inventory.types]
        return (
            table(("size", "number", "tensor", "device", "holder"), tensors)
            + table(("objects", "more than before", "type"), types)
            + holdings_as_html(self.holdings)
        )
