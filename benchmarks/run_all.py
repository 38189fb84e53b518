"""Run every benchmark, one after the other (about half an hour on two cores)."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = ("flat_run", "speed", "guard_cost", "million_steps", "kill_and_resume")


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
