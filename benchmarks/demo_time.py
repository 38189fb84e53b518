"""`make demo` as a stranger meets it: in a fresh clone, with packages from the registry, and nothing cached.

What is committed is cloned into a temporary folder. Settings of pip on this machine (local wheels, other indexes)
are left out. Which packages are downloaded, and how large they are, is read from what pip prints. The demo needs
some GB of the temporary folder's disk, since the registry's PyTorch is a build for CUDA.

    python benchmarks/demo_time.py
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from recording import Bar, record

ROOT = Path(__file__).resolve().parents[1]
MOST = 60
"""Seconds from installed to the verdict."""
UNITS = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
SIZE = re.compile(r"Downloading (\S+) \(([\d.]+) (bytes|kB|MB|GB)\)")


class Line(NamedTuple):
    """What make has printed, and when."""

    seconds: float
    """Since it was started."""
    text: str


def run_demo(clone: Path) -> tuple[list[Line], int]:
    """Run `make demo`.

    Args:
        clone: A fresh clone.

    Returns:
        What it printed, and its exit code.
    """
    changed = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": "",
        "PIP_INDEX_URL": "https://pypi.org/simple",
        "PIP_NO_CACHE_DIR": "1",
        "PYTHONUNBUFFERED": "1",
    }
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    began, lines = time.monotonic(), list[Line]()
    with subprocess.Popen(
        ["make", "demo", f"PYTHON={base_python()}"],  # noqa: S607 - make from the path
        cwd=clone, env=kept | changed, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as run:  # fmt: skip
        lines.extend(Line(time.monotonic() - began, text.rstrip()) for text in run.stdout or ())
    return lines, run.returncode


def base_python() -> str:
    """The interpreter that this environment was made with."""
    return str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")


def main() -> bool:
    """Measure, print and record."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)  # noqa: S607 - git from the path
        lines, code = run_demo(clone)
    training = next((line for line in lines if "holdwater train" in line.text), lines[-1])
    verdict = next((line for line in reversed(lines) if line.text.startswith("verdict:")), None)
    told = next((line for line in lines if line.text.startswith("installing")), training)
    parts = [(name, float(size) * UNITS[unit]) for line in lines for name, size, unit in SIZE.findall(line.text)]
    total, took = sum(size for _, size in parts), training.seconds
    after = None if verdict is None else verdict.seconds - took
    bars = {
        "`make demo` in a fresh clone, packages from the registry: seconds until all is installed": Bar(
            f"{took:.0f} s, {total / 1e9:.2f} GB in {len(parts)} files: {total / took / 1e6:.0f} MB/s, unpacked",
            "stated, with the link",
            code == 0,
        ),
        "seconds until it says what it is doing": Bar(f"{told.seconds:.0f} s", "at most 10 s", told.seconds <= 10),
        "seconds from installed to the verdict": Bar(
            "no verdict" if verdict is None or after is None else f"{after:.1f} s, {verdict.text}",
            f"at most {MOST} s, flat or bounded",
            code == 0 and after is not None and after <= MOST,
        ),
    }
    largest = sorted(parts, key=lambda part: -part[1])[:8]
    return record(
        "demo_time", bars, exit_code=code, largest=largest, last_lines=[line.text for line in lines[-6:]]
    )


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
