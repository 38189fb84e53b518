"""A lack of memory at 200 random places of training steps: does each run end whole, with the same numbers?

Each trial trains a tiny GPT in this process and lets some calls raise MemoryError: in the forward pass, in the
middle of the backward pass, in the optimizer, in an evaluation, in the callback, in a checkpoint; once (the
micro-batch stays, and every bit with it) or twice at the same step (the micro-batch becomes smaller).
"""

import argparse
import contextlib
import hashlib
import logging
import os
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.numpy import load_file

from holdwater.config import gather
from holdwater.store.checkpoints import CheckpointFolder
from holdwater.train import run as training
from holdwater.train.flat import FlatAdamW
from holdwater.train.loop import TrainingLoop
from holdwater.train.pretrain.fused_step import FusedStep, _FusedBlock
from holdwater.train.pretrain.model import GPT
from holdwater.train.pretrain.state import new_state
from holdwater.train.pretrain.text import tokenise
from holdwater.train.run_folder import RunFolder
from holdwater.train.settings import TrainSettings
from recording import Bar, record

STEPS = 12
POINTS = ("forward", "backward", "optimizer", "evaluation", "callback", "checkpoint")
PLACES: dict[str, tuple[type, str]] = {
    "forward": (FusedStep, "propagate"),
    "backward": (_FusedBlock, "backward"),
    "optimizer": (FlatAdamW, "step"),
    "evaluation": (GPT, "loss"),
    "checkpoint": (CheckpointFolder, "_fill"),
}


class Shortage:
    """Lets a call raise at some of its turns."""

    def __init__(self, point: str, turns: set[int]) -> None:
        self.point, self.turns, self.count, self.raised = point, turns, 0, 0

    def __call__(self) -> None:
        """Count a turn, and raise if it is one of them."""
        self.count += 1
        if self.count in self.turns:
            self.raised += 1
            raise MemoryError(f"injected in {self.point}")


def wrapped(function: Callable[..., Any], shortage: Shortage) -> Callable[..., Any]:
    """A function that may run out of memory before it begins."""

    def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever the function takes
        shortage()
        return function(*arguments, **named)

    return call


