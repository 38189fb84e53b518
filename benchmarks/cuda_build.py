"""PyTorch as the registry gives it, a build for CUDA, on a machine with or without a driver: is a script as bare?

Ten scripts of the zoo are run bare and under `holdwater run`. Their output and exit codes must be the same, and
the verdicts those that the zoo knows. `make cuda-build` installs that build into an environment of its own, and
runs this. `make cuda-build CUDA_TORCH='torch==2.9.*'` does so with the oldest PyTorch that is supported, whose
result is a file of its own.

    python benchmarks/cuda_build.py
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import torch

from recording import Bar, record

ZOO = Path(__file__).resolve().parents[1] / "zoo"
SCRIPTS = {
    "leaks": (
        *("cache_without_limit", "adapters_never_deleted", "array_grown_by_concatenation"),
        *("average_weights_with_grad", "best_states_kept"),
    ),
    "lookalikes": (
        *("cache_with_limit", "adapters_replaced", "array_allocated_once", "average_weights_without_grad"),
        "best_state_overwritten",
    ),
}
"""Leaks, and the look-alike of each."""
SECONDS = 600
"""Most that one run may take."""
OLDEST = "2.9."
"""The version of PyTorch that `pyproject.toml` asks for at least."""


def main() -> bool:
    """Run each script both ways, and compare."""
    if torch.version.cuda is None:
        print(f"torch {torch.__version__} is not a build for CUDA: see `make cuda-build`", file=sys.stderr)
        return False
    rows = [compare(ZOO / folder / f"{name}.py") for folder, names in SCRIPTS.items() for name in names]
    same = [row for row in rows if row["same"]]
    right = [row for row in rows if row["verdict"] in row["expected"]]
    oldest = torch.__version__.startswith(OLDEST)
    build = f"PyTorch {torch.__version__}, a build for CUDA"
    return record(
        "cuda_build_oldest" if oldest else "cuda_build",
        {
            f"{build}: scripts whose output and exit code are as bare": Bar(
                f"{len(same)} of {len(rows)}", "all", len(same) == len(rows)
            ),
            f"{build}: verdicts as the zoo knows them": Bar(
                f"{len(right)} of {len(rows)}", "all", len(right) == len(rows)
            ),
        },
        by="benchmarks/cuda_build.py",
        cuda=torch.version.cuda,
        driver=torch.cuda.is_available(),
        rows=rows,
    )


def compare(script: Path) -> dict[str, Any]:
    """Run one script bare and observed.

    Args:
        script: Of the zoo; the file beside it holds its verdict.
    """
    known = tomllib.loads(script.with_suffix(".toml").read_text(encoding="utf-8"))["verdict"]
    with tempfile.TemporaryDirectory() as folder:
        bare = run(folder, str(script))
        observed = run(folder, "-m", "holdwater", "run", "--quiet", "--json", "v.json", str(script))
        file = Path(folder) / "v.json"
        verdict = json.loads(file.read_text(encoding="utf-8"))["verdict"] if file.exists() else None
    return {
        "script": script.name,
        "same": (bare.returncode, bare.stdout) == (observed.returncode, observed.stdout),
        "verdict": verdict,
        "expected": [known] if type(known) is str else known,
        "stderr": observed.stderr[-2000:] if observed.returncode != bare.returncode else "",
    }


def run(folder: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in a folder.

    Args:
        folder: The working directory.
        words: Python's arguments.
    """
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False
    )


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
