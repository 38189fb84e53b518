"""Seconds that replacing the process takes, and whether the run is otherwise the same, to the bit.

The small GPT trains for 1,000 and for 10,000 steps with `--reload-interval 200 --checkpoint-interval 100`, and
beside it straight, in turns; a script with transformers imported is replaced twenty times. Each replacement is
measured by holdwater itself: from the end of the last step to the end of the first one, imports included.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from recording import Bar, record

TRAINER = Path(__file__).parent / "programs" / "recycled_trainer.py"
PROGRAM = str(Path(sys.executable).with_name("holdwater"))
SMALL = (
    *("train", "--preset", "small", "--checkpoint-interval", "100", "--sample-length", "0"),
    *("--threads", "1", "--max-memory", "4GB"),
)
PAIRS = {1000: 5, 10_000: 2}
"""How often the two are run in turns, by their steps."""
SCRIPT = """
import torch, transformers
from transformers import LlamaConfig, LlamaForCausalLM
import holdwater
torch.set_num_threads(1)
torch.manual_seed(0)
config = LlamaConfig(vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                     num_attention_heads=4, num_key_value_heads=2)
model = LlamaForCausalLM(config)
optimizer = torch.optim.AdamW(model.parameters())
order = torch.Generator().manual_seed(0)
for name, thing in (("model", model), ("optimizer", optimizer), ("order", order)):
    holdwater.resumable(name, thing)
for step in holdwater.steps(210):
    tokens = torch.randint(0, 256, (2, 32), generator=order)
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward(); optimizer.step(); optimizer.zero_grad()
"""


def tensors(run: Path) -> dict[str, bytes]:
    """The bytes of every tensor of a run's last checkpoint."""
    folder = max((run / "checkpoints").glob("step-*"))
    return {
        f"{path.name}/{name}": array.tobytes()
        for path in sorted(folder.glob("*.safetensors"))
        for name, array in load_file(path).items()
    }


def run(folder: Path, *command: str) -> tuple[dict[str, Any], float]:
    """Run holdwater; return its verdict and the seconds that it took."""
    began = time.monotonic()
    done = subprocess.run(
        [PROGRAM, *command, "--json", str(folder / "v.json")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads((folder / "v.json").read_text()), time.monotonic() - began


def replacements(verdict: dict[str, Any]) -> list[float]:
    """Seconds of each replacement."""
    return [action["seconds"] for action in verdict["actions"] if action["action"] == "recycle"]


def small_gpt(folder: Path, steps: int) -> dict[str, Any]:
    """The small GPT, recycled and straight."""
    flags = (*SMALL, "--steps", str(steps), "--eval-interval", str(steps))
    straight, alone = run(folder, *flags, "--out", f"straight-{steps}")
    recycled, seconds = run(folder, *flags, "--out", f"recycled-{steps}", "--reload-interval", "200")
    costs = replacements(recycled)
    beyond = [(seconds - sum(costs)) / alone - 1]
    for pair in range(1, PAIRS.get(steps, 1)):  # in turns: these machines are shared, and one pair tells little
        _, other = run(folder, *flags, "--out", f"straight-{steps}-{pair}")
        again, longer = run(folder, *flags, "--out", f"recycled-{steps}-{pair}", "--reload-interval", "200")
        beyond.append((longer - sum(replacements(again))) / other - 1)
    print(f"{steps} steps, beyond the replacements: {', '.join(f'{share:+.1%}' for share in beyond)}", flush=True)
    return {
        "steps": steps,
        "exact": tensors(folder / f"straight-{steps}") == tensors(folder / f"recycled-{steps}"),
        "verdict": recycled["verdict"],
        "replaced": len(costs),
        "median_seconds": statistics.median(costs),
        "worst_seconds": max(costs),
        "straight_seconds": alone,
        "recycled_seconds": seconds,
        "beyond_the_replacements": statistics.median(beyond),
        "pairs": beyond,
        "within": statistics.median(beyond) <= 0.01,
        "peak_bytes": [straight["peak"]["host_bytes"], recycled["peak"]["host_bytes"]],
    }


def with_transformers(folder: Path) -> tuple[list[float], dict[str, Any]]:
    """A script that imports transformers, and its Trainer; nothing where that is not installed."""
    if importlib.util.find_spec("accelerate") is None:
        return [], {}
    (folder / "script.py").write_text(SCRIPT)
    loop, _ = run(folder, "run", "--supervise", "--out", "hf", "--reload-interval", "10", "--", "script.py")
    plain, recycled = (
        subprocess.run([*command, str(TRAINER), name], cwd=folder, check=True, capture_output=True, text=True)
        for command, name in (
            ((sys.executable,), "plain"),
            (
                (PROGRAM, "run", "--supervise", "--reload-interval", "20", "--json", "t.json", "--out", "t"),
                "often",
            ),
        )
    )
    weights = [done.stdout[done.stdout.index("WEIGHTS") :] for done in (plain, recycled)]
    seconds = replacements(json.loads((folder / "t.json").read_text()))
    return replacements(loop), {"same": weights[0] == weights[1], "seconds": seconds}


def main() -> bool:
    """Measure, print and record; return whether every bar was reached."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, nargs="+", default=[1000, 10_000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        runs = [small_gpt(folder, steps) for steps in options.steps]
        (folder / "script.py").write_text(SCRIPT)
        transformers, trainer = with_transformers(folder)
    median = statistics.median(one["median_seconds"] for one in runs)
    exact = all(one["exact"] and one["verdict"] in {"flat", "bounded"} for one in runs)
    bars = {
        "replacing the process of the small GPT, from the last step to the next, median": Bar(
            f"{median:.3f} s", "at most 0.25 s", median <= 0.25
        ),
        "small GPT, process replaced every 200 steps: same tensors as straight, and its memory": Bar(
            ", ".join(f"{one['steps']} steps: {one['exact']}, {one['verdict']}" for one in runs),
            "all exact, flat or bounded",
            exact,
        ),
        "its time beyond the replacements, against straight": Bar(
            ", ".join(f"{one['steps']} steps: {one['beyond_the_replacements']:+.1%}" for one in runs),
            "at most 1 %",
            all(one["beyond_the_replacements"] <= 0.01 for one in runs),
        ),
    }
    if transformers:
        middle = statistics.median(transformers)
        bars["replacing a process that has imported transformers, median"] = Bar(
            f"{middle:.3f} s", "at most 2 s", middle <= 2
        )
    if trainer:
        bars["a Transformers Trainer whose process is replaced every 20 steps"] = Bar(
            f"{len(trainer['seconds'])} times, {statistics.median(trainer['seconds']):.2f} s, weights "
            f"{'the same' if trainer['same'] else 'DIFFER'}",
            "the same weights to the bit",
            trainer["same"],
        )
    return record("recycling", bars, small_gpt=runs, transformers_seconds=transformers, trainer=trainer)


if __name__ == "__main__":
    sys.exit(not main())
