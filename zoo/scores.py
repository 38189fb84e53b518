"""How right a tool was: a mark for each run, shares for each column, and a table of batches."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from zoo.columns import Truth
from zoo.labels import Label
from zoo.tools import Said, names_the_holder, names_the_line

BARS = {
    "leaks found": 0.97,
    "look-alikes passed": 0.97,
    "component right": 0.95,
    "line or holder right": 0.95,
}
"""What is asked of every column."""
OF_GENERATED = dict(zip(BARS, (0.95, 0.97, 0.95, 0.90), strict=True))
"""What is asked of generated programs that nobody has looked at."""
OF_DEVICE = dict(zip(BARS, (0.95, 0.95, 1.0, 0.90), strict=True))
"""What is asked of scripts on a GPU."""


class Share(NamedTuple):
    """So many of so many."""

    right: int
    of: int

    def __str__(self) -> str:
        """As it is printed."""
        return f"{self.right} of {self.of}"

    @property
    def value(self) -> float:
        """As a number; 1 where there is nothing to count."""
        return self.right / self.of if self.of else 1.0


@dataclass(frozen=True, slots=True)
class Mark:
    """What was right of what was said in one run."""

    leaks: bool
    """Whether the script leaks."""
    right: bool
    """Whether the verdict is right."""
    component: bool = False
    """Whether it named what grows; False for a look-alike, as all that follows."""
    explained: bool = False
    """Whether it called a leak a leak, so that a line and a holder are asked for."""
    line: bool = False
    holder: bool = False


def mark(label: Label, truth: Truth, said: Said) -> Mark:
    """Judge what was said of a run.

    Args:
        label: Of the script that was run.
        truth: What is right to say of it there.
        said: What a tool said.
    """
    if not truth.leaks:
        return Mark(leaks=False, right=not said.leak and said.error is None)
    if not said.leak:
        early = truth.early and said.verdict == "warming" and said.rises == truth.component
        return Mark(leaks=True, right=early, component=early)
    return Mark(
        leaks=True,
        right=True,
        component=said.component == truth.component,
        explained=True,
        line=names_the_line(label, said),
        holder=names_the_holder(label, said),
    )


def score(marks: Iterable[Mark]) -> dict[str, Share]:
    """The shares of a column: verdicts of all runs, components of leaks found, places of leaks called so."""
    marks = list(marks)
    leaks = [one for one in marks if one.leaks]
    found = [one for one in leaks if one.right]
    explained = [one for one in found if one.explained]
    return {
        "leaks found": Share(len(found), len(leaks)),
        "look-alikes passed": Share(sum(one.right for one in marks if not one.leaks), len(marks) - len(leaks)),
        "component right": Share(sum(one.component for one in found), len(found)),
        "line right": Share(sum(one.line for one in explained), len(explained)),
        "holder right": Share(sum(one.holder for one in explained), len(explained)),
        "line or holder right": Share(sum(one.line or one.holder for one in explained), len(explained)),
    }


def missed(shares: Mapping[str, Share], bars: Mapping[str, float] = BARS) -> list[str]:
    """The names of the bars that are not reached."""
    return [name for name, bar in bars.items() if shares[name].value < bar]


def add_batch(file: Path, name: str, shares: Mapping[str, Share], **facts: Any) -> str:  # noqa: ANN401 - JSON
    """Add a batch of programs to the table of all batches, which keeps what was found at first sight.

    Args:
        file: The table, such as `benchmarks/results/batches.json`; it is made where there is none.
        name: Of the batch.
        shares: Its scores.
        facts: What belongs to them, such as the commit and the date.

    Returns:
        The whole table as text. A batch that is there already gets a row more, with its number of sight.
    """
    rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    sight = 1 + sum(row["batch"] == name for row in rows)
    rows.append({
        "batch": name,
        "sight": sight,
        **facts,
        **{key: list(one) for key, one in shares.items()},
    })
    file.write_text(json.dumps({"benchmark": "batches", "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return in_words(rows)


def add_column(file: Path, name: str, shares: Mapping[str, Share], **facts: Any) -> None:  # noqa: ANN401 - JSON
    """Keep a column's scores in a file, in place of what was there under its name.

    Args:
        file: Such as `benchmarks/results/zoo_matrix.json`; it is made where there is none.
        name: Of the column.
        shares: Its scores.
        facts: What belongs to them.
    """
    columns: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["columns"] if file.exists() else {}
    columns[name] = facts | {"scores": {key: list(one) for key, one in shares.items()}}
    bars = {f"{key}: {', '.join(BARS)}": _bar(key, column["scores"]) for key, column in columns.items()}
    table = {"benchmark": file.stem, "by": "python -m zoo.matrix", "bars": bars, "columns": columns}
    file.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def goals_of(name: str) -> dict[str, float]:
    """What is asked of a column, by its name."""
    if name.startswith("generated"):
        return OF_GENERATED
    return OF_DEVICE if name.startswith("gpu") else BARS


def _bar(name: str, scores: Mapping[str, list[int]]) -> dict[str, Any]:
    """A column as one bar."""
    goals = goals_of(name)
    shares = {what: Share(*scores[what]) for what in goals}
    return {
        "goal": ", ".join(f"{goal:.0%}" for goal in goals.values()),
        "measured": ", ".join(map(str, shares.values())),
        "reached": not missed(shares, goals),
    }


def in_words(rows: list[dict[str, Any]]) -> str:
    """The table of batches in Markdown."""
    heads = ["leaks found", "look-alikes passed", "component right", "line right", "holder right"]
    lines = [["batch", "sight", "commit", *heads], ["---"] * (3 + len(heads))]
    for row in rows:
        cells = [str(Share(*row[head])) for head in heads]
        lines.append([row["batch"], str(row["sight"]), row.get("commit", "unknown"), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
