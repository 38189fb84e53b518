"""Fine-tuning on pictures of mixed sizes, of which some are broken: flat memory, each named once, exact resume.

Half of the pictures have 32 × 32 pixels to 0.3 megapixels, half have up to 8,000 × 6,000, both log-uniformly.
A fifth of the rows is text only, a tenth has two pictures, and one row of a hundred has a picture that is broken
in one of ten ways. A small vision-language model learns from them with `--bad-pictures skip`.

First, one run of more than an epoch. Second, a run of fewer rows, once undisturbed, and once killed with SIGKILL
at ten random moments and resumed each time.

    python benchmarks/mixed_pictures.py                                                   10 minutes on two cores
    python benchmarks/mixed_pictures.py --rows 100000 --files 2000 --killed-rows 3000      hours
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file

from holdwater.store.history import read_history
from picture_files import draw, spoil_all
from recording import RESULTS, Bar, record

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.small_vision_models import make_vision_model  # noqa: E402 - it lies beside this folder

BATCH, LENGTH = 8, 160
EXAMPLE = 73
"""Tokens of an example, about."""
FILLED = 0.85
"""The share of the places for tokens that packing fills, about."""
SMALLEST, MEDIAN, LARGEST = 32 * 32, 300_000, 8000 * 6000
"""Pixels."""
WARMUP = 0.1
"""The part of a run after which memory is to be flat."""
KILLS = 10


class Rows(NamedTuple):
    """A file of rows, and which of them are broken."""

    path: Path
    total: int
    broken: frozenset[int]
    """Numbers of examples, from 1."""

    @property
    def steps(self) -> int:
        """Of an epoch and a tenth."""
        return max(round(1.1 * self.total * EXAMPLE / (BATCH * LENGTH * FILLED)), 10)


def main() -> bool:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--killed-rows", type=int, default=600)
    parser.add_argument("--folder", type=Path, help="keep the pictures here for the next time")
    parser.add_argument("--only", choices=("long", "killed"), help="this part; the other one stays as recorded")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        paths = draw_mixed(options.folder or folder / "pictures", options.files)
        broken = spoil_all(folder / "broken")
        model = make_vision_model(folder / "model", "qwen2_5_vl")
        parts: dict[str, Any] = {}
        if options.only:
            parts = json.loads((RESULTS / "mixed_pictures.json").read_text(encoding="utf-8"))
        if options.only != "killed":
            rows = write_rows(folder / "rows.jsonl", options.rows, paths, broken)
            parts |= {"files": options.files, "long": run_through(model, rows, folder)}
        if options.only != "long":
            fewer = write_rows(folder / "fewer.jsonl", options.killed_rows, paths, broken)
            parts["killed"] = kill_and_resume(model, fewer, folder)
    return judge(parts["long"], parts["killed"], parts["files"])


def draw_mixed(folder: Path, count: int) -> list[Path]:
    """Draw pictures of mixed sizes, those that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(2) as pool:
        return list(pool.map(partial(_draw, folder), range(count), chunksize=4))


def _draw(folder: Path, number: int) -> Path:
    """Draw one; small ones are PNG files, larger ones JPEG."""
    dice = np.random.default_rng([1, number])
    least, most = (SMALLEST, MEDIAN) if number % 2 else (MEDIAN, LARGEST)
    pixels = float(np.exp(dice.uniform(np.log(least), np.log(most))))
    width = min(max(round((pixels * dice.uniform(0.6, 1.7)) ** 0.5), 32), 8000)
    height = min(max(round(pixels / width), 32), 6000)
    path = folder / f"{number:05}.{'png' if pixels < MEDIAN / 4 else 'jpg'}"
    if not path.exists():
        made = path.with_stem(f"{number:05}-part")
        draw(number, (width, height)).save(made, quality=85)
        made.rename(path)
    return path


