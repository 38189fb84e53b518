"""Fine-tuning a vision-language model with LoRA on one GPU: `holdwater train`, TRL and Unsloth, on the same rows.

Each is a process of its own, one after another in one run; the next one imports meanwhile and waits. Weights are
random, of the shapes of Qwen2.5-VL-7B and Qwen3-VL-8B; adapters have rank 16 on the language model, the vision
tower is frozen. A step has 8 pictures of 640 x 480 pixels with 100 tokens of text each, or one of them; `holdwater
train` packs four into a row. The losses are compared on a model of fewer layers, which begins with the same
adapters everywhere and sees pictures resized by Pillow everywhere.

    python benchmarks/vision_speed.py                       everything, into results/vision_speed.json
    python benchmarks/vision_speed.py --only speed cached   some parts; the recorded others stay
    python benchmarks/vision_speed.py --small               a tiny model on the CPU, to try the script itself

Without Unsloth, its runs are left out.
"""

import argparse
import faulthandler
import functools
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from recording import RESULTS, commit, record
from vision_bars import judged
from vision_models import SHAPES, configuration, length_of, write_folder, write_rows
from vision_ours import make_adapters, order, ours
from vision_peers import trl_way, unsloth_way

PICTURES, ROWS = 128, 256
STEPS, WARM, CACHED_STEPS = 25, 8, 64
"""Steps of a run, those at its beginning that do not count, and steps with a cache: an epoch has 31."""
LOSS_STEPS, LOSS_LAYERS = 100, 8
LONGEST = 400
"""Seconds after which a program is ended: Unsloth compiles for minutes before its second step."""


class Part(NamedTuple):
    """A process: which program, on which shape, and what it is called with."""

    way: str
    shape: str
    cases: tuple[str, ...] = ("eight",)
    flags: tuple[str, ...] = ()
    steps: int = STEPS

    def name(self, case: str) -> str:
        """Of one of its cases."""
        return ", ".join((self.way, self.shape, case, *self.flags))


IMPORTED = {"ours": "holdwater.train.finetune.vision.state", "trl": "trl", "unsloth": "unsloth"}
SEVEN, EIGHT = "qwen2.5-vl-7b", "qwen3-vl-8b"
BOTH = ("one", "eight")
LOSS = ("--layers", str(LOSS_LAYERS), "--pillow")
PARTS: dict[str, tuple[Part, ...]] = {
    "speed": (Part("ours", SEVEN), Part("ours", SEVEN, ("one",)), Part("trl", SEVEN, BOTH)),
    "cached": (Part("ours", SEVEN, flags=("--cached",), steps=CACHED_STEPS),),
    "losses": (
        Part("ours", SEVEN, flags=LOSS, steps=LOSS_STEPS),
        Part("trl", SEVEN, flags=LOSS, steps=LOSS_STEPS),
        Part("trl", SEVEN, flags=(*LOSS, "--attention", "eager"), steps=LOSS_STEPS),
    ),
    "unsloth": (Part("unsloth", SEVEN),),
    "quantized": (Part("ours", SEVEN, flags=("--quantize", "4")),),
    "qwen3": (Part("ours", EIGHT), Part("ours", EIGHT, ("one",)), Part("trl", EIGHT, BOTH)),
}
"""By the word that `--only` takes."""


