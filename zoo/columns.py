"""The columns of the matrix: a script at another pace and length, and the truth about it there.

A variant keeps every line where it was: numbers on lines are changed, and a sleep is added behind the optimizer's
step, so that a label fits all variants of its script. The table (`columns.toml`) says how often growth comes, and
how much it is; what has grown in a column follows by arithmetic, or was measured (`python -m zoo.bare`).
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from zoo.labels import HERE, Label, Line

TABLE = HERE / "columns.toml"
STEP = "optimizer.step()"
FEW_EVENTS = 20
"""With fewer, nobody has to call growth a leak."""
FEW_MEGABYTES = 5.0
"""The same."""


@dataclass(frozen=True, slots=True)
class Column:
    """One way to run the scripts."""

    name: str
    steps: int | None = None
    """None: as many as the script makes."""
    pause: float = 0.0
    """Seconds of sleep in each step."""
    named: bool = False
    """Whether only scripts run that name it."""
    beside: bool = False
    """Whether another program takes all cores."""


COLUMNS = (
    Column("as-is"),
    Column("fast-3000", steps=3000),
    Column("slow-100", steps=100, pause=0.02),
    Column("long-20000", steps=20_000, named=True),
    Column("second-90", steps=90, pause=1.0, named=True),
    Column("beside-busy", beside=True),
)
"""Each script as it is, at other paces and lengths, and with little of the machine."""


@dataclass(frozen=True, slots=True)
class Event:
    """How a script's memory grows."""

    bytes: int
    """At each event; 0 for what is counted and not measured (files, threads)."""
    every: int = 1
    """Steps between two events; 0 where a clock says when."""
    after: int = 0
    """The step, as the script is, at which it begins."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one script is turned into its variants, and what grows in them."""

    steps: int
    """As it is."""
    counts: tuple[str, ...] = ()
    """Pieces of its text with the numbers that go with its steps."""
    sleeps: tuple[str, ...] = ()
    """Its own sleeps, left out where it shall go as fast as it can."""
    event: Event | None = None
    """None for a look-alike."""
    ends: int | None = None
    """The step, as it is, after which a bounded look-alike grows no more."""
    also: tuple[str, ...] = ()
    """Those columns for named scripts that it is in."""
    swaps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By column: pieces of text and what stands there instead, where a number does not go with the steps."""
    grown: Mapping[str, float] = field(default_factory=dict)
    """By column: megabytes that were measured, or summed up, where events are not alike."""
    stops: Mapping[str, int] = field(default_factory=dict)
    """By column: the step after which the run is ended, where all of it would take too much."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """By column: why it does not apply."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What is right to say of a script in a column."""

    leaks: bool
    component: str | None = None
    early: bool = False
    """Whether so little has grown that *warming*, with this component, is right as well."""
    events: float | None = None
    megabytes: float | None = None


def read_plans(file: Path = TABLE) -> dict[str, Plan]:
    """Read the table, by the names of the scripts."""
    table = tomllib.loads(file.read_text(encoding="utf-8"))
    return {name: _plan(facts) for name, facts in table.items()}


def why_not(label: Label, plan: Plan | None, column: Column) -> str | None:
    """Why a column does not apply to a script; None where it does."""
    if column.name == "as-is":
        return None
    if label.needs_gpu:
        return "for a CUDA device"
    if plan is None:
        return "not in the table"
    if column.named and column.name not in plan.also:
        return "not named for it"
    return plan.left_out.get(column.name)


def truth(label: Label, plan: Plan | None, column: Column) -> Truth:
    """What is right to say of a script in a column; as labelled where nothing is known of its events."""
    if not label.leaks:
        return Truth(leaks=False)
    if plan is None or plan.event is None:
        return Truth(leaks=True, component=label.component)
    events, megabytes = growth(plan, column)
    little = megabytes is not None and megabytes < FEW_MEGABYTES
    return Truth(
        leaks=True,
        component=label.component,
        early=events < FEW_EVENTS or little,
        events=events,
        megabytes=megabytes,
    )


