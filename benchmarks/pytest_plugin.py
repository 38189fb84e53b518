"""Measure the pytest plugin: false failures in healthy workloads, leaks of a kilobyte a call that are found.

    python benchmarks/pytest_plugin.py [--part N/M] [--healthy 1000] [--leaks 100] [--abreast 5]

Half of all runs have a busy process on each core beside them. A part writes its counts beside the result; when the
last part has run, all are put together.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recording import RESULTS, Bar, record

HERE = Path(__file__).parent
HEALTHY, LEAKS = 10, 5
"""Workloads of each kind in `call_workloads.py`."""
IN_TIME = 60.0
"""Seconds within which a leak must be found, with its explanation."""
WAIT = 2
"""Leaking calls mostly wait: this many times as many of their processes run abreast."""
AT_ONCE = {"healthy": 2, "leak": 1}
"""Repeats of each workload in one pytest process."""


@contextmanager
def hogs(*, on: bool) -> Iterator[None]:
    """A busy process on each core."""
    command = [sys.executable, "-c", "while True: sum(range(10000))"]
    busy = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)] if on else []
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def run_pytest(kind: str, repeats: int) -> list[dict[str, Any]]:
    """Run the workloads of a kind, and return one row a test."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable, "-m", "pytest", str(HERE / "call_workloads.py"), "-q", "-k", kind,
            f"--junitxml={report}", "-p", "no:randomly", "-p", "no:cacheprovider", "-o", "timeout=600",
            "-o", "junit_duration_report=call", "-c", os.devnull, f"--rootdir={HERE}",
        ]  # fmt: skip
        environment = os.environ | {"CALL_REPEATS": str(repeats), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=folder)
        return [_row(case) for case in ET.parse(report).getroot().iter("testcase")]  # noqa: S314 - our own report


def _row(case: ET.Element) -> dict[str, Any]:
    """A test's name, seconds and verdict."""
    found = case.find(".//property[@name='flat_memory']")
    verdict = {} if found is None else json.loads(found.attrib["value"])
    failed, skipped = case.find("failure") is not None, case.find("skipped") is not None
    return {
        "name": case.attrib["name"].partition("[")[0] if "healthy" in case.attrib["name"] else case.attrib["name"],
        "seconds": float(case.attrib["time"]),  # of the whole test, with the explanation
        "failed": failed,
        "skipped": skipped,
        "leak": verdict.get("kind") == "leak",
        "right_file": str(verdict.get("file", "")).endswith("call_workloads.py"),
        "kind": verdict.get("kind"),
        "missed": verdict.get("missed_bytes_per_call"),
        "calls": verdict.get("calls"),
        "text": verdict.get("verdict") if failed else None,
    }


def measure(kind: str, tests: int, *, hog: bool, abreast: int) -> list[dict[str, Any]]:
    """Run about as many tests of a kind as asked for."""
    repeats = AT_ONCE[kind]
    each = repeats * (HEALTHY if kind == "healthy" else LEAKS)
    runs = max(round(tests / each), 1)
    with hogs(on=hog), ThreadPoolExecutor(abreast * (WAIT if kind == "leak" else 1)) as pool:
        found = pool.map(lambda _: run_pytest(kind, repeats), range(runs))
        return [row | {"hog": hog} for rows in found for row in rows if not row["skipped"]]


def put_together(rows: list[dict[str, Any]]) -> bool:
    """Write the result."""
    bars: dict[str, Bar] = {}
    for hog, beside in ((False, ""), (True, ", with a busy process on each core beside them")):
        healthy = [row for row in rows if "healthy" in row["name"] and row["hog"] == hog]
        leaks = [row for row in rows if "leak" in row["name"] and row["hog"] == hog]
        false = [row for row in healthy if row["failed"]]
        found = [row for row in leaks if row["leak"] and row["seconds"] <= IN_TIME]
        bars |= {
            f"false failures of ten healthy library workloads{beside}": Bar(
                f"{len(false)} of {len(healthy)}",
                "at most 1 %",
                bool(healthy) and len(false) <= 0.01 * len(healthy),
            ),
            f"leaks of 1 kB a call of 8 ms, found within 60 s{beside}": Bar(
                f"{len(found)} of {len(leaks)}", "at least 95 %", bool(leaks) and len(found) >= 0.95 * len(leaks)
            ),
        }
    by_name = Counter(f"{row['name']}{', hog' if row['hog'] else ''}" for row in rows if row["failed"])
    seconds = sorted(row["seconds"] for row in rows if "healthy" in row["name"])
    slow = [row["seconds"] for row in rows if "leak" in row["name"]]
    return record(
        "pytest_plugin",
        bars,
        failures=by_name,
        false_failures=[row["text"] for row in rows if "healthy" in row["name"] and row["failed"]],
        median_seconds_healthy=seconds[len(seconds) // 2] if seconds else None,
        longest_seconds_healthy=seconds[-1] if seconds else None,
        longest_seconds_leak=max(slow, default=None),
        leaks_with_their_file=sum(row["right_file"] for row in rows if "leak" in row["name"]),
    )


def main() -> int:
    """Run all, or one part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", default="1/1", help="N/M: run the Nth of M parts")
    parser.add_argument("--healthy", type=int, default=1000)
    parser.add_argument("--leaks", type=int, default=100)
    parser.add_argument("--abreast", type=int, default=5)
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    began, rows = time.perf_counter(), []
    for hog in (False, True):
        for kind, tests in (("healthy", options.healthy), ("leak", options.leaks)):
            rows += measure(kind, round(tests / 2 / parts), hog=hog, abreast=options.abreast)
            print(kind, "hog" if hog else "no hog", f"{time.perf_counter() - began:.0f} s", flush=True)
    RESULTS.joinpath(f"pytest_plugin.{part}-{parts}.part").write_text(json.dumps(rows), encoding="utf-8")
    files = [RESULTS / f"pytest_plugin.{number}-{parts}.part" for number in range(1, parts + 1)]
    if not all(file.exists() for file in files):
        return 0
    everything = [row for file in files for row in json.loads(file.read_text(encoding="utf-8"))]
    for file in files:
        file.unlink()
    return 0 if put_together(everything) else 1


if __name__ == "__main__":
    sys.exit(main())
