"""`holdwater plan`: predict the GPU memory of a fine-tuning run, by purpose, without a GPU."""

import argparse
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from holdwater.cli.checks import check_writable
from holdwater.cli.train import add_keys, gather_config
from holdwater.config import Config, load_profile
from holdwater.errors import ConfigError
from holdwater.units import Bytes, format_size

if TYPE_CHECKING:
    from holdwater.train.finetune.planner.fused import Choice

SCHEMA = 1


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse has no public type for it
    """Add the subcommand."""
    parser = commands.add_parser(
        "plan",
        help="predict what fine-tuning takes from a GPU, without one",
        description="Predict the peak of `holdwater train --model ...` with the same flags, by purpose, and "
        "choose the fastest steps that fit --max-memory. It loads only the model's config.json, and needs no GPU.",
    )
    add_keys(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the plan as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Plan and print; return the exit code."""
    config = gather_config(options)
    if config["profile"] is not None:
        config = gather_config(options, load_profile(config["profile"]))
    if config["model"] is None:
        raise ConfigError("model is not given, but plan predicts fine-tuning; write --model FOLDER")
    check_writable("--json", options.json)
    from holdwater.train.finetune.planner.plan import choose_settings, planned_of, room_for_steps  # noqa: PLC0415
    from holdwater.train.settings import train_settings  # noqa: PLC0415 - brings torch
    from holdwater.train.supervised import keeps_weights  # noqa: PLC0415

    logging.getLogger("transformers").setLevel(logging.ERROR)
    settings = train_settings(config, Path())
    if settings.tuning is None:
        raise AssertionError  # the model was given
    planned = planned_of(settings, settings.tuning)
    given, limit = config["max_memory"], None
    if given is not None:
        limit, _ = room_for_steps(given, with_weight_server=keeps_weights(config))
    choice = choose_settings(planned, rows=settings.batch_size, limit=limit)
    Console().print(_table(choice, config["max_memory"]))
    print(f"{choice.why}; {planned.parameters:,} weights are trained")  # noqa: T201 - what a command is for
    print(_settings(config))  # noqa: T201
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(choice), indent=1) + "\n", encoding="utf-8")
    return 0


def _settings(config: Config) -> str:
    """The settings planned for, and a hint where `train` would choose them from its machine's profile."""
    names = ("batch_size", "train_seq_length", "lora_rank", "lora_layers", "quantize")
    said = ", ".join(f"{name} {config[name]}" for name in names if config[name] is not None)
    free = any(config.origins[name] == "default" for name in ("batch_size", "train_seq_length", "lora_rank"))
    hint = "; `train` takes the rest from the profile of its machine: name it here too, with --profile"
    return f"planned for one CUDA device with {said}" + (hint if free and config["profile"] is None else "")


def _table(choice: "Choice", limit: Bytes | None) -> Table:
    """The peak, by purpose."""
    peak = choice.peak
    table = Table("for", "bytes", "share", box=None, padding=(0, 2, 0, 0))
    rows = [
        *peak.roles.items(),
        ("lost between blocks", peak.fragmentation),
        ("context of the device", peak.context),
    ]
    for role, size in rows:
        table.add_row(role, format_size(size), f"{size / peak.total:.1%}")
    given = "" if limit is None else f"of {format_size(limit)}"
    table.add_row("peak", format_size(peak.total), given, style="bold")
    return table


def as_json(choice: "Choice") -> dict[str, object]:
    """The plan as JSON.

    Args:
        choice: The chosen step backend and its peak.
    """
    peak, step = choice.peak, choice.step
    return {
        "schema": SCHEMA,
        "peak_bytes": peak.total,
        "reserved_bytes": peak.reserved,
        "roles": {**peak.roles, "fragmentation": peak.fragmentation, "context": peak.context},
        "micro_batch": step.rows,
        "recomputed_layers": step.recomputed,
        "logits_chunk": step.chunk,
        "why": choice.why,
    }
