"""Run programs of the zoo again and again: the same program gets the same verdict, and the same first site.

`python -m zoo.repeats [--runs 10] [--jobs N] --results FILE.json`

Ten leaks and ten look-alikes, the first by a hash of their names; the first five of the twenty run beside a
program that takes all cores. What is in the file for this commit is not run again. Growth that comes every few
steps, or at events, is to have its period in the finding: that is looked up too.
"""

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zoo.columns import Column, Plan, read_plans
from zoo.labels import Label, read_labels
from zoo.matrix import Cell, Results, commit, run_column, where
from zoo.tools import ask_holdwater

EACH = 10
"""Leaks, and look-alikes."""
EXTERNAL = 5
"""Programs that run beside a busy one."""
SAME = 195 / 200
"""The part of the runs that must agree with the most frequent answer to their program."""
NEAR = 0.15
"""A period is right if it is off by no more than this part, or by one step."""


class Answer(NamedTuple):
    """What one run was told."""

    verdict: str
    component: str | None
    site: str | None
    """The first, as role, line and name; None for what is no leak."""


def chosen(labels: Sequence[Label]) -> list[Label]:
    """Ten leaks and ten look-alikes that need no device, in the order of a hash of their names."""

    def by_hash(label: Label) -> str:
        """No order that anybody has chosen."""
        return hashlib.sha256(label.script.stem.encode()).hexdigest()

    there = sorted((label for label in labels if not label.needs_gpu), key=by_hash)
    leaks = [label for label in there if label.leaks][:EACH]
    return sorted([*leaks, *[label for label in there if not label.leaks][:EACH]], key=by_hash)


def answer(result: Mapping[str, Any]) -> Answer:
    """What a run was told, by its stored result."""
    said = result["said"]
    sites = said["facts"].get("sites") or []
    site = " ".join(map(str, sites[0])) if said["leak"] and sites else None
    return Answer(said["error"] or said["verdict"], said["component"], site)


def agreeing(answers: Sequence[Answer]) -> int:
    """How many runs agree with the most frequent answer."""
    return Counter(answers).most_common(1)[0][1] if answers else 0


def has_period(plan: Plan | None, said: Mapping[str, Any]) -> bool | None:
    """Whether the finding has the period of a growth that comes every few steps; None where it comes at each.

    Args:
        plan: Of the script.
        said: Of a run.
    """
    if plan is None or plan.event is None or plan.event.every <= 3 or not said["leak"]:
        return None
    every = said["facts"].get("every_steps")
    by_event = said["follows"] not in {"step", "seconds", "unknown", None}
    near = every is not None and abs(every - plan.event.every) <= max(NEAR * plan.event.every, 1)
    return near or by_event


def main() -> int:
    """Run what has not been run, and say how many agree; 1 if too few do."""
    parser = argparse.ArgumentParser(prog="python -m zoo.repeats", description=__doc__)
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="of each program (default: 10)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="scripts at a time (default: 1)")
    parser.add_argument("--results", type=Path, required=True, metavar="FILE", help="where results are kept")
    parser.add_argument("--record", type=Path, metavar="FILE", help="keep the scores in this file as well")
    parser.add_argument("--only", choices=("quiet", "beside"), help="a part of the runs")
    options = parser.parse_args()
    results, plans = Results(options.results, commit()), read_plans()
    labels = chosen(read_labels(""))
    cells: dict[str, list[Cell]] = {label.script.stem: [] for label in labels}
    for place, label in enumerate(labels):
        for run in range(options.runs):
            column = Column(f"run-{run}", beside=place < EXTERNAL)
            cells[label.script.stem].append(Cell(label, plans.get(label.script.stem), column))
    for beside in (False, True):
        due = [cell for row in cells.values() for cell in row if cell.column.beside == beside]
        if options.only is None or (options.only == "beside") == beside:
            run_column(due, results, ask=ask_holdwater, jobs=options.jobs)
    return int(report(cells, results, options.record))


def report(cells: Mapping[str, Sequence[Cell]], results: Results, record: Path | None = None) -> bool:
    """Print a row for each program, and keep all of it in a file if one is given; whether too few runs agree."""
    programs: dict[str, dict[str, int]] = {}
    agree = of = 0
    periods: list[bool] = []
    for name, row in cells.items():
        found = [result for cell in row if (result := results.get(cell)) is not None]
        answers = [answer(result) for result in found]
        agree, of = agree + agreeing(answers), of + len(answers)
        periods += [known for one in found if (known := has_period(row[0].plan, one["said"])) is not None]
        busy = "beside a busy program" if row[0].column.beside else ""
        said = "; ".join(f"{count} x {json.dumps(one)}" for one, count in Counter(answers).most_common())
        programs[name] = {json.dumps(one): count for one, count in Counter(answers).most_common()}
        print(f"{name:40} {agreeing(answers)} of {len(answers)} {busy}  {said}")
    missed = agree < SAME * of
    print(
        f"\nthe same verdict and first site: {agree} of {of} (goal: {SAME:.1%}{', MISSED' if missed else ''}); "
        f"with its period: {sum(periods)} of {len(periods)} runs whose growth comes every few steps"
    )
    if record is not None:
        same = {"goal": f"{SAME:.1%}", "measured": f"{agree} of {of}", "reached": not missed}
        had = {"goal": "all", "measured": f"{sum(periods)} of {len(periods)}", "reached": all(periods)}
        bars = {"runs with the same verdict and first site": same, "growth with its period in the finding": had}
        table = {"benchmark": record.stem, "by": "python -m zoo.repeats", **where(results.commit), "bars": bars}
        record.write_text(json.dumps(table | {"programs": programs}, indent=1) + "\n", encoding="utf-8")
    return missed


if __name__ == "__main__":
    sys.exit(main())
