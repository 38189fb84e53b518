"""The plan of a run of fine-tuning: what it will take from a device, and the fastest settings that fit."""

import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from holdwater.budget import Budget, MachineMemory, PoolMemory, find_budget
from holdwater.errors import ConfigError, ModelError, RunFolderError
from holdwater.probes.devices import EXTERNAL
from holdwater.probes.machine import read_machine
from holdwater.process.restart_context import RestartContext
from holdwater.train.finetune.fused.decoder import StepPlan
from holdwater.train.finetune.fused.shape import why_not
from holdwater.train.finetune.model.hub import hub_is_away
from holdwater.train.finetune.model.loading import import_transformers, told
from holdwater.train.finetune.model.lora import LoraConfig, add_adapters
from holdwater.train.finetune.planner.autograd import AutogradPlanned
from holdwater.train.finetune.planner.fused import SERVER_CONTEXT, Choice, Planned, choose
from holdwater.train.settings import TrainSettings, TuneSettings
from holdwater.units import Bytes, format_size

log = logging.getLogger("holdwater")

FILLED = 0.97
"""Share of the budget that is found where none is given: less may be found once weights are loaded."""


PLAN = "plan.json"
"""In the folder of a run: how its steps are taken, and what that follows from."""


class NotPlanned(ConfigError):  # noqa: N818 - says what it is
    """The steps of a model cannot be planned."""


Build = Callable[[TrainSettings, TuneSettings], Planned | AutogradPlanned]
"""Builds a model on the meta device."""


def planned_of(settings: TrainSettings, tuning: TuneSettings) -> Planned | AutogradPlanned:
    """Build a model on the meta device, as it will be trained on a CUDA device.

    Args:
        settings: Of the run.
        tuning: Which model, which adapters.

    Raises:
        ModelError: The model's configuration cannot be read.
    """
    model = _model_of(tuning.model)
    if tuning.lora_rank:
        add_adapters(model, LoraConfig.of(tuning))
    fused = not why_not(model, length=settings.train_seq_length)
    model.to(torch.bfloat16 if tuning.lora_rank else torch.float32)
    planned = Planned if fused else AutogradPlanned
    return planned(model, length=settings.train_seq_length, bits=tuning.quantize)


def choose_settings(
    planned: Planned | AutogradPlanned, *, rows: int, limit: Bytes | None, whole: bool = False
) -> Choice:
    """Choose the fastest way to take steps that fits, with the margin of its plan.

    Args:
        planned: The model.
        rows: Of a micro-batch, as it was asked for; it may be cut into equal parts.
        limit: What the process may take; None sets no limit.
        whole: Whether all rows must be propagated at once.

    Raises:
        ConfigError: No way fits (`NothingFits`).
        NotPlanned: The model does not run on the meta device.
    """
    if isinstance(planned, Planned):
        return choose(planned, rows=rows, limit=limit, whole=whole)
    try:
        return planned.choose(rows=rows, limit=limit, whole=whole)
    except ConfigError:
        raise
    except Exception as error:  # whatever the code of a model may raise
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0][:160]
        reason = f"the model does not run on the meta device ({reason})"
        raise NotPlanned(f"{reason}; try it with a few steps") from error


def settle(
    settings: TrainSettings, tuning: TuneSettings, planned_of: Build = planned_of
) -> tuple[StepPlan, Choice | None]:
    """Settle how the steps of a run are taken, and say so: all its processes take them in the same way.

    Other micro-batches would be other sums, so what was settled lies in the run's folder, and holds for as long as
    the settings that it follows from.

    Args:
        settings: Of the run.
        tuning: Which model, which adapters.
        planned_of: Builds the model on the meta device.

    Returns:
        How, and the plan that it follows from where one was made now.

    Raises:
        ConfigError: Nothing fits into the budget, or into the device.
        ModelError: The model's configuration cannot be read.
        RunFolderError: The run's folder cannot be written to.
    """
    if settings.device != "cuda":
        return StepPlan(rows=settings.batch_size), None
    path = settings.out / PLAN
    follows_from = repr((sorted(settings.identity().items()), tuning.max_memory))
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["follows_from"] == follows_from:
            return StepPlan(**known["step"]), None
    choice = _plan(settings, tuning, planned_of)
    step = StepPlan(rows=settings.batch_size) if choice is None else choice.step
    text = json.dumps({"step": asdict(step), "follows_from": follows_from}, indent=1)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = f"{path} cannot be written ({error.strerror})"
        raise RunFolderError(f"{reason}; free some space, or name another --out") from error
    return step, choice


