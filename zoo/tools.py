"""Adapters: how each tool is asked about one script. Every peer gets a fair chance.

The rules of thumb judge the curve of resident memory that was recorded, once, at its end, and after the first
fifth is left out; the profilers run the script themselves, and what they call a leak counts if it lies in the
script or, for memray, if 1 MB of it is left at the end.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from holdwater.store.history import read_history
from zoo.labels import Label

LIMIT = 300.0
"""Seconds for one script."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a tool said of one script."""

    leak: bool
    verdict: str = ""
    component: str | None = None
    """Of the first leak."""
    rises: str | None = None
    """The component of the first finding that is too early to judge."""
    follows: str | None = None
    rate: float | None = None
    detected_step: int | None = None
    unaccounted: float | None = None
    """The share of resident memory that no part explains."""
    lines: tuple[int, ...] = ()
    """Lines of the script that it blames."""
    error: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


Tool = Callable[[Label, Path], Said]


def names_the_line(label: Label, said: Said) -> bool:
    """Whether the first line that is blamed is the one that allocates or holds."""
    truth = {line.number for line in (label.allocated, label.held) if line is not None}
    return bool(said.lines) and said.lines[0] in truth


def names_the_holder(label: Label, said: Said) -> bool:
    """Whether what is said to hold, first, bears the name of what holds."""
    held = next((name for role, _, name in said.facts.get("sites", ()) if role == "held"), None)
    return label.held is not None and held is not None and held == label.held.name


def ask_holdwater(label: Label, folder: Path, steps: int | None = None) -> Said:
    """`holdwater run`, ended after so many steps, and its verdict as JSON."""
    verdict_file = folder / "v.json"
    command = [sys.executable, "-m", "holdwater", "run", "--quiet", "--out", "run", "--json", str(verdict_file)]
    command += ["--steps", str(steps)] if steps is not None else []
    done = _run([*command, str(label.script)], folder)
    if done.returncode or not verdict_file.exists():
        return Said(leak=False, error=done.stderr[-500:])
    verdict = json.loads(verdict_file.read_text(encoding="utf-8"))
    first: dict[str, Any] = next((found for found in verdict["findings"] if found["verdict"] == "leak"), {})
    sites = [site for site in first.get("sites", ()) if site["file"] == str(label.script)]
    parts = verdict.get("parts") or {}
    return Said(
        leak=verdict["verdict"] == "leak",
        verdict=verdict["verdict"],
        component=first.get("component"),
        rises=next((found["component"] for found in verdict["findings"] if found["verdict"] == "warming"), None),
        follows=first.get("follows"),
        rate=(first.get("rate") or {}).get("bytes_per_step"),
        detected_step=first.get("detected_step"),
        unaccounted=parts["unaccounted"] / parts["resident"] if parts else None,
        lines=tuple(site["line"] for site in sites),
        facts={
            "steps": verdict["steps"],
            "overhead": verdict["overhead"],
            "errors": verdict.get("errors"),
            "explained": first.get("explained"),
            "pattern": first.get("pattern"),
            "missing": first.get("missing"),
            "explained_step": first.get("explained_step"),
            "every_steps": (first.get("rate") or {}).get("every_steps"),
            "sites": [[site["role"], site["line"], site["name"]] for site in first.get("sites", ())],
        },
    )


