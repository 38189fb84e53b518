"""`holdwater train` in `vision_speed.py`: through its command line, on a model that is built on the device."""

import argparse
import importlib
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from vision_models import RANK, RATE, SEED, begin, build, built, configuration, layout, length_of


def command(folder: Path, options: argparse.Namespace) -> list[str]:
    """The command line of `holdwater train`."""
    rows, length = layout(options, options.cases[0])
    flags = {
        "model": folder / "built", "data": folder / "rows.jsonl", "steps": options.steps, "batch-size": rows,
        "train-seq-length": length, "lora-rank": RANK, "learning-rate": RATE, "warmup-steps": 0, "weight-decay": 0,
        "seed": SEED, "eval-interval": 100_000, "eval-batches": 1, "sample-length": 0,
        "checkpoint-interval": 100_000, "out": folder / "run", "callback": "vision_ours:tick",
        "device": "cpu" if options.small else "cuda",
    }  # fmt: skip
    if options.quantize:
        flags["quantize"] = options.quantize
    if options.cached:
        flags["vision-cache"] = "4GB"
    words = itertools.chain(*((f"--{name}", str(value)) for name, value in flags.items()))
    return ["train", *words, "--no-supervise"]


TICKS: list[float] = []


def tick(_guard: object) -> None:
    """Called after each step; what it took to build the model on the device does not count."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        if not TICKS:
            torch.cuda.reset_peak_memory_stats()
    TICKS.append(time.perf_counter())


def ours(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """`holdwater train`, in this process, on the model that was built.

    Args:
        folder: Holds rows, adapters and all of the model but its weights.
        options: Of the command line.

    Raises:
        SystemExit: It failed.
    """
    import vision_ours  # the module that --callback imports
    from holdwater.cli import main
    from holdwater.train import loop

    model = built(options)
    if options.quantize:  # as the command does: the frozen weights go to the device one by one, in few bits
        model = model.to("cpu")
    begin()
    losses: list[float] = []
    learn = loop.TrainingLoop.learn

    def noted(self: Any, step: int) -> tuple[float, float]:
        """Note the loss."""
        found: tuple[float, float] = learn(self, step)
        losses.append(found[0])
        return found

    with (
        loading(model, folder / "adapters"),
        mock.patch.object(loop.TrainingLoop, "learn", noted),
        mock.patch.object(loop, "learning_rate", mock.Mock(return_value=RATE)),
    ):
        if main.main(command(folder, options)):
            raise SystemExit("holdwater train failed")
    peak = 0 if options.small else torch.cuda.max_memory_reserved()
    return {options.cases[0]: {"losses": losses, "ticks": vision_ours.TICKS, "peak": peak}}


@contextmanager
def loading(model: Any, adapters: Path | None = None) -> Iterator[None]:
    """Let `holdwater train` find this model where it would load one, and begin with these adapters, if any."""
    import transformers

    from holdwater.train.finetune.model.lora import load_adapters

    state: Any = importlib.import_module("holdwater.train.finetune.vision.state")
    load, adapt = state.load_vision_model, state.add_adapters
    device = str(next(model.parameters()).device.type)

    def here(*names: Any, **named: Any) -> Any:
        """All as in the folder, but the weights are those in memory; a plan loads none."""
        return load(*names, **(named if named.get("device") == "meta" else named | {"device": device}))

    def adapted(given: Any, config: Any) -> Any:
        """Begin with the adapters that all begin with."""
        names = adapt(given, config)
        if adapters is not None and not any(weight.is_meta for weight in given.parameters()):
            load_adapters(given, adapters)
        return names

    auto = transformers.AutoModelForImageTextToText
    with (
        mock.patch.object(auto, "from_pretrained", mock.Mock(return_value=model)),
        mock.patch.object(state, "load_vision_model", here),
        mock.patch.object(state, "add_adapters", adapted),
    ):
        yield


def order(folder: Path, options: argparse.Namespace, case: str) -> list[int]:
    """The numbers of the rows in the order in which `holdwater train` takes them."""
    from holdwater.train.finetune.data.examples import Example
    from holdwater.train.finetune.data.held_out import Chosen, split
    from holdwater.train.finetune.data.packing import PackedBatches

    class Numbers:
        """Examples that say which they are, as long as those with pictures."""

        def __init__(self) -> None:
            self.count = len((folder / "rows.jsonl").read_text(encoding="utf-8").splitlines())
            self.length = length_of(options.shape, small=options.small)

        def __len__(self) -> int:
            return self.count

        def __getitem__(self, number: int) -> Example:
            return Example([number] * self.length, [True] * self.length)

    rows, length = layout(options, case)
    numbers: Any = Numbers()
    learned, _ = split(numbers, mock.Mock(validation_share=0.05, seed=SEED))
    drawn = PackedBatches(Chosen(numbers, learned), size=rows, length=length, seed=SEED)
    in_a_row = 1 if case == "one" else 4
    places = torch.arange(in_a_row) * numbers.length
    return [number for _ in range(options.steps) for row in drawn.draw().tokens for number in row[places].tolist()]


def make_adapters(folder: Path, shape: str, *, small: bool, layers: int | None) -> None:
    """The values that adapters begin with, as PEFT writes them."""
    from holdwater.train.finetune.model.lora import adapters, add_adapters, save_adapters
    from holdwater.train.finetune.vision.loading import lora_config

    asked: Any = SimpleNamespace(
        lora_rank=RANK, lora_alpha=None, lora_dropout=0.0, lora_targets=None, lora_layers=None,
        adapt_vision=False, adapt_projector=False,
    )  # fmt: skip
    model = build(configuration(shape, small=small, layers=layers), "meta", small=small)
    lora = lora_config(model, asked)
    add_adapters(model, lora)
    torch.manual_seed(SEED)
    for _, module in adapters(model):
        first = torch.nn.init.kaiming_uniform_(torch.empty(module.lora_A.shape), a=5**0.5)
        module.lora_A = torch.nn.Parameter(first)
        module.lora_B = torch.nn.Parameter(torch.zeros(module.lora_B.shape))
    save_adapters(model, folder / "adapters", lora, base="built")