def _plan(settings: TrainSettings, tuning: TuneSettings, planned_of: Build) -> Choice | None:
    """Choose how steps are taken, and say so; None where they cannot be planned."""
    restart = RestartContext.taken()
    limit, budget = room_for_steps(
        tuning.max_memory, with_weight_server=restart is not None and bool(restart.weight_server)
    )
    try:
        choice = choose_settings(planned_of(settings, tuning), rows=settings.batch_size, limit=limit)
    except NotPlanned as error:
        log.info("%s", error)
        return None
    except ConfigError as error:
        if tuning.max_memory is not None:
            raise
        raise ConfigError(f"no max_memory is given, so there is a {budget}; {error}") from None
    log.info(
        "planned: %s, and a margin of %s, of %s; %s",
        *map(format_size, (choice.peak.total, choice.peak.margin, limit)),
        choice.why,
    )
    return choice


def room_for_steps(max_memory: Bytes | None, *, with_weight_server: bool) -> tuple[Bytes, Budget | None]:
    """What the steps of a run may take of a CUDA device, by the definition of its budget that the guard keeps.

    Args:
        max_memory: The device's budget, if it was given; None finds one on the device that is there.
        with_weight_server: Whether a weight server will have a context of its own on the device.

    Returns:
        The bytes, and the budget if it was found.
    """
    context = SERVER_CONTEXT if with_weight_server else 0
    if max_memory is not None:
        return Bytes(max_memory - context), None
    budget = find_budget(room_of(read_machine(device="cuda")))
    return Bytes(int(budget.limit * FILLED) - context), budget


def room_of(machine: MachineMemory) -> PoolMemory:
    """The memory of the device, or of the machine where that is the device's.

    Args:
        machine: As it was read for the device.
    """
    return machine.device() or machine.host()


def check_plan(choice: Choice) -> None:
    """Compare a plan with what was really taken, and say so; warn where that is more than the plan and its margin.

    Args:
        choice: How steps are taken.
    """
    taken, planned = torch.cuda.max_memory_reserved() + EXTERNAL.held, choice.peak.reserved
    log.log(
        logging.WARNING if taken > planned + choice.peak.margin else logging.INFO,
        "the first steps took %s on the device; %s were planned (%+.1f%%), and a margin of %s",
        format_size(taken),
        format_size(planned),
        100 * (planned / taken - 1),
        format_size(choice.peak.margin),
    )


def model_positions(name: str) -> int | None:
    """How many positions a model was made for; None where its configuration does not say it.

    Args:
        name: A folder, or a name on the hub.

    Raises:
        ModelError: The configuration cannot be read.
    """
    most = getattr(_config_of(name).get_text_config(), "max_position_embeddings", None)
    return None if most is None else int(most)


def _config_of(name: str) -> Any:  # noqa: ANN401 - of Transformers
    """The configuration of a model."""
    transformers = import_transformers()
    folder = Path(name).expanduser()
    where, local = (str(folder), True) if folder.is_dir() else (name, hub_is_away())
    try:
        return transformers.AutoConfig.from_pretrained(where, local_files_only=local)
    except (OSError, ValueError) as error:
        text = told(name, error)
        if folder.is_dir():
            text = f"--model {name}: its config.json cannot be read ({str(error).splitlines()[0]})"
        raise ModelError(text) from error


def _model_of(name: str) -> Any:  # noqa: ANN401 - of Transformers
    """A model on the meta device."""
    config = _config_of(name)
    try:
        with torch.device("meta"):
            return import_transformers().AutoModelForCausalLM.from_config(config)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:160]
        raise ModelError(f"--model {name} cannot be built as a causal language model ({reason})") from error