def write_rows(path: Path, count: int, pictures: list[Path], broken: list[Path]) -> Rows:
    """Write rows that refer to pictures again and again, in an order of chance."""
    dice = random.Random(path.name)  # noqa: S311 - rows, not secrets
    wrong: set[int] = set()
    with path.open("w", encoding="utf-8") as file:
        for number in range(1, count + 1):
            chance = dice.random()
            images = dice.sample(pictures, 0 if chance < 0.2 else 2 if chance < 0.3 else 1)
            if images and dice.random() < 0.01 / 0.8:
                wrong.add(number)
                images[dice.randrange(len(images))] = broken[len(wrong) % len(broken)]
            question = f"question {number}: what is in this picture?"
            row = {
                "prompt": question,
                "completion": f"it is of {dice.randrange(1000)} parts, as large as the other",
            }
            file.write(json.dumps(row | ({"images": [str(one) for one in images]} if images else {})) + "\n")
    return Rows(path, count, frozenset(wrong))


def command(model: Path, rows: Rows, out: Path, *more: str) -> list[str]:
    """The command line of a run; an evaluation reads all held-out rows."""
    held_out = 0.01 * rows.total * EXAMPLE / (BATCH * LENGTH * 0.7)
    flags = {
        "model": model, "data": rows.path, "out": out, "device": "cpu", "batch-size": BATCH, "steps": rows.steps,
        "train-seq-length": LENGTH, "validation-share": 0.01, "eval-interval": max(rows.steps // 3, 5),
        "eval-batches": max(4, round(held_out)), "sample-length": 8, "threads": 1, "max-memory": "4GB",
        "bad-pictures": "skip",
    }  # fmt: skip
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "holdwater", "train", *words, "--no-supervise", *more]


def run_through(model: Path, rows: Rows, folder: Path) -> dict[str, Any]:
    """One run over all rows."""
    out, began = folder / "long", time.monotonic()
    with (folder / "long.log").open("wb") as log:
        done = subprocess.run(command(model, rows, out), stdout=log, stderr=log, check=False).returncode
    history = read_history(out)
    samples = history.samples
    later = samples.last_step > WARMUP * rows.steps
    low, high = samples.lows("resident")[later], samples.highs("resident")[later]
    return {
        "rows": rows.total, "steps": rows.steps, "seconds": time.monotonic() - began, "exit_code": done,
        "epochs_ended": sum(mark.kind == "epoch" for mark in history.marks),
        "verdict": (history.summary or {}).get("verdict"), "resident_low": float(np.nanmin(low)),
        "resident_high": float(np.nanmax(high)), **named(out, rows, [folder / "long.log"]),
    }  # fmt: skip


def named(out: Path, rows: Rows, logs: list[Path]) -> dict[str, Any]:
    """How often each broken row was named, in the run's file and in its messages."""
    lines = (out / "passed-over.jsonl").read_text(encoding="utf-8").splitlines()
    in_file = Counter(int(json.loads(line)["example"]) for line in lines)
    text = "".join(log.read_text(encoding="utf-8", errors="replace") for log in logs)
    return {
        "broken": len(rows.broken), "named_wrongly": len(set(in_file) - rows.broken),
        "named_in_file": len(in_file), "named_once_in_file": sum(count == 1 for count in in_file.values()),
        "said_in_log": text.count("passed over: --data"),
    }  # fmt: skip


def kill_and_resume(model: Path, rows: Rows, folder: Path) -> dict[str, Any]:
    """Run undisturbed; then run again, kill it at random moments, and let it go on."""
    straight, killed = folder / "straight", folder / "killed"
    more = ("--checkpoint-interval", "5")
    began = time.monotonic()
    with (folder / "straight.log").open("wb") as log:
        subprocess.run(command(model, rows, straight, *more), stdout=log, stderr=log, check=True)
    span, dice, moments, logs = time.monotonic() - began, random.Random(0), list[float](), list[Path]()  # noqa: S311
    while True:
        logs.append(folder / f"killed-{len(logs)}.log")
        wait = dice.uniform(0.06, 0.16) * span if len(moments) < KILLS else None
        if start_and_kill(command(model, rows, killed, *more, "--resume"), logs[-1], wait):
            break
        moments.append(round(wait or 0.0, 2))
    expected, found = losses(straight), losses(killed)
    both = expected.keys() & found.keys()
    return {
        "rows": rows.total, "steps": rows.steps, "seconds_undisturbed": span, "kills": len(moments),
        "seconds_until_each_kill": moments, "losses": len(both),
        "same_losses": sum(found[step] == expected[step] for step in both),
        "tensors": len(tensors(straight)), "same_tensors": tensors(straight) == tensors(killed),
        "same_place": place(straight) == place(killed), **named(killed, rows, logs),
    }  # fmt: skip