def growth(plan: Plan, column: Column) -> tuple[float, float | None]:
    """Events in a column, and the megabytes that they leave.

    Args:
        plan: Of a script that leaks.
        column: Where it runs.

    Returns:
        The megabytes are None where events are counted only.

    Raises:
        ValueError: The script does not leak, or is driven by a clock and nothing was measured.
    """
    event = plan.event
    if event is None:
        raise ValueError("the plan has no event, so nothing grows; ask for the growth of scripts that leak")
    measured = plan.grown.get("as-is" if column.steps is None else column.name)
    if event.every:
        steps = plan.stops.get(column.name) or column.steps or plan.steps
        events = float(round(steps * (1 - event.after / plan.steps)) // event.every)
    elif measured is not None:
        events = 1e6 * measured / event.bytes
    else:
        raise ValueError(f"a clock drives this script; write what grows in {column.name} into its grown")
    if measured is None and event.bytes:
        measured = events * event.bytes / 1e6
    return events, measured


def vary(label: Label, plan: Plan | None, column: Column, folder: Path) -> Label:
    """Write a script's variant for a column into a folder.

    Args:
        label: Of the script as it is.
        plan: Of the script; None where there is none, which is right for a column that changes nothing.
        column: Which variant.
        folder: Where it is written, under the script's name.

    Returns:
        The label of the variant; the script itself where the column changes nothing.
    """
    if plan is None or column.steps is None:
        return label
    text = variant(label.script.read_text(encoding="utf-8"), plan, column)
    script = folder / label.script.name
    script.write_text(text, encoding="utf-8")
    lines = text.splitlines()
    return replace(label, script=script, allocated=_there(label.allocated, lines), held=_there(label.held, lines))


def variant(text: str, plan: Plan, column: Column) -> str:
    """A script's text with a column's counts and pace.

    Args:
        text: Of the script as it is.
        plan: How it is changed.
        column: To what.

    Returns:
        As many lines as before, each where it was.

    Raises:
        ValueError: A piece of text that is to be changed does not stand there exactly once.
    """
    swaps = dict(substitutions(plan, column))
    if column.pause:
        swaps[STEP] = f'{STEP}; __import__("time").sleep({column.pause})'
    for old, new in swaps.items():
        if text.count(old) != 1:
            raise ValueError(f"{old!r} stands there {text.count(old)} times; name a piece of text that is unique")
        text = text.replace(old, new)
    return text


def substitutions(plan: Plan, column: Column) -> dict[str, str]:
    """What is changed for a column, beside the sleep: pieces of text and what stands there instead."""
    if column.steps is None:
        return {}
    ratio = column.steps / plan.steps
    swaps = {count: _scale(count, ratio) for count in plan.counts}
    if not column.pause:
        swaps |= {sleep: re.sub(r"\d+\.\d+", "0.0", sleep) for sleep in plan.sleeps}
    return swaps | dict(plan.swaps.get(column.name, {}))


def _scale(piece: str, ratio: float) -> str:
    """A piece of text with its whole numbers in proportion."""
    return re.sub(r"\d[\d_]*", lambda found: str(round(int(found.group().replace("_", "")) * ratio)), piece)


def _there(line: Line | None, lines: list[str]) -> Line | None:
    """The same line in a variant."""
    return None if line is None else replace(line, code=lines[line.number - 1].strip())


def _plan(facts: dict[str, object]) -> Plan:
    """One script's entry in the table."""
    event = facts.pop("event", None)
    tuples = {name: tuple(value) for name, value in facts.items() if isinstance(value, list)}
    others = {name: value for name, value in facts.items() if not isinstance(value, list)}
    return Plan(**tuples, **others, event=Event(**event) if isinstance(event, dict) else None)  # type: ignore[arg-type]