def train(folder: Path, flags: dict[str, str], shortage: Shortage | None) -> dict[str, Any]:
    """Train in this process; return what the run came to."""
    config = gather(flags=flags, environment={}, file=None)
    seen: dict[int, str] = {}
    steps: list[int] = []
    learn = TrainingLoop.learn

    def learn_and_note(self: TrainingLoop, step: int) -> tuple[float, float]:
        """Note which samples a step has learnt from: the place in the order after it."""
        result = learn(self, step)
        place = str(self.state.batches.state()).encode()
        seen[step] = hashlib.sha256(place).hexdigest()
        steps.append(self.step.micro_batch)
        return result

    callback = shortage if shortage is not None and shortage.point == "callback" else None
    folder.mkdir()
    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(TrainingLoop, "learn", learn_and_note))
        patches.enter_context(
            mock.patch.object(training, "find_callback", return_value=lambda _: shortage and shortage())
        )
        patches.enter_context(mock.patch.object(training, "write_report"))
        if shortage is not None and callback is None:
            owner, name = PLACES[shortage.point]
            patches.enter_context(mock.patch.object(owner, name, wrapped(getattr(owner, name), shortage)))
        named = None if callback is None else "a:callback"
        result = training.train(config, RunFolder(folder), command=(), callback=named)
    last = max((folder / "checkpoints").glob("step-*"))
    return {
        "code": result.exit_code,
        "step": int(last.name.removeprefix("step-")),
        "order": seen,
        "micro_batches": steps,
        "tensors": {
            f"{path.name}/{name}": array
            for path in sorted(last.glob("*.safetensors"))
            for name, array in load_file(path).items()
        },
    }


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest relative difference of a tensor of the model, by norms."""
    names = [name for name in one if name.startswith("model")]
    pairs = [(torch.from_numpy(one[name]).double(), torch.from_numpy(other[name]).double()) for name in names]
    return max(float((a - b).norm() / b.norm().clamp(min=1e-30)) for a, b in pairs)


def trial(dice: random.Random, place: Path, known: dict[tuple[str, ...], dict[str, Any]]) -> dict[str, Any]:
    """One run with a shortage, compared with the same run without."""
    batch, accumulation = dice.choice([2, 3, 4, 6]), dice.choice([1, 2, 3])
    flags = {
        "preset": "tiny", "steps": str(STEPS), "batch_size": str(batch),
        "gradient_accumulation": str(accumulation), "train_seq_length": "16", "eval_interval": "4",
        "eval_batches": "2", "checkpoint_interval": "4", "sample_length": "0", "threads": "1",
        "max_memory": "4GB", "warmup_steps": "1", "data": str(place / "text.txt"),
    }  # fmt: skip
    key = (flags["batch_size"], flags["gradient_accumulation"])
    if key not in known:
        known[key] = train(place / f"straight-{'-'.join(key)}", flags, None)
    point = dice.choice(POINTS)
    often = dice.choice([1, 2]) if point in {"forward", "backward"} else 1
    turn = dice.randrange(2, 4) if point in {"evaluation", "checkpoint"} else dice.randrange(1, STEPS)
    shortage = Shortage(point, set(range(turn, turn + often)))
    found = train(place / f"run-{len(list(place.iterdir()))}", flags, shortage)
    straight = known[key]
    pairs = [(found["tensors"][name], other) for name, other in straight["tensors"].items()]
    same = all(mine.tobytes() == other.tobytes() for mine, other in pairs)
    return {
        "point": point,
        "times": often,
        "raised": shortage.raised,
        "code": found["code"],
        "whole": found["step"] == STEPS and found["order"] == straight["order"],
        "same_bits": bool(same),
        "difference": difference(found["tensors"], straight["tensors"]),
        "micro_batch": [batch, min(found["micro_batches"], default=batch)],
    }


def gradients(dice: random.Random) -> float:
    """The relative difference between a whole batch's gradient and that of its parts, for a random cut."""
    batch = dice.choice([4, 6, 8])
    flags = {"preset": "small", "batch_size": str(batch), "train_seq_length": "32", "threads": "1"}
    config = gather(flags=flags, environment={}, file=None)
    names = [name for name in TrainSettings.__slots__ if name not in {"device", "threads", "out", "tuning"}]
    settings = TrainSettings(**{name: config[name] for name in names}, device="cpu", threads=1, out=Path())
    text = "".join(f"row {number} of some text\n" for number in range(400)).encode()
    tokens = tokenise(text, "byte", validation_share=0.1, length=32)
    state = new_state(settings, tokens)
    rows, targets = state.batches.draw("cpu")
    state.weights.clear_gradients()
    state.propagate(rows, targets, share=1.0)
    whole = [grad.clone() for grad in state.weights.grads]
    state.weights.clear_gradients()
    size = dice.randrange(1, batch)
    for begin in range(0, batch, size):
        part = slice(begin, min(begin + size, batch))
        state.propagate(rows[part], targets[part], share=len(rows[part]) / batch)
    pairs = zip(state.weights.grads, whole, strict=True)
    return max(float((mine - other).norm() / other.norm()) for mine, other in pairs)


def main() -> bool:
    """Measure, print and record; return whether every bar was reached."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=200)
    options = parser.parse_args()
    logging.getLogger("holdwater").setLevel(logging.CRITICAL)
    dice = random.Random(0)  # noqa: S311 - no secret
    trials: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        place = Path(folder)
        (place / "text.txt").write_text("".join(f"line {n}: the quick brown fox\n" for n in range(600)))
        known: dict[tuple[str, ...], dict[str, Any]] = {}
        with mock.patch("sys.stdout", nowhere):
            trials += [trial(dice, place, known) for _ in range(options.trials)]
    worst = max(gradients(dice) for _ in range(20))
    fixed = [one for one in trials if one["micro_batch"][0] == one["micro_batch"][1]]
    smaller = [one for one in trials if one["micro_batch"][0] != one["micro_batch"][1]]
    by_point: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for one in trials:
        by_point[one["point"]][0] += 1
        by_point[one["point"]][1] += one["whole"] and one["code"] == 0
    bars = {
        "runs with a lack of memory at a random place that end whole, same samples at each step": Bar(
            f"{sum(one['whole'] and one['code'] == 0 for one in trials)} of {len(trials)}",
            "all",
            all(one["whole"] and one["code"] == 0 and one["raised"] for one in trials),
        ),
        "exact to the bit where the micro-batch stays": Bar(
            f"{sum(one['same_bits'] for one in fixed)} of {len(fixed)}",
            "all",
            all(one["same_bits"] for one in fixed),
        ),
        "gradients of parts against the whole batch's, worst": Bar(f"{worst:.1e}", "at most 1e-5", worst <= 1e-5),
    }
    numbers = {
        "by_point": dict(by_point),
        "smaller_micro_batch": {
            "trials": len(smaller),
            "weights_differ_at_most": max((one["difference"] for one in smaller), default=0.0),
        },
    }
    return record("out_of_memory", bars, **numbers)


if __name__ == "__main__":
    sys.exit(not main())
