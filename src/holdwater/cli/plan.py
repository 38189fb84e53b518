"""`holdwater plan`: predict the GPU memory of a fine-tuning run, by purpose, without a GPU."""

import argparse
import json
import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from holdwater.cli.checks import check_writable, needs_torch
from holdwater.cli.train import add_config_flag, gather_config
from holdwater.config import Config, load_profile
from holdwater.config.flags import add_flags
from holdwater.config.keys import MEMORY
from holdwater.errors import ConfigError, NothingFits
from holdwater.exit_codes import FOUND
from holdwater.units import Bytes, format_size

if TYPE_CHECKING:
    from holdwater.train.finetune.planner.fused import Choice
    from holdwater.train.finetune.vision.planning.host import HostPeak
    from holdwater.train.finetune.vision.planning.run import PictureRun, Search
    from holdwater.train.settings import TrainSettings

SCHEMA = 1


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse has no public type for it
    """Add the subcommand."""
    parser = commands.add_parser(
        "plan",
        help="predict what fine-tuning takes from a GPU, without one",
        description="Predict the peak of `holdwater train --model ...` with the same flags, by purpose, and "
        "choose the fastest steps that fit --max-memory, with a margin. It loads only the model's config.json "
        "(of a model that takes pictures, its tokenizer and processor too), and needs no GPU. Where nothing fits "
        "it ends with 3, so that it can guard a `train`. Flags of `train` that do not change the plan "
        "are accepted, and not listed here.",
    )
    groups = add_flags(parser, "plan", also="train")
    add_config_flag(groups)
    largest = groups[MEMORY].add_mutually_exclusive_group()
    largest.add_argument(
        "--max-context", action="store_true", help="find the largest --train-seq-length that fits --max-memory"
    )
    largest.add_argument(
        "--max-batch", action="store_true", help="find the largest micro-batch that fits --max-memory"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the plan as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Plan and print; return the exit code: 3 where nothing fits."""
    config = gather_config(options)
    if config["profile"] is not None:
        config = gather_config(options, load_profile(config["profile"]))
    if config["model"] is None:
        raise ConfigError("model is not given, but plan predicts fine-tuning; write --model FOLDER")
    if config["backend"] == "mlx":
        raise ConfigError("backend is mlx, but plan predicts the memory of PyTorch's steps; leave it out")
    if config["max_memory"] is None and (options.max_context or options.max_batch):
        raise ConfigError(f"{_flag(options)} needs a budget; add --max-memory SIZE")
    check_writable("--json", options.json)
    needs_torch("planning")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        plan = _plan(config, options)
    except NothingFits as error:
        print(f"holdwater: {error}", file=sys.stderr)  # noqa: T201 - what a command is for
        return FOUND
    _show(plan)
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(plan), indent=1) + "\n", encoding="utf-8")
    return 0


def _show(plan: "_Plan") -> None:
    """Print a plan."""
    if plan.pictures is not None:
        print(plan.pictures.pictures)  # noqa: T201 - what a command is for
    Console().print(_table(plan))
    if plan.pictures is not None and plan.config["device"] != "cpu":
        Console().print(_host_table(plan.pictures.host))
    if plan.found:
        print(plan.found)  # noqa: T201
    print(f"{plan.choice.why}; {plan.parameters:,} weights are trained")  # noqa: T201
    print(_settings(plan))  # noqa: T201


@dataclass(frozen=True, slots=True)
class _Plan:
    """A plan, and what it is compared with."""

    choice: "Choice"
    config: Config
    """The settings that are planned for."""
    limit: Bytes | None
    """What the process may take; None without a budget."""
    parameters: int
    """Weights that are trained."""
    found: str = ""
    """What was searched for, and the largest that fits, as text."""
    pictures: "PictureRun | None" = None
    """What a run on pictures takes besides."""

    @property
    def left(self) -> Bytes | None:
        """What the plan and its margin leave of the budget."""
        return None if self.limit is None else Bytes(self.limit - self.choice.peak.needed)


def _plan(config: Config, options: argparse.Namespace) -> _Plan:
    """Plan the settings as they are, or the largest that fit.

    Raises:
        NothingFits: None do.
        NotPlanned: The model does not run on the meta device.
        AssertionError: There is no model.
    """
    from holdwater.train.finetune.planner.largest import largest_batch, longest_rows  # noqa: PLC0415 - torch
    from holdwater.train.finetune.planner.plan import (  # noqa: PLC0415
        NotPlanned,
        choose_settings,
        planned_of,
        room_for_steps,
    )
    from holdwater.train.finetune.vision.generic_loading import learns_from_pictures  # noqa: PLC0415
    from holdwater.train.finetune.vision.loading import is_vision_language  # noqa: PLC0415
    from holdwater.train.settings import train_settings  # noqa: PLC0415
    from holdwater.train.supervised import keeps_weights  # noqa: PLC0415

    settings, given = train_settings(config, Path()), config["max_memory"]
    tuning = settings.tuning
    if tuning is None:
        raise AssertionError  # the model was given
    limit = None if given is None else room_for_steps(given, with_weight_server=keeps_weights(config))[0]
    if is_vision_language(tuning.model):
        return _plan_pictures(config, options, settings, limit)
    if learns_from_pictures(tuning.model, settings.data):
        raise NotPlanned(
            f"--model {tuning.model} takes pictures by its own code, whose memory is not planned yet; train it "
            "for a few steps with --max-memory, and read the peak from the report"
        )
    planned = planned_of(settings, tuning)
    if limit is None or not (options.max_context or options.max_batch):
        choice = choose_settings(planned, rows=settings.batch_size, limit=limit)
        return _Plan(choice, config, limit, planned.parameters)
    if options.max_context:
        name, (size, choice) = "train_seq_length", longest_rows(settings, tuning, limit)
    else:
        name, (size, choice) = "batch_size", largest_batch(planned, limit)
    config = replace(config, values=config.values | {name: size})
    return _Plan(choice, config, limit, planned.parameters, _found(name, size))


def _plan_pictures(
    config: Config, options: argparse.Namespace, settings: "TrainSettings", limit: Bytes | None
) -> _Plan:
    """Plan a run on pictures."""
    import holdwater.train.run  # noqa: PLC0415, F401 - a run imports it, so that its memory counts
    from holdwater.train.finetune.vision.planning.run import plan_pictures  # noqa: PLC0415

    on_cpu, search = config["device"] == "cpu", _searched(options)
    if settings.tuning is None:
        raise AssertionError  # the model was given
    if on_cpu and search is not None:
        raise ConfigError(
            f"{_flag(options)} searches what fits a CUDA device, but device is cpu; leave one of the two out"
        )
    found = plan_pictures(
        settings,
        settings.tuning,
        limit=config["max_memory"] if on_cpu else limit,
        search=search,
        device="cpu" if on_cpu else "cuda",
    )
    told = ""
    if search is not None:
        size = getattr(found.settings, search)
        config, told = replace(config, values=config.values | {search: size}), _found(search, size)
    return _Plan(found.choice, config, limit, found.parameters, told, found)


def _searched(options: argparse.Namespace) -> "Search | None":
    """The setting whose largest value is looked for."""
    return "train_seq_length" if options.max_context else "batch_size" if options.max_batch else None


def _flag(options: argparse.Namespace) -> str:
    """The flag that says so."""
    return "--max-context" if options.max_context else "--max-batch"


def _found(name: str, size: int) -> str:
    """What was searched for, as text."""
    return f"the largest {name} that fits is {size:,}"


def _settings(plan: _Plan) -> str:
    """The settings planned for, and a hint where `train` would choose them from its machine's profile."""
    config = plan.config
    names = ("batch_size", "train_seq_length", "lora_rank", "lora_layers", "quantize")
    said = ", ".join(f"{name} {config[name]}" for name in names if config[name] is not None)
    free = any(config.origins[name] == "default" for name in ("batch_size", "train_seq_length", "lora_rank"))
    hint = "; `train` takes the rest from the profile of its machine: name it here too, with --profile"
    where = "the CPU" if config["device"] == "cpu" and plan.pictures else "one CUDA device"
    return f"planned for {where} with {said}" + (hint if free and config["profile"] is None else "")


def _table(plan: _Plan) -> Table:
    """The peak by purpose, the margin, and what is left of the budget."""
    peak = plan.choice.peak
    table = Table("for", "bytes", "share", box=None, padding=(0, 2, 0, 0))
    rows = [
        *peak.roles.items(),
        ("lost between blocks", peak.fragmentation),
        ("context of the device", peak.context),
    ]
    for role, size in rows:
        table.add_row(role, format_size(size), f"{size / peak.total:.1%}")
    table.add_row("peak", format_size(peak.total), "planned", style="bold")
    table.add_row("margin", format_size(peak.margin), "not planned, kept free")
    given = "" if plan.limit is None else f"of {format_size(plan.limit)}"
    table.add_row("needed", format_size(peak.needed), given, style="bold")
    if plan.left is not None:
        table.add_row("left of the budget", format_size(plan.left), "")
    return table


def _host_table(host: "HostPeak") -> Table:
    """The peak of the host's memory by purpose."""
    table = Table("of the host's memory", "bytes", "share", box=None, padding=(0, 2, 0, 0))
    for role, size in host.roles.items():
        table.add_row(role, format_size(size), f"{size / host.total:.1%}")
    table.add_row("peak", format_size(host.total), "planned", style="bold")
    return table


def as_json(plan: _Plan) -> dict[str, object]:
    """The plan as JSON.

    Args:
        plan: The chosen step backend and its peak, its settings and its budget.
    """
    peak, step = plan.choice.peak, plan.choice.step
    return {
        "schema": SCHEMA,
        "peak_bytes": peak.total,
        "margin_bytes": peak.margin,
        "needed_bytes": peak.needed,
        "left_bytes": plan.left,
        "reserved_bytes": peak.reserved,
        "roles": {**peak.roles, "fragmentation": peak.fragmentation, "context": peak.context},
        "batch_size": plan.config["batch_size"],
        "train_seq_length": plan.config["train_seq_length"],
        "micro_batch": step.rows,
        "recomputed_layers": step.recomputed,
        "logits_chunk": step.chunk,
        "why": plan.choice.why,
    } | _pictures_as_json(plan.pictures)


def _pictures_as_json(run: "PictureRun | None") -> dict[str, object]:
    """What a plan of a run on pictures says besides."""
    if run is None:
        return {}
    host: dict[str, object] = {"peak_bytes": run.host.total, "roles": run.host.roles}
    return {"host": host, "pictures": run.facts}