def _curve(folder: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Steps and resident memory in MB that `ask_holdwater` recorded, without the first fifth."""
    samples = read_history(folder / "run").samples
    steps, memory = samples.last_step.astype(float), samples.means("resident") / 1e6
    keep = (steps >= steps[-1] / 5) & ~np.isnan(memory)
    return steps[keep], memory[keep]


def ask_difference(label: Label, folder: Path) -> Said:
    """One reading minus the one before: above 1 MB, anywhere."""
    del label
    _, memory = _curve(folder)
    return Said(leak=bool((np.diff(memory) > 1).any()))


def ask_least_squares(label: Label, folder: Path) -> Said:
    """A line by least squares: its slope is positive with p < 0.001, and it rises by 1 MB."""
    del label
    steps, memory = _curve(folder)
    from scipy import stats  # noqa: PLC0415 - for the rules of thumb only

    line = stats.linregress(steps, memory)
    return Said(leak=bool(line.slope > 0 and line.pvalue < 0.001 and line.slope * (steps[-1] - steps[0]) > 1))


def ask_mann_kendall(label: Label, folder: Path) -> Said:
    """Kendall's rank test for a trend: p < 0.001, and 1 MB more at the end than at the beginning."""
    del label
    steps, memory = _curve(folder)
    from scipy import stats  # noqa: PLC0415 - as above

    tau = stats.kendalltau(steps, memory)
    return Said(leak=bool(tau.statistic > 0 and tau.pvalue < 0.001 and memory[-1] - memory[0] > 1))


def ask_memray(label: Label, folder: Path) -> Said:
    """Memray with native traces off: allocations that are left at the end, by the script's own line."""
    record = folder / "memray.bin"
    done = _run([sys.executable, "-m", "memray", "run", "-q", "-o", str(record), str(label.script)], folder)
    if done.returncode:
        return Said(leak=False, error=done.stderr[-500:])
    from memray import FileReader  # noqa: PLC0415 - a peer, only where it is asked

    left: dict[int, int] = {}
    with FileReader(str(record)) as reader:
        for found in reader.get_leaked_allocation_records(merge_threads=True):
            trace = found.stack_trace(max_stacks=60)
            line = next((number for _, file, number in trace if file == str(label.script)), None)
            if line is not None:
                left[line] = left.get(line, 0) + found.size
    imports = {number for number, code in enumerate(label.script.read_text().splitlines(), 1) if "import " in code}
    guilty = {line: size for line, size in left.items() if line not in imports and size > 1e6}
    return Said(leak=bool(guilty), lines=tuple(sorted(guilty, key=lambda line: -guilty[line])))


def ask_scalene(label: Label, folder: Path) -> Said:
    """Scalene's own list of possible leaks, in the script."""
    report = folder / "scalene.json"
    command = [sys.executable, "-m", "scalene", "run", "--memory", "-o", str(report), str(label.script)]
    done = _run(command, folder)
    if not report.exists():
        return Said(leak=False, error=(done.stderr or done.stdout)[-500:])
    files = json.loads(report.read_text(encoding="utf-8")).get("files", {})
    lines = [int(line) for facts in files.values() for line in facts.get("leaks", {})]
    return Said(leak=bool(lines), lines=tuple(lines))


_HUNT = """
import runpy, sys
from leak_hunter import MemorySampler, diagnose
with MemorySampler(interval=0.05) as sampler:
    runpy.run_path(sys.argv[1], run_name="__main__")
samples = sampler.samples[len(sampler.samples) // 2 :]
print("SAID", diagnose(samples, min_mb_per_hour=1.0 * 3600 / max(len(samples) * 0.05, 1)))
"""
"""Its sampler and its diagnosis, on the later half, where a leak is 1 MB in that time."""


def ask_leak_hunter(label: Label, folder: Path) -> Said:
    """python-leak-hunter: its sampler of resident memory and its diagnosis."""
    done = _run([sys.executable, "-c", _HUNT, str(label.script)], folder)
    said = done.stdout.rpartition("SAID ")[2]
    if done.returncode:
        return Said(leak=False, error=done.stderr[-500:])
    return Said(leak=said.startswith("RSS grows") and "fragmentation" not in said, facts={"said": said[:300]})


def _run(command: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a tool; what a script leaves in temporary files goes with the folder."""
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(folder)},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"not done in {LIMIT:.0f} s")


TOOLS: dict[str, Tool] = {
    "holdwater": ask_holdwater,
    "difference": ask_difference,
    "least-squares": ask_least_squares,
    "mann-kendall": ask_mann_kendall,
    "memray": ask_memray,
    "scalene": ask_scalene,
    "leak-hunter": ask_leak_hunter,
}
"""By name; the rules of thumb judge the curve that holdwater recorded, so it comes first."""
