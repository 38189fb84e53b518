"""Run the zoo in a matrix: every script at other paces and lengths, and beside a busy program.

`python -m zoo.matrix [--columns a,b] [--only PATTERN] [--jobs N] --results FILE.json`

What is in the file for this commit is not run again. `--folder DIR` runs any folder of labelled programs instead.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zoo.columns import COLUMNS, Column, Plan, Truth, read_plans, truth, vary, why_not
from zoo.labels import HERE, Label, read_folder, read_labels, what_is_missing
from zoo.scores import BARS, Mark, Share, add_batch, add_column, mark, missed, score
from zoo.tools import Said, ask_holdwater

_BUSY = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""
"""Takes a core until it is ended, or until the runner is gone."""

Ask = Callable[[Label, Path, int | None], Said]
"""Asks about a script, in a folder of its own; the run is ended after so many steps, if not None."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A script in a column."""

    label: Label
    plan: Plan | None
    column: Column

    @property
    def truth(self) -> Truth:
        """What is right to say of it."""
        return truth(self.label, self.plan, self.column)

    @property
    def reason(self) -> str | None:
        """Why it is left out; None if it is run."""
        missing = what_is_missing(self.label)
        return why_not(self.label, self.plan, self.column) or (missing and f"needs {missing}")


class Results:
    """Results in a file, by commit, column and script; written after each run, for work is done in parts."""

    def __init__(self, file: Path, commit: str) -> None:
        self.commit = commit
        self._file = file
        self._lock = threading.Lock()
        self._all: dict[str, dict[str, Any]] = json.loads(file.read_text("utf-8")) if file.exists() else {}

    def get(self, cell: Cell) -> dict[str, Any] | None:
        """The result of a cell at this commit; None if it has not been run."""
        return self._all.get(self._key(cell))

    def add(self, cell: Cell, result: dict[str, Any]) -> None:
        """Keep a result, in the file as well."""
        with self._lock:
            self._all[self._key(cell)] = result
            part = self._file.with_suffix(".part")
            part.write_text(json.dumps(self._all, indent=1) + "\n", encoding="utf-8")
            part.replace(self._file)

    def _key(self, cell: Cell) -> str:
        """Where it stands."""
        return f"{self.commit} {cell.column.name} {cell.label.script.stem}"


def main() -> int:
    """Run what has not been run, print a row for each run and the scores; 1 if a column misses a bar."""
    options = _options()
    cells = _cells(options)
    if options.truth:
        print("\n".join(_truth_line(cell) for cell in cells))
        return 0
    results = Results(options.results, commit())
    low = []
    for column in dict.fromkeys(cell.column for cell in cells):
        chosen = [cell for cell in cells if cell.column == column]
        run_column(chosen, results, ask=ask_holdwater, jobs=options.jobs)
        print()
    for column in dict.fromkeys(cell.column for cell in cells):
        chosen = [cell for cell in cells if cell.column == column]
        marks = marks_of(chosen, results)
        if not marks:
            continue
        shares, price = score(marks), prices(chosen, results)
        low += missed(shares)
        print(f"{summary(column.name, chosen, shares)}\n{'':12} {price}")
        if options.record is not None:
            left_out = Counter(cell.reason for cell in chosen if cell.reason is not None)
            facts = where(results.commit) | asdict(price) | {"left_out": left_out}
            add_column(options.record, options.name or column.name, shares, **facts)
    if options.batch:
        shares = score(marks_of(cells, results))
        print(add_batch(options.table, options.batch, shares, **where(results.commit)))
    return int(bool(low))


