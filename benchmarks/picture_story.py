"""Three epochs over 663 pictures of 5.3 megapixels: a data set that keeps them decoded, and `holdwater train`.

The first run is `programs/picture_cache.py` under `holdwater run`: memory rises for one epoch, by four bytes a
pixel. The second fine-tunes a small vision-language model on the same files. The effective batch is 8 in both.

    python benchmarks/picture_story.py                     14 GB of memory; 10 minutes on two cores
    python benchmarks/picture_story.py --megapixels 1      a smaller story
    python benchmarks/picture_story.py --device cuda       only the second run, on a GPU: picture_story_cuda.json
    python benchmarks/picture_story.py --draw              docs/images/pictures.png from the recorded result

Drawing needs matplotlib.
"""

import argparse
import importlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from holdwater.store.history import read_history
from picture_files import draw_all
from recording import RESULTS, Bar, record

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.small_vision_models import make_vision_model  # noqa: E402 - it lies beside this folder

HOLDWATER = [sys.executable, "-m", "holdwater"]
BATCH, EPOCHS = 8, 3
RESIZED = 28 * 28 * 256
"""Pixels of a picture as the model sees it: 256 tokens."""
LENGTH = 400
"""Tokens of a row: those of one picture and its answer, and not of two."""
SETTLED = 20
"""Steps after which memory is to be flat."""
MOST = 200
"""Megabytes by which resident memory may move after that."""
SPARE = 5e9
"""Bytes of available memory that the run is to leave."""