def main() -> bool:
    """Run one program, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--unsloth", type=Path, help="the folder of Unsloth and what it needs, if not installed")
    parser.add_argument("--way", choices=("ours", "trl", "unsloth"), help="one process of the benchmark")
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--cases", nargs="+", choices=BOTH)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--attention", default="sdpa")
    parser.add_argument("--pillow", action="store_true")
    parser.add_argument("--cached", action="store_true")
    parser.add_argument("--quantize", type=int)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.way is None:
        return compare(options)
    return run_one(options)


def run_one(options: argparse.Namespace) -> bool:
    """One process of the benchmark: import, wait until the device is free, and measure."""
    folder = options.folder
    importlib.import_module(IMPORTED[options.way])
    importlib.import_module("transformers.models.auto.modeling_auto")
    if not sys.stdin.readline():  # comes when the device is free; nothing comes from a benchmark that was ended
        return False
    faulthandler.dump_traceback_later(
        LONGEST // 3, repeat=True
    )  # into its log, which is shown if it ends without a result
    if options.way == "ours":
        found = ours(folder, options)
    else:
        way = trl_way if options.way == "trl" else unsloth_way
        found = way(folder, options, functools.partial(order, folder, options))
    (folder / "found.json").write_text(json.dumps(found))
    return True


class Program:
    """A process of the benchmark, which imports and then waits until it is told to go on."""

    def __init__(self, part: Part, *, small: bool, unsloth: Path | None) -> None:
        """Write what it reads, and start it."""
        self.part, self._small = part, small
        self._place = tempfile.TemporaryDirectory()
        self._folder = Path(self._place.name)
        layers = LOSS_LAYERS if "--layers" in part.flags and not small else None
        flags = [flag for flag in part.flags if not small or flag not in {"--layers", str(LOSS_LAYERS)}]
        config = configuration(part.shape, small=small, layers=layers)
        write_folder(self._folder / "built", part.shape, config, small=small)
        write_rows(self._folder, 64 if small else ROWS, pictures=16 if small else PICTURES, small=small)
        make_adapters(self._folder, part.shape, small=small, layers=layers)
        steps = min(part.steps, 12) if small else part.steps
        words = ["--way", part.way, "--shape", part.shape, "--cases", *part.cases, "--steps", str(steps), *flags]
        words += ["--folder", str(self._folder), *["--small"] * small]
        first = [str(unsloth)] if unsloth is not None and part.way == "unsloth" else []
        paths = [*first, os.environ.get("PYTHONPATH", "")]
        quiet = {"HF_HUB_OFFLINE": "1", "UNSLOTH_DISABLE_STATISTICS": "1"}
        with (self._folder / "log").open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__, *words], stdin=subprocess.PIPE, stdout=log, stderr=log, text=True,
                env=os.environ | quiet | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            )  # fmt: skip

    def go_on(self) -> None:
        """Let it measure."""
        assert self._process.stdin is not None  # noqa: S101 - for mypy
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def results(self) -> dict[str, dict[str, Any]]:
        """Wait for its end; what it has measured, by names of its cases."""
        try:
            code = self._process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        found = self._folder / "found.json"
        log = (self._folder / "log").read_text(encoding="utf-8", errors="replace")
        measured = json.loads(found.read_text(encoding="utf-8")) if found.exists() else {}
        self._place.cleanup()
        if not measured:
            print(f"{self.part} ended with {code}:\n{log[-6000:]}", flush=True)
        return {self.part.name(case): self._summary(case, one) for case, one in measured.items()}

    def _summary(self, case: str, found: dict[str, Any]) -> dict[str, Any]:
        """Seconds a step, and tokens a second."""
        ticks = found.pop("ticks")
        warm = CACHED_STEPS // 2 + WARM if "--cached" in self.part.flags else WARM
        gaps = [after - before for before, after in itertools.pairwise(ticks)][2 if self._small else warm :]
        examples = 1 if case == "one" else 8
        tokens = examples * (length_of(self.part.shape, small=self._small))
        if found.get("tokens", [tokens]) != [tokens]:
            print(f"{self.part.way} saw {found['tokens']} tokens a step, not {tokens}", flush=True)
        seconds = statistics.median(gaps)
        found |= {"seconds": seconds, "spread": [min(gaps), max(gaps)], "tokens": tokens, "commit": commit()}
        found["tokens_a_second"] = tokens / seconds
        said = f"{seconds:.4f} s a step, {tokens / seconds:.0f} tokens/s, {found['peak'] / 1e9:.1f} GB"
        print(f"{self.part.name(case)}: {said}", flush=True)
        return found


def compare(options: argparse.Namespace) -> bool:
    """All programs of some parts, side by side; then all that is known of all parts is judged and recorded."""
    small, path = options.small, RESULTS / "vision_speed.json"
    runs: dict[str, dict[str, Any]] = {}
    if not small and set(options.only) != set(PARTS) and path.exists():
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    parts = [part for word in options.only for part in PARTS[word]]
    if options.unsloth is None and importlib.util.find_spec("unsloth") is None:
        parts = [part for part in parts if part.way != "unsloth"]
    start = functools.partial(Program, small=small, unsloth=options.unsloth)
    waiting = start(parts[0])
    for number in range(len(parts)):
        running = waiting
        running.go_on()
        if number + 1 < len(parts):
            waiting = start(parts[number + 1])
        runs |= running.results()
        if not small:
            write(runs)
    if small:
        print({what: bar.measured for what, bar in judged(runs).items()})
        return True
    return write(runs)


def write(runs: dict[str, dict[str, Any]]) -> bool:
    """Judge and record what is known so far: a run that is cut off keeps what it has."""
    return record("vision_speed", judged(runs), device=torch.cuda.get_device_name(), runs=runs)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