def run_column(cells: Sequence[Cell], results: Results, *, ask: Ask, jobs: int) -> int:
    """Run the cells of one column that apply and have no result.

    Args:
        cells: All of the same column.
        results: What is there, and where new results go.
        ask: How a tool is asked about one of them.
        jobs: Scripts at a time.

    Returns:
        How many were run.
    """
    due = [cell for cell in cells if cell.reason is None and results.get(cell) is None]
    beside = busy(os.cpu_count() or 2) if due and due[0].column.beside else nullcontext()
    with beside, ThreadPoolExecutor(jobs) as pool:
        for cell, result in zip(due, pool.map(lambda cell: _run(cell, results, ask), due), strict=True):
            print(_line(cell, result), flush=True)
    return len(due)


def marks_of(cells: Sequence[Cell], results: Results) -> list[Mark]:
    """The marks of those cells that were run."""
    found = [results.get(cell) for cell in cells if cell.reason is None]
    return [Mark(**result["mark"]) for result in found if result is not None]


@dataclass(frozen=True, slots=True)
class Prices:
    """What explanations have cost in some runs."""

    dearest_explanation: float
    """Seconds of counts, experiments and windows together, in the dearest run."""
    too_dear: int
    """Runs in which that is more than 5 s and 1 % of the run."""
    latest_explanation: int
    """The most steps from a verdict to its explanation."""
    runs: int

    def __str__(self) -> str:
        """As it is printed."""
        return (
            f"explanations: {self.dearest_explanation:.1f} s in the dearest run, above 5 s and 1 % in "
            f"{self.too_dear} of {self.runs}; at most {self.latest_explanation} steps after the verdict"
        )


def prices(cells: Sequence[Cell], results: Results) -> Prices:
    """Add up what explanations have cost in those cells that were run."""
    found = [result["said"] for cell in cells if (result := results.get(cell)) is not None]
    told = [(said, said["facts"]["overhead"]) for said in found if said["facts"].get("overhead")]
    spent = [(over["attribution_seconds"], over["run_seconds"]) for _, over in told]
    late = [
        said["facts"]["explained_step"] - said["detected_step"]
        for said, _ in told
        if said["facts"].get("explained_step") and said["detected_step"] is not None
    ]
    expensive = sum(seconds > max(5.0, 0.01 * run) for seconds, run in spent)
    return Prices(max((one for one, _ in spent), default=0.0), expensive, max([0, *late]), len(spent))


def where(commit: str) -> dict[str, str]:
    """What was run, when, and on which machine."""
    machine = f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load {os.getloadavg()[1]:.1f}"
    return {"commit": commit, "date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine}


def summary(name: str, cells: Sequence[Cell], shares: dict[str, Share]) -> str:
    """A column's scores and bars in words, and what was left out of it.

    Args:
        name: Of the column.
        cells: All of it.
        shares: Its scores.
    """
    low = missed(shares)
    parts = []
    for what, share in shares.items():
        bar = f" (goal {BARS[what]:.0%}{', MISSED' if what in low else ''})" if what in BARS else ""
        parts.append(f"{what}: {share}{bar}")
    left_out = Counter(cell.reason for cell in cells if cell.reason is not None)
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common()) or "none"
    return f"{name:12} {'; '.join(parts)}\n{'':12} left out: {reasons}"


@contextmanager
def busy(count: int) -> Iterator[list[int]]:
    """Keep so many cores busy meanwhile, by processes of their own; gives their numbers."""
    loops = [subprocess.Popen([sys.executable, "-S", "-c", _BUSY]) for _ in range(count)]
    try:
        yield [loop.pid for loop in loops]
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def commit() -> str:
    """The commit that is run, with a sum of what was changed since; a copy without git is told its own."""
    if shutil.which("git") is None or not (HERE.parent / ".git").exists():
        return os.environ.get("BENCHMARKED_COMMIT", "unknown")
    changed = _git("diff", "HEAD", "--", "src", "zoo/leaks", "zoo/lookalikes", "zoo/columns.toml")
    name = _git("rev-parse", "--short", "HEAD").strip()
    return f"{name}+{hashlib.sha256(changed.encode()).hexdigest()[:8]}" if changed else name


