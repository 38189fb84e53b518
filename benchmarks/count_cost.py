"""What counting objects costs a script in its longest step, time and peak memory, in pairs with and without.

Two scripts: an ordinary torch process, and one whose data set is a list of three million records. Each writes down
how long its steps took, and its greatest resident memory.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from recording import Bar, record

HEAD = """
import json, resource, time
import torch
torch.manual_seed(0)
torch.set_num_threads(1)
"""
DATA = {
    "ordinary": "data = [{'id': i, 'text': [i, i + 1]} for i in range(1000)]\n",
    "three million records": "data = [{'id': i, 'text': [i, i + 1]} for i in range(3_000_000)]\n",
}
LOOP = """
model = torch.nn.Sequential(*[torch.nn.Linear(64, 64) for _ in range(8)])
optimizer = torch.optim.Adam(model.parameters())
times, then = [], time.perf_counter()
for step in range(STEPS):
    model(torch.randn(8, 64)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    time.sleep(0.01)
    now = time.perf_counter()
    times.append(now - then)
    then = now
print("TIMES", json.dumps({"steps": times, "peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""


def main() -> bool:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=600)
    options = parser.parse_args()
    bars: dict[str, Bar] = {}
    numbers: dict[str, Any] = {}
    for name, data in DATA.items():
        text = HEAD + data + LOOP.replace("STEPS", str(options.steps))
        pairs = [(run(text, bare=True), run(text, bare=False)) for _ in range(options.pairs)]
        numbers[name] = [{"bare": bare, "observed": observed} for bare, observed in pairs]
        bars |= judge(name, pairs)
    return record("count_cost", bars, pairs=options.pairs, steps=options.steps, runs=numbers)


def judge(name: str, pairs: list[tuple[dict[str, float], dict[str, float]]]) -> dict[str, Bar]:
    """Compare the medians of the pairs with what is asked for."""
    held = float(np.median([observed["longest"] - bare["longest"] for bare, observed in pairs]))
    usual = float(np.median([bare["usual"] for bare, _ in pairs]))
    longer = float(np.median([observed["seconds"] - bare["seconds"] for bare, observed in pairs]))
    whole = float(np.median([bare["seconds"] for bare, _ in pairs]))
    more = float(np.median([observed["peak"] - bare["peak"] for bare, observed in pairs]))
    most_held, most_longer = max(0.05, 0.05 * usual), max(2.0, 0.02 * whole)
    return {
        f"{name}: longest step, more than bare": Bar(
            f"{1000 * held:.0f} ms", f"at most {1000 * most_held:.0f} ms", held <= most_held
        ),
        f"{name}: whole command, more than bare": Bar(
            f"{longer:.1f} s of {whole:.0f} s", f"at most {most_longer:.1f} s", longer <= most_longer
        ),
        f"{name}: peak memory of the script, more than bare": Bar(
            f"{more / 1e6:.0f} MB", "at most 60 MB", more <= 60e6
        ),
    }


def run(text: str, *, bare: bool) -> dict[str, float]:
    """Run a script once; its first steps are left out, for they load what is used first."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.py"
        script.write_text(text, encoding="utf-8")
        verdict = Path(folder) / "verdict.json"
        observed = ["-m", "holdwater", "run", "--quiet", "--out", f"{folder}/run", "--json", str(verdict)]
        command = [sys.executable, *([] if bare else observed), str(script)]
        began = time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - began
        said = json.JSONDecoder().raw_decode(done.stdout.rpartition("TIMES ")[2])[0]
        overhead = {} if bare else json.loads(verdict.read_text(encoding="utf-8"))["overhead"]
    steps = np.array(said["steps"][5:])
    return {
        "seconds": seconds, "longest": float(steps.max()), "usual": float(np.median(steps)), "peak": said["peak"],
        "counting": overhead.get("attribution_seconds", 0.0),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(not main())
