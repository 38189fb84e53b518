"""A fine-tune that diverges: it stops, keeps a finite checkpoint, and finishes with half the learning rate.

A small Llama of random weights is fine-tuned with a weight decay of 10. A learning rate above 0.2 then makes the
weights larger at each step, until the loss is not finite; half of 0.3 makes them smaller. The branch begins at the
newest checkpoint of the run that stopped, of step 20. A checkpoint is finite also where the weights are too large
to come back: with one of step 25, two steps before the end, the branch was stopped as well.

    python benchmarks/diverging.py
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import load_file

from recording import Bar, record

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.small_models import make_model  # noqa: E402 - it lies beside this folder

RATE, STEPS = 0.3, 300
FLAGS = {
    "device": "cpu", "threads": 1, "max-memory": "4GB", "train-seq-length": 32, "lora-rank": 4, "eval-batches": 2,
    "sample-length": 4, "warmup-steps": 20, "steps": STEPS, "checkpoint-interval": 20, "weight-decay": 10,
    "learning-rate": RATE,
}  # fmt: skip


def train(folder: Path, out: str, flags: dict[str, Any]) -> dict[str, Any]:
    """Train, and return the verdict with what was said.

    Args:
        folder: Where the model and the rows are.
        out: The folder of the run.
        flags: Of the command.
    """
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    file = folder / f"{out}.json"
    run = subprocess.run(
        [sys.executable, "-m", "holdwater", "train", *words, "--out", out, "--json", str(file)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {"exit_code": run.returncode, "found": found, "said": run.stderr[-2000:]}


def newest(run: Path) -> Path:
    """The newest checkpoint of a run."""
    return max((run / "checkpoints").glob("step-*"))


def is_finite(checkpoint: Path) -> bool:
    """Whether all numbers of a checkpoint are finite; states of random generators are none."""
    files = [path for path in checkpoint.glob("*.safetensors") if path.name != "random.safetensors"]
    return all(bool(np.isfinite(array).all()) for path in files for array in load_file(path).values())


def main() -> bool:
    """Measure."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_model(folder / "model", "Llama")
        rows = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(12) for b in range(10)]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        stopped = train(folder, "run", {"model": "model", "data": "rows.jsonl", **FLAGS})
        last = newest(folder / "run")
        kept = is_finite(last)
        branch = train(folder, "branch", {"resume": last, "learning-rate": RATE / 2})
        config = yaml.safe_load((folder / "branch" / "config.yaml").read_text(encoding="utf-8"))
        ended = newest(folder / "branch")
        return judge(stopped, branch, (last.name, kept), (ended.name, is_finite(ended), config["learning_rate"]))


def judge(
    stopped: dict[str, Any], branch: dict[str, Any], kept: tuple[str, bool], ended: tuple[str, bool, float]
) -> bool:
    """Compare with the goals, and record.

    Args:
        stopped: The run that diverges.
        branch: The one that goes on from its newest checkpoint.
        kept: The name of that checkpoint, and whether it is finite.
        ended: The same of the branch's newest, and the learning rate in its configuration.
    """
    code, steps = stopped["exit_code"], stopped["found"]["steps"]
    first = stopped["found"]["loss"]["first_nonfinite_step"]
    done, later = branch["exit_code"], branch["found"].get("loss", {"first_nonfinite_step": "unknown"})
    finished = (
        done == 0 and later["first_nonfinite_step"] is None and ended == (f"step-{STEPS:08}", True, RATE / 2)
    )
    bars = {
        "a fine-tune that diverges: the first loss that is not finite, and the last step": Bar(
            f"step {first}, ends after {steps} with {code}",
            "ends at that step or the next, with 2",
            code == 2 and first is not None and steps - first in {0, 1},
        ),
        "its newest checkpoint": Bar(f"{kept[0]}, {'finite' if kept[1] else 'NOT finite'}", "finite", kept[1]),
        "going on from it with half the learning rate": Bar(
            f"ends with {done} at {ended[0]}, learning rate {ended[2]:g}",
            f"all {STEPS} steps, finite, {RATE / 2:g} in its configuration",
            finished,
        ),
    }
    return record("diverging", bars, learning_rate=RATE, stopped=stopped["said"], branch=branch["said"])


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
