"""What a notebook itself keeps alive: results of cells, the last values, tracebacks, what was displayed.

Source: IPython documentation, "IPython reference", output caching system (`Out`, `_`, `__`, `___`, `_N`) and input
caching (`In`, `_ih`, `_iN`); Python documentation, `sys.last_traceback`.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from holdwater.attribution.frames import local_values
from holdwater.attribution.kinds import name_of, no_overrides
from holdwater.attribution.user_code import is_users
from holdwater.attribution.weights import weigh
from holdwater.units import format_size

LEAST = 100_000
"""Smaller values are not listed."""
MOST_ROWS = 20
NEWEST = ("_", "__", "___")
"""The names of the last three results."""


@dataclass(frozen=True, slots=True)
class NotebookRow:
    """Something that the notebook keeps."""

    holder: str
    """By which name: `Out[3]`, `_`, `sys.last_traceback`."""
    type: str
    bytes: int
    release: str
    """The code that lets go of it."""
    also: str | None = None
    """The program's own name for the same object, which must let go of it too; None if it has none."""

    @property
    def besides(self) -> str:
        """That name in words."""
        return "" if self.also is None else f", also named {self.also}"


@dataclass(frozen=True, slots=True)
class NotebookHoldings:
    """All that a notebook keeps by itself."""

    rows: tuple[NotebookRow, ...]
    """The largest first; nothing under 100 kB."""

    @property
    def bytes(self) -> int:
        """Bytes of all rows: what several names keep is counted for each."""
        return sum(row.bytes for row in self.rows)

    def __str__(self) -> str:
        """The table as text."""
        if not self.rows:
            return "the notebook itself keeps nothing large"
        return "\n".join(
            f"  {format_size(row.bytes):>10}  {row.holder} ({row.type}{row.besides}); let go with: {row.release}"
            for row in self.rows
        )


def notebook_holdings(names: dict[str, Any]) -> NotebookHoldings:
    """List what the notebook keeps beside the program's own names.

    Args:
        names: The notebook's namespace (`get_ipython().user_ns`).
    """
    with no_overrides():
        rows = [row for kept in _kept(names) if (row := _row(*kept, names)) is not None]
    rows.sort(key=lambda row: -row.bytes)
    return NotebookHoldings(tuple(rows[:MOST_ROWS]))


def _kept(names: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """What is kept: the holder, the value, the code that lets go of it."""
    results = dict(names.get("Out") or {})
    for number, value in results.items():
        yield f"Out[{number}]", value, f"del Out[{number}], _{number}"
    for name in NEWEST:
        value = names.get(name)
        if not any(value is one for one in results.values()):
            yield name, value, f"{name} = None"
    yield "In (the code of all cells)", names.get("_ih"), "%reset -f in"
    shown = sys.last_traceback if hasattr(sys, "last_traceback") else None
    if shown is not None:
        yield "sys.last_traceback", _values_of(shown), "del sys.last_traceback, sys.last_value, sys.last_type"
    shell = getattr(names.get("get_ipython"), "__self__", None)
    displayed = getattr(getattr(shell, "history_manager", None), "outputs", None)
    yield "the display history", displayed, "get_ipython().history_manager.outputs.clear()"
    trace = getattr(getattr(shell, "InteractiveTB", None), "tb", None)
    if trace is not None:
        yield "the traceback that %debug would show", _values_of(trace), "get_ipython().InteractiveTB.tb = None"


def _values_of(trace: TracebackType) -> list[Any]:
    """What the variables of the user's functions hold, within a traceback."""
    values: list[Any] = []
    at: TracebackType | None = trace
    while at is not None:
        if is_users(at.tb_frame.f_code.co_filename):
            values += local_values(at.tb_frame)
        at = at.tb_next
    return values


def _row(holder: str, value: object, release: str, names: dict[str, Any]) -> NotebookRow | None:
    """One row; None if it is small."""
    if value is None:
        return None
    roots = value if type(value) is list and not holder.startswith(("Out", "_")) else [value]
    size = weigh(roots).total
    kind = "variables of functions" if "traceback" in holder else name_of(type(value))
    if size < LEAST:
        return None
    also = next((name for name, one in names.items() if one is value and not name.startswith("_")), None)
    return NotebookRow(holder, kind, size, release, also)