def _git(*words: str) -> str:
    """What git says."""
    command = ["git", *words]
    return subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=True).stdout


def _run(cell: Cell, results: Results, ask: Ask) -> dict[str, Any]:
    """Run one cell and keep its result."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        label = vary(cell.label, cell.plan, cell.column, Path(folder))
        said = ask(label, Path(folder), None if cell.plan is None else cell.plan.stops.get(cell.column.name))
    result = {
        "mark": asdict(mark(label, cell.truth, said)),
        "said": asdict(said),
        "truth": asdict(cell.truth),
        "seconds": round(time.perf_counter() - began, 1),
    }
    results.add(cell, result)
    return result


def _line(cell: Cell, result: dict[str, Any]) -> str:
    """One run, as a row."""
    said, right = Said(**result["said"]), Mark(**result["mark"])
    word = "error" if said.error else said.verdict or ("leak" if said.leak else "-")
    named = said.component or (said.rises if said.verdict == "warming" else None) or ""
    wrong = "?" if right.leaks and right.explained and not right.component else ""
    place = f"line {'right' if right.line else 'wrong'}, holder {'right' if right.holder else 'wrong'}"
    return (
        f"{cell.column.name:12}{cell.label.script.parent.name[:4]} {cell.label.script.stem:38} "
        f"{' ' if right.right else '!'}{word:8} {named + wrong:16} {place if right.explained else '':32} "
        f"{result['seconds']:.0f} s"
    ).rstrip()


def _truth_line(cell: Cell) -> str:
    """One cell of the table of truths."""
    name = f"{cell.column.name:12}{cell.label.script.stem:38} "
    if cell.reason is not None:
        return f"{name}left out: {cell.reason}"
    fact = cell.truth
    if not fact.leaks:
        return f"{name}no leak"
    grown = "" if fact.megabytes is None else f", {fact.megabytes:.1f} MB"
    events = "" if fact.events is None else f" ({fact.events:.0f} events{grown})"
    return f"{name}{'leak or warming' if fact.early else 'leak'} of {fact.component}{events}"


def _cells(options: argparse.Namespace) -> list[Cell]:
    """What was asked for."""
    if options.folder is not None:
        labels = read_folder(options.folder, options.only)
        return [Cell(label, None, Column("as-is")) for label in labels]
    names = options.columns.split(",")
    plans = read_plans()
    return [
        Cell(label, plans.get(label.script.stem), column)
        for column in COLUMNS
        if column.name in names
        for label in read_labels(options.only)
    ]


def _options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m zoo.matrix", description=__doc__)
    names = ",".join(column.name for column in COLUMNS)
    parser.add_argument("--columns", default=names, metavar="A,B", help=f"of {names} (default: all)")
    parser.add_argument("--only", default="", metavar="PATTERN", help="scripts whose path holds this")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="scripts at a time (default: 1)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="where results are kept, and looked for")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="run NAME.py with NAME.toml in DIR, as they are"
    )
    parser.add_argument("--batch", metavar="NAME", help="add the scores to the table of batches, under this name")
    table = HERE.parent / "benchmarks" / "results" / "batches.json"
    parser.add_argument("--table", type=Path, default=table, metavar="FILE", help=f"that table (default: {table})")
    parser.add_argument("--record", type=Path, metavar="FILE", help="keep the scores in this file as well")
    parser.add_argument("--name", help="under which they are kept (default: the column's)")
    parser.add_argument("--truth", action="store_true", help="run nothing; print what is right in each column")
    options = parser.parse_args()
    unknown = set(options.columns.split(",")) - {column.name for column in COLUMNS}
    if unknown:
        parser.error(f"--columns names {', '.join(sorted(unknown))}, which is none of {names}")
    if options.results is None and not options.truth:
        parser.error("name a file with --results, so that the work can be done in parts")
    return options


if __name__ == "__main__":
    sys.exit(main())