def main() -> bool:
    """Measure both, or draw what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=663)
    parser.add_argument("--megapixels", type=float, default=5.3)
    parser.add_argument("--folder", type=Path, help="keep the pictures here for the next time")
    parser.add_argument("--draw", action="store_true", help="draw the recorded result, and measure nothing")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the model is fine-tuned")
    options = parser.parse_args()
    if options.draw:
        draw_curves(ROOT / "docs" / "images" / "pictures.png")
        return True
    height = round((options.megapixels * 1e6 * 3 / 4) ** 0.5)
    size = (round(height * 4 / 3), height)
    if options.device == "cpu":
        check_memory(options.pictures, size)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        pictures = options.folder or folder / "pictures"
        paths = draw_all(pictures, options.pictures, size, workers=os.cpu_count() or 2)
        if options.device != "cpu":
            return judge_on_device(fine_tune(paths, folder, options.device), options.pictures, size)
        kept = keep_decoded(pictures, folder)
        trained = fine_tune(paths, folder, options.device)
    return judge(kept, trained, options.pictures, size)


def check_memory(pictures: int, size: tuple[int, int]) -> None:
    """End here if the decoded pictures would not fit.

    Raises:
        SystemExit: They would not.
    """
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    available = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    needed = 4 * pictures * size[0] * size[1] + SPARE
    if needed > available:
        raise SystemExit(f"{needed / 1e9:.1f} GB are needed, and {available / 1e9:.1f} GB are available")


def keep_decoded(pictures: Path, folder: Path) -> dict[str, Any]:
    """Run the program whose data set keeps decoded pictures."""
    program = ROOT / "benchmarks" / "programs" / "picture_cache.py"
    run, verdict = folder / "kept", folder / "kept.json"
    flags = ["--out", str(run), "--json", str(verdict), "--quiet"]
    subprocess.run([*HOLDWATER, "run", *flags, str(program), str(pictures), str(EPOCHS)], check=True)
    with closing(sqlite3.connect(run / "rank-0.db")) as database:
        found = list(database.execute("SELECT step, kind, findings FROM verdicts ORDER BY rowid"))
    told = [(step, kind, shortened(json.loads(findings)[0])) for step, kind, findings in found]
    return measured(run, verdict) | {"told": told}


def shortened(finding: dict[str, Any]) -> dict[str, Any]:
    """What of a finding is recorded."""
    return {name: finding[name] for name in ("verdict", "component", "follows", "forecast", "advice")}


def fine_tune(paths: list[Path], folder: Path, device: str) -> dict[str, Any]:
    """Fine-tune a small vision-language model on the same files.

    Args:
        paths: Of the pictures.
        folder: For all that is written.
        device: On the CPU, the run has one thread and a budget.
    """
    rows, run, verdict = folder / "rows.jsonl", folder / "trained", folder / "trained.json"
    with rows.open("w", encoding="utf-8") as file:
        for number, path in enumerate(paths):
            answer = f"picture {number}"
            file.write(json.dumps({"image": str(path), "prompt": "what is it?", "completion": answer}) + "\n")
    model = make_vision_model(folder / "model", "qwen2_5_vl")
    steps = EPOCHS * (len(paths) - 1) // BATCH
    flags = {
        "model": model, "data": rows, "out": run, "json": verdict, "device": device, "batch-size": BATCH,
        "steps": steps, "max-pixels": RESIZED, "train-seq-length": LENGTH, "validation-share": 0.0001,
        "eval-interval": steps, "eval-batches": 1, "sample-length": 0,
    } | ({"threads": 1, "max-memory": "4GB"} if device == "cpu" else {})  # fmt: skip
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    subprocess.run([*HOLDWATER, "train", *words], check=True)
    return measured(run, verdict)


def measured(run: Path, verdict: Path) -> dict[str, Any]:
    """Resident memory of a run over its steps, in megabytes, and its verdict."""
    samples = read_history(run).samples
    curve = [
        (int(step), round(low / 1e6, 1), round(high / 1e6, 1))
        for step, low, high in zip(
            samples.last_step, samples.lows("resident"), samples.highs("resident"), strict=True
        )
        if not np.isnan(high)
    ]
    said = json.loads(verdict.read_text(encoding="utf-8"))
    return {
        "verdict": said["verdict"], "findings": [shortened(one) for one in said["findings"]],
        "steps": said["steps"], "seconds": said["overhead"]["run_seconds"], "peak": said["peak"]["host_bytes"],
        "sites": [(site["role"], site["name"], site["text"]) for site in said["findings"][0].get("sites", [])[:2]],
        "curve": curve,
    }  # fmt: skip


def judge(kept: dict[str, Any], trained: dict[str, Any], pictures: int, size: tuple[int, int]) -> bool:
    """Compare with what is asked for, and record."""
    epoch = -(-pictures // BATCH)
    expected = 4 * pictures * size[0] * size[1]
    level = {step: 1e6 * low for step, low, _ in kept["curve"]}
    first = min(level)
    at_end_of_epoch = level[max(step for step in level if step <= epoch)]
    final = level[max(level)]
    risen, later = at_end_of_epoch - level[first], final - at_end_of_epoch
    kinds = [kind for _, kind, *_ in kept["told"]]
    when, finding = next(iter(foretold(kept)), (0, {"forecast": {"settles_at_bytes": 0.0}}))
    error = abs(finding["forecast"]["settles_at_bytes"] - final) / final
    what = f"{pictures} pictures of {size[0] * size[1] / 1e6:.1f} megapixels"
    bars = {
        f"{what}, kept decoded by a data set: rise of resident memory in the first epoch": Bar(
            f"{risen / 1e9:.2f} GB, and {max(later, 0) / 1e9:.2f} GB in the next two",
            f"about {expected / 1e9:.1f} GB, then none", risen > 0.8 * expected and later < 0.05 * expected,
        ),
        "what `holdwater run` says of it": Bar(
            f"{kept['verdict']}; leak was said {kinds.count('leak')} times", "bounded, never leak",
            kept["verdict"] == "bounded" and "leak" not in kinds,
        ),
        "the level at which it settles, when that was first said": Bar(
            f"{error:.1%} off, at step {when} of {epoch}, held by the dataset",
            "at most 10 % off, in the first epoch",
            error <= 0.1 and 0 < when <= epoch,
        ),
        f"the same pictures in `holdwater train`: range of resident memory after step {SETTLED}": flat(trained),
    }  # fmt: skip
    remark = "The machine was shared with other work. Curves: last step, least and most resident memory in MB."
    return record(
        "picture_story", bars, pictures=pictures, size=size, epoch=epoch, kept=kept, trained=trained, remark=remark
    )


def flat(trained: dict[str, Any]) -> Bar:
    """Whether resident memory stayed where it was."""
    settled = [(low, high) for step, low, high in trained["curve"] if step > SETTLED]
    moved = max(high for _, high in settled) - min(low for low, _ in settled)
    return Bar(f"{moved:.0f} MB, peak {trained['peak'] / 1e6:.0f} MB", "at most 200 MB", moved <= MOST)


def judge_on_device(trained: dict[str, Any], pictures: int, size: tuple[int, int]) -> bool:
    """Record a run on a GPU."""
    what = f"{pictures} pictures of {size[0] * size[1] / 1e6:.1f} megapixels in `holdwater train` on a GPU"
    bars = {
        f"{what}, {EPOCHS} epochs: range of resident memory after step {SETTLED}": flat(trained),
        f"{what}: seconds": Bar(f"{trained['seconds']:.0f}, {trained['steps']} steps", "reported", reached=True),
    }
    return record(
        "picture_story_cuda", bars, by="benchmarks/picture_story.py --device cuda", pictures=pictures, size=size,
        trained=trained, remark="Curve: last step, least and most resident memory in MB.",
    )  # fmt: skip


def foretold(kept: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """The findings that name the dataset as the holder, with their steps."""
    return [(step, one) for step, _, one in kept["told"] if "held by the dataset" in one["advice"]]


def draw_curves(path: Path) -> None:
    """Draw resident memory of both runs over their steps.

    Args:
        path: Of the picture that is written.
    """
    result = json.loads((RESULTS / "picture_story.json").read_text(encoding="utf-8"))
    plots = importlib.import_module("matplotlib.figure")
    figure = plots.Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    names = {"kept": "a data set that keeps decoded pictures", "trained": "holdwater train"}
    for name, colour in (("kept", "#c0392b"), ("trained", "#1f6fb2")):
        steps, _, high = zip(*result[name]["curve"], strict=True)
        sizes = [value / 1000 for value in high]
        axes.plot(steps, sizes, color=colour, linewidth=2)
        axes.annotate(
            names[name], (steps[-1], sizes[-1]), (0, 6), textcoords="offset points", ha="right", color=colour
        )
    for number in range(1, EPOCHS):
        axes.axvline(number * result["epoch"], color="#bbbbbb", linewidth=0.8, linestyle="--")
        axes.annotate(f" epoch {number + 1}", (number * result["epoch"], 2.2), color="#777777", fontsize=9)
    step, finding = foretold(result["kept"])[0]
    size = next(high for at, _, high in result["kept"]["curve"] if at >= step) / 1000
    level = finding["forecast"]["settles_at_bytes"] / 1e9
    axes.plot([step], [size], "o", color="#c0392b")
    axes.annotate(
        f"holdwater run, step {step}: bounded, held by the\ndataset, settles near step "
        f"{step + round(finding['forecast']['steps'])} at {level:.1f} GB",
        (step, size), (step + 52, size - 0.6), color="#555555", arrowprops={"arrowstyle": "-", "color": "#999999"},
    )  # fmt: skip
    axes.set(xlabel="step", ylabel="resident memory, GB", xlim=(0, None), ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#eeeeee")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(not main())
