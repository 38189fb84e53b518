"""Run every benchmark, one after the other: two and a half hours on two cores, one more with a CUDA device."""

import subprocess
import sys
from pathlib import Path

import torch

BENCHMARKS = (
    "zoo_scores",
    "simulation",
    "forecasts",
    "run_cost",
    "real_programs",
    "flat_run",
    "speed",
    "guard_cost",
    "count_cost",
    "million_steps",
    "kill_and_resume",
    "survival",
    "recycling",
    "out_of_memory",
    "soak",
    "ladder",
    "leaves_nothing",
    "tuning_masters",
)
ON_CUDA = (
    "gpu_explanations",
    "tuning_speed",
    "tuning_static",
    "tuning_memory",
    "tuning_rebirth",
    "tuning_survival",
)


def main() -> int:
    """Run them; return how many missed a bar."""
    folder = Path(__file__).parent
    missed = sum(
        subprocess.run([sys.executable, str(folder / f"{name}.py")], check=False).returncode != 0
        for name in (*BENCHMARKS, *(ON_CUDA if torch.cuda.is_available() else ()))
    )
    subprocess.run([sys.executable, str(folder.parent / "docs" / "check_docs.py"), "--write"], check=False)
    return missed


if __name__ == "__main__":
    sys.exit(main())
