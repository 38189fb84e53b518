"""Write a benchmark's numbers with the machine, the versions and the date that they belong to."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

import holdwater

RESULTS = Path(__file__).parent / "results"


class Bar(NamedTuple):
    """What was asked of a number, and what it is."""

    measured: str
    """With its unit."""
    goal: str
    reached: bool


def record(name: str, bars: Mapping[str, Bar], **numbers: Any) -> bool:  # noqa: ANN401 - whatever JSON holds
    """Print and write the numbers of one benchmark.

    Args:
        name: Of the benchmark, and of its file in `results/`.
        bars: By what they measure.
        numbers: What else was measured.

    Returns:
        Whether every bar was reached.
    """
    text = {
        "benchmark": name,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {_processor()}, load {os.getloadavg()[0]:.2f}",
        "versions": {
            "holdwater": holdwater.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "bars": {
            what: {"goal": bar.goal, "measured": bar.measured, "reached": bool(bar.reached)}
            for what, bar in bars.items()
        },
        **numbers,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
    for what, bar in bars.items():
        print(f"{name}: {what}: {bar.measured} (goal: {bar.goal}) {'reached' if bar.reached else 'MISSED'}")
    return all(bar.reached for bar in bars.values())


def _processor() -> str:
    """The processor's name, as the kernel gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def commit() -> str:
    """The commit that was measured, with a plus where the tree had changes; a copy of the tree is told its own."""
    told = os.environ.get("BENCHMARKED_COMMIT")
    if told or shutil.which("git") is None:
        return told or "unknown"
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"],  # noqa: S607 - git from the path
        cwd=RESULTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout.strip() or "unknown"
