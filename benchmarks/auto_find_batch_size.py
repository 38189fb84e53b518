"""What Transformers' `auto_find_batch_size` does with one injected lack of memory: begins again, or goes on?

Needs transformers and accelerate; ours meets the same in `benchmarks/out_of_memory.py`.
"""

import json
import subprocess
import sys
from pathlib import Path

from recording import Bar, record

PROGRAM = Path(__file__).parent / "programs" / "auto_find_batch_size.py"


def main() -> None:
    """Measure, print and record."""
    done = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, check=True)
    found = json.loads(done.stderr.strip().splitlines()[-1])
    begun = found["one_shortage"]["begun"]
    first, last = begun[0], begun[-1]
    changed = "the same" if first["weights"] == last["weights"] else "changed"
    said = (
        f"begins again at step {last['step']} with {changed} weights; effective batch "
        f"{first['effective_batch']} -> {last['effective_batch']}"
    )
    whole = len(begun) == 1 and first["effective_batch"] == last["effective_batch"]
    bar = Bar(said, "goes on with the same weights and effective batch (not our bar)", whole)
    record(
        "auto_find_batch_size", {"Transformers' auto_find_batch_size after one lack of memory": bar}, runs=found
    )


if __name__ == "__main__":
    main()
