"""Leaks found, false alarms and right components over the zoo, beside other tools (`python -m zoo` runs it).

`--peers` asks the other tools too: about half an hour on two cores; memray, scalene and python-leak-hunter must be
installed. `--from FILE` takes what an earlier `python -m zoo --json FILE` has found.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from recording import Bar, record

ROOT = Path(__file__).resolve().parents[1]
PEERS = "difference,least-squares,mann-kendall,memray,leak-hunter,scalene"


def main() -> bool:
    """Run the zoo, or read what was found; write the scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--from", dest="found", type=Path, metavar="FILE")
    options = parser.parse_args()
    found = (
        json.loads(options.found.read_text())
        if options.found
        else run("holdwater" if not options.peers else f"holdwater,{PEERS}")
    )
    bars = judge(found["rows"])
    return record("zoo_scores", bars, scores=found["scores"], rows=short(found["rows"]))


def run(tools: str) -> dict[str, Any]:
    """Run the zoo."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "zoo.json"
        command = [sys.executable, "-m", "zoo", "--tools", tools, "--json", str(file)]
        subprocess.run(command, cwd=ROOT, check=False)
        return dict(json.loads(file.read_text(encoding="utf-8")))


def judge(rows: list[dict[str, Any]]) -> dict[str, Bar]:
    """The bars, from what was said of each script."""
    sys.path.insert(0, str(ROOT))
    from zoo.labels import read_labels  # noqa: PLC0415 - it lies beside this folder

    labels = {label.script.stem: label for label in read_labels()}
    leaks = [row["holdwater"] for row in rows if labels[row["script"]].leaks]
    healthy = [row["holdwater"] for row in rows if not labels[row["script"]].leaks]
    found = [
        (labels[row["script"]], row["holdwater"])
        for row in rows
        if labels[row["script"]].leaks and row["holdwater"]["leak"]
    ]
    right = sum(said["component"] == label.component for label, said in found)
    alarms = sum(said["leak"] for said in healthy)
    left = max(abs(row["holdwater"]["unaccounted"] or 0.0) for row in rows)
    return {
        f"false alarms among {len(healthy)} look-alikes of the zoo": Bar(f"{alarms}", "none", alarms == 0),
        f"leaks of the zoo that are found, of {len(leaks)}": Bar(
            f"{len(found)}", "at least 95 %", len(found) >= 0.95 * len(leaks)
        ),
        "right component, of those found": Bar(
            f"{right} of {len(found)}", "at least 95 %", right >= 0.95 * len(found)
        ),
        "resident memory that no part explains, worst script": Bar(f"{left:.1%}", "at most 5 %", left <= 0.05),
    }


def short(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each tool said of each script, in a word or two."""
    return [
        {
            name: said
            if name == "script"
            else {key: said[key] for key in ("leak", "verdict", "component", "rate", "error") if said.get(key)}
            for name, said in row.items()
        }
        for row in rows
    ]


if __name__ == "__main__":
    sys.exit(not main())
