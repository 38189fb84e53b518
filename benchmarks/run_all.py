"""Run every benchmark, one after the other (about two and a half hours on two cores)."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = (
    "zoo_scores",
    "simulation",
    "forecasts",
    "run_cost",
    "real_programs",
    "flat_run",
    "speed",
    "guard_cost",
    "million_steps",
    "kill_and_resume",
    "survival",
    "recycling",
    "out_of_memory",
    "soak",
    "ladder",
    "leaves_nothing",
)


def main() -> int:
    """Run them; return how many missed a bar."""
    folder = Path(__file__).parent
    missed = sum(
        subprocess.run([sys.executable, str(folder / f"{name}.py")], check=False).returncode != 0
        for name in BENCHMARKS
    )
    subprocess.run([sys.executable, str(folder.parent / "docs" / "check_docs.py"), "--write"], check=False)
    return missed


if __name__ == "__main__":
    sys.exit(main())
