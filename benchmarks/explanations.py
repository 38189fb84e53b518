"""Bars of the explanation: are the line and the holder right, how soon, and at what price?

It reads what `python -m zoo --json FILE` has found (`--from FILE`), or runs the zoo's leaks itself (about five
minutes on two cores).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from recording import Bar, record

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from zoo.labels import Label, Line, read_labels  # noqa: E402 - it lies beside this folder


def main() -> bool:
    """Score the sites of every leak that was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="found", type=Path, metavar="FILE")
    parser.add_argument("--peers", type=Path, metavar="FILE", help="of `python -m zoo --tools memray,leak-hunter`")
    options = parser.parse_args()
    rows = json.loads(options.found.read_text())["rows"] if options.found else run()
    labels = {str(label.script.stem): label for label in read_labels()}
    scored = [
        score(labels[row["script"]], row["holdwater"])
        for row in rows
        if labels[row["script"]].leaks and row["holdwater"]["leak"]
    ]
    costs = [cost(row["holdwater"]["facts"]["overhead"]) for row in rows if row["holdwater"]["facts"]]
    table = who_names_what(labels, rows, ("holdwater",))
    if options.peers:
        table |= who_names_what(labels, json.loads(options.peers.read_text())["rows"], ("memray", "leak-hunter"))
    print(json.dumps(table, indent=1))
    return record("explanations", judge(scored, costs), who_names_what=table, rows=scored)


def who_names_what(
    labels: dict[str, Label], rows: list[dict[str, Any]], tools: tuple[str, ...]
) -> dict[str, dict[str, str]]:
    """For each tool: how often the allocating line, the storing line and the holder's name are among five."""
    table = {}
    for tool in tools:
        said = [(labels[row["script"]], row[tool]) for row in rows if labels[row["script"]].leaks]
        names = [
            label.held is not None
            and any(label.held.name == name for *_, name in what["facts"].get("sites") or ())
            for label, what in said
        ]
        table[tool] = {
            "allocating line": f"{sum(_has(label.allocated, what) for label, what in said)} of {len(said)}",
            "storing line": f"{sum(_has(label.held, what) for label, what in said)} of {len(said)}",
            "holder's name": f"{sum(names)} of {len(said)}",
        }
    return table


def _has(line: Line | None, said: dict[str, Any]) -> bool:
    """Whether a line is among the first five that a tool names."""
    return line is not None and line.number in said["lines"][:5]


def run() -> list[dict[str, Any]]:
    """Run the zoo's leaks."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "zoo.json"
        command = [sys.executable, "-m", "zoo", "--only", "leaks/", "--json", str(file)]
        subprocess.run(command, cwd=ROOT, check=False)
        return list(json.loads(file.read_text(encoding="utf-8"))["rows"])


def score(label: Label, said: dict[str, Any]) -> dict[str, Any]:
    """What of one explanation is right."""
    sites = said["facts"]["sites"] or []
    lines = {line.number for line in (label.allocated, label.held) if line is not None}
    holder = None if label.held is None else label.held.name
    right_line = [line in lines for _, line, _ in sites]
    right_name = [holder is not None and name == holder for *_, name in sites]
    known = said["facts"]["explained_step"] if label.follows in {None, "step"} else None  # else three events
    return {
        "script": label.script.stem,
        "line": any(right_line),
        "name": any(right_name),
        "first": bool(sites) and (right_line[0] or right_name[0]),
        "explained": said["facts"]["explained"],
        "pattern": said["facts"]["pattern"],
        "steps_after_verdict": None if known is None else max(known - said["detected_step"], 0),
    }


def cost(overhead: dict[str, Any]) -> dict[str, float]:
    """What looking into it took, held against what is allowed."""
    seconds = overhead["attribution_seconds"]
    return {"seconds": seconds, "allowed": max(5.0, 0.01 * overhead["run_seconds"])}


def judge(scored: list[dict[str, Any]], costs: list[dict[str, float]]) -> dict[str, Bar]:
    """The bars."""
    count = len(scored)
    either = sum(row["line"] or row["name"] for row in scored)
    both = sum(row["line"] and row["name"] for row in scored)
    first = sum(row["first"] for row in scored)
    late = [row["steps_after_verdict"] for row in scored if row["steps_after_verdict"] is not None]
    expensive = sum(row["seconds"] > row["allowed"] for row in costs)
    worst = max(row["seconds"] for row in costs)
    return {
        f"guilty line or holder's name right, of {count}": Bar(
            f"{either}", "at least 95 %", either >= 0.95 * count
        ),
        "both right": Bar(f"{both}", "at least 80 %", both >= 0.80 * count),
        "first site right": Bar(f"{first}", "at least 85 %", first >= 0.85 * count),
        "steps from the verdict to the explanation, worst": Bar(
            f"{max(late)} (median {np.median(late):.0f})", "at most 60", max(late) <= 60
        ),
        f"runs that cost more than 1 % and 5 s, of {len(costs)}": Bar(
            f"{expensive} (worst {worst:.1f} s)", "none", expensive == 0
        ),
    }


if __name__ == "__main__":
    sys.exit(not main())