def start_and_kill(words: list[str], log: Path, wait: float | None) -> bool:
    """Start a run and kill it after some seconds; returns whether it has ended by itself.

    Raises:
        RuntimeError: It has failed.
    """
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file)
        try:
            code = process.wait(wait)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return False
    if code:
        raise RuntimeError(log.read_text(encoding="utf-8", errors="replace")[-2000:])
    return True


def losses(run: Path) -> dict[int, float]:
    """The recorded loss of each step; a process that was killed may not have recorded its last ones."""
    samples = read_history(run).samples
    found = zip(samples.first_step, samples.last_step, samples.means("loss"), strict=True)
    return {int(last): float(loss) for first, last, loss in found if first == last and not np.isnan(loss)}


def last(run: Path) -> Path:
    """The folder of a run's last checkpoint."""
    return max((run / "checkpoints").glob("step-*"))


def tensors(run: Path) -> dict[str, bytes]:
    """The bytes of every tensor of a run's last checkpoint."""
    return {
        f"{path.name}/{name}": array.tobytes()
        for path in sorted(last(run).glob("*.safetensors"))
        for name, array in load_file(path).items()
    }


def place(run: Path) -> Any:  # noqa: ANN401 - JSON
    """The place in the order of the examples at a run's end."""
    return json.loads((last(run) / "manifest.json").read_text(encoding="utf-8"))["state"]["batches"]


def judge(long: dict[str, Any], resumed: dict[str, Any], files: int) -> bool:
    """Compare with what is asked for, and record."""
    moved = long["resident_high"] - long["resident_low"]
    what = f"{long['rows']:,} rows over {files:,} pictures of 32 × 32 to 8,000 × 6,000 pixels"
    bars = {
        f"{what}, 1 % broken in ten ways: `holdwater train --bad-pictures skip`": Bar(
            f"ends with {long['exit_code']} after {long['steps']:,} steps, {long['epochs_ended']} epoch",
            "ends with 0 after an epoch", long["exit_code"] == 0 and long["epochs_ended"] >= 1,
        ),
        "range of its resident memory after a tenth of the steps": Bar(
            f"{moved / 1e6:.0f} MB, peak {long['resident_high'] / 1e6:.0f} MB", "at most 300 MB", moved <= 300e6
        ),
        "broken rows named once": named_once(long),
        f"{resumed['rows']:,} such rows, killed at {resumed['kills']} random moments and resumed": Bar(
            f"{resumed['same_losses']} of {resumed['losses']} recorded losses the same to the bit; "
            f"all {resumed['tensors']} tensors the same: {resumed['same_tensors']}; "
            f"the place in the examples the same: {resumed['same_place']}",
            "all the same", is_exact(resumed),
        ),
        "broken rows of that run named once, over all its processes": named_once(resumed),
    }  # fmt: skip
    remark = "The machine was shared with other work; rows and files were chosen so that it takes minutes."
    return record("mixed_pictures", bars, files=files, long=long, killed=resumed, remark=remark)


def is_exact(resumed: dict[str, Any]) -> bool:
    """Whether a run that was killed ended as the undisturbed one; of most steps both have recorded the loss."""
    same = resumed["same_losses"] == resumed["losses"] > 0.7 * resumed["steps"]
    return bool(same and resumed["same_tensors"] and resumed["same_place"])


def named_once(run: dict[str, Any]) -> Bar:
    """Whether each broken row was named exactly once, and no other."""
    count = run["broken"]
    once = count == run["named_in_file"] == run["named_once_in_file"] == run["said_in_log"]
    return Bar(f"{run['named_once_in_file']} of {count}", "all, and no other", once and not run["named_wrongly"])


if __name__ == "__main__":
    sys.exit(not main())
