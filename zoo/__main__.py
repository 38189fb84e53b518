"""Run the zoo: `python -m zoo [--tools holdwater,…] [--only PATTERN] [--json FILE]`."""

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from scipy.stats import binomtest

from zoo.labels import Label, read_labels, what_is_missing
from zoo.tools import TOOLS, Said, names_the_line

Row = tuple[Label, dict[str, Said]]


def main() -> int:
    """Run scripts under tools, print a row for each and the scores; 0 if holdwater judged all as labelled."""
    options = _options()
    tools = options.tools.split(",")
    labels = [label for label in read_labels(options.only) if _can_run(label)]
    began = time.perf_counter()
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = []
        for label, said in pool.map(lambda label: _ask(label, tools), labels):
            rows.append((label, said))
            print(_line(label, said), flush=True)
    print()
    scores = {tool: score(rows, tool) for tool in tools}
    for tool, numbers in scores.items():
        print(f"{tool:14}", "  ".join(f"{name}: {number}" for name, number in numbers.items()))
    print(f"{len(rows)} scripts, {time.perf_counter() - began:.0f} s")
    if options.json:
        text = [
            {"script": str(label.script.stem)} | {tool: asdict(what) for tool, what in said.items()}
            for label, said in rows
        ]
        options.json.write_text(json.dumps({"scores": scores, "rows": text}, indent=1) + "\n", encoding="utf-8")
    return sum(said["holdwater"].leak != label.leaks for label, said in rows if "holdwater" in said)


def score(rows: list[Row], tool: str) -> dict[str, object]:
    """The scores of one tool.

    Args:
        rows: What was said of each script.
        tool: Its name.
    """
    leaks = [(label, said[tool]) for label, said in rows if label.leaks]
    healthy = [said[tool] for label, said in rows if not label.leaks]
    found = [(label, said) for label, said in leaks if said.leak]
    alarms = sum(said.leak for said in healthy)
    numbers: dict[str, object] = {
        "found": f"{len(found)} of {len(leaks)} ({_interval(len(found), len(leaks))})",
        "false alarms": f"{alarms} of {len(healthy)} ({_interval(alarms, len(healthy))})",
    }
    if any(said.component for _, said in found):
        right = sum(said.component == label.component for label, said in found)
        clocked = [(label, said) for label, said in found if label.follows]
        numbers["component right"] = f"{right} of {len(found)}"
        numbers["clock right"] = (
            f"{sum(said.follows == label.follows for label, said in clocked)} of {len(clocked)}"
        )
        shares = [abs(said.unaccounted) for _, whole in rows if (said := whole[tool]).unaccounted is not None]
        if shares:
            numbers["unaccounted at most"] = f"{max(shares):.1%}"
    if any(said.lines for _, said in found):
        lined = sum(names_the_line(label, said) for label, said in found)
        numbers["line right"] = f"{lined} of {len(found)}"
    errors = sum(said[tool].error is not None for _, said in rows)
    return numbers | ({"could not run": errors} if errors else {})


def _ask(label: Label, tools: list[str]) -> Row:
    """Ask all tools about one script, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        return label, {tool: TOOLS[tool](label, Path(folder)) for tool in tools}


def _line(label: Label, said: dict[str, Said]) -> str:
    """One script, as a row."""
    cells = []
    for tool, what in said.items():
        word = "error" if what.error else what.verdict or ("leak" if what.leak else "-")
        mark = " " if what.error is None and what.leak == label.leaks else "!"
        where = f" {what.component}" if what.component else ""
        wrong = "?" if what.component and what.component != label.component else ""
        cells.append(f"{tool}:{mark}{word}{where}{wrong}")
    return f"{label.script.parent.name[:4]} {label.script.stem:40} {'  '.join(cells)}"


def _interval(count: int, of: int) -> str:
    """A 95 % interval, in percent."""
    low, high = binomtest(count, of).proportion_ci(method="wilson") if of else (0.0, 1.0)
    return f"{100 * low:.0f} to {100 * high:.0f} %"


def _can_run(label: Label) -> bool:
    """Whether this machine has what a script needs; else it is left out, and that is said."""
    missing = what_is_missing(label)
    if missing is not None:
        print(f"left out: {label.script.stem} needs {missing}")
    return missing is None


def _options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m zoo", description=__doc__)
    parser.add_argument("--tools", default="holdwater", help=f"of {','.join(TOOLS)} (default: holdwater)")
    parser.add_argument("--only", default="", metavar="PATTERN", help="scripts whose path holds this")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="scripts at a time (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was said")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(min(main(), 1))
