"""Which way the steps of a model are taken: written out, captured from its own code, or eagerly; and why."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from holdwater.errors import ModelError
from holdwater.oom.out_of_memory import is_out_of_memory
from holdwater.process.restart_context import is_first_process
from holdwater.train.finetune.fused.decoder import Decoder, StepPlan
from holdwater.train.finetune.fused.frozen import WeightPlacement
from holdwater.train.finetune.fused.shape import why_not
from holdwater.train.finetune.model.lora import is_adapted
from holdwater.train.finetune.step.autograd import AutogradStep
from holdwater.train.finetune.step.captured import StaticStep
from holdwater.train.finetune.step.quantized_linear import quantize_linear_layers
from holdwater.train.finetune.weight_server.client import WeightClient
from holdwater.train.flat import FlatAdamW, FlatWeights, Take
from holdwater.train.settings import TrainSettings
from holdwater.units import Bytes, format_size

log = logging.getLogger("holdwater")


@dataclass(frozen=True, slots=True)
class StepBackend:
    """What a step needs."""

    weights: FlatWeights
    optimizer: FlatAdamW
    static: StaticStep | None
    """Takes the steps in memory that never moves; None where autograd takes them eagerly."""
    rows: int | None = None
    """Rows of a micro-batch, where fewer fit than were asked for; None takes them all."""
    weight_client: WeightClient = field(default_factory=WeightClient)
    """Whose memory the weights lie in."""


def choose_backend(model: Any, settings: TrainSettings, where: WeightPlacement, step: StepPlan) -> StepBackend:  # noqa: ANN401
    """Put a model on its device, and get its steps ready.

    Args:
        model: On the CPU.
        settings: Of the run.
        where: Frozen weights are put, and how.
        step: In which micro-batches, and which layers are computed again.

    Raises:
        ModelError: The model, or a step of it, does not fit into the device's memory.
        RuntimeError: The device failed otherwise.
    """
    reason = why_not(model, length=settings.train_seq_length, device=settings.device)
    try:
        return _backend(model, settings, where, step, written=not reason)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            f"the model and a step of {settings.batch_size} × {settings.train_seq_length} tokens do not fit into "
            f"memory ({str(error).splitlines()[0][:160]}); use a smaller --batch-size, --train-seq-length or model"
        ) from None


def _backend(
    model: Any,  # noqa: ANN401 - of Transformers
    settings: TrainSettings,
    where: WeightPlacement,
    step: StepPlan,
    *,
    written: bool,
) -> StepBackend:
    """As `choose_backend`; the model's own code takes steps that are not written out."""
    on_cuda = settings.device == "cuda"
    if written and (on_cuda or where.bits is not None):
        _tell("each step is written out%s", ", and captured" if on_cuda else "")
        return fused_backend(model, settings, where, step)
    if where.bits is not None:
        count, share = quantize_linear_layers(model, where.bits, settings.device)
        _tell("the weights of %d linear layers, %.0f%% of all, are in %d bits", count, 100 * share, where.bits)
    weights = FlatWeights.of(model.to(settings.device))
    if not on_cuda:
        _tell("each step runs eagerly: CUDA graphs need a CUDA device, and this is %s", settings.device)
        return StepBackend(weights, _optimizer(weights, settings), None)
    torch.cuda.empty_cache()  # what laying weights out has left
    optimizer = _optimizer(weights, settings)
    _tell("each step is captured from the model's own code")
    autocast = partial(torch.autocast, "cuda", dtype=torch.bfloat16, cache_enabled=False)
    narrow = None if is_adapted(model) else autocast  # weights that are trained are in float32
    own = AutogradStep(model, weights, length=settings.train_seq_length, narrow=narrow, again=step.recomputed > 0)
    update = partial(_step, optimizer, largest_norm=settings.gradient_clip)
    tokens = step.rows * settings.train_seq_length
    return StepBackend(weights, optimizer, StaticStep(own, update, tokens=tokens), step.rows)


def fused_backend(model: Any, settings: TrainSettings, where: WeightPlacement, step: StepPlan) -> StepBackend:  # noqa: ANN401
    """Take steps with every buffer and every kernel by name.

    Args:
        model: With adapters, of a kind that is known; on the CPU.
        settings: Of the run.
        where: Frozen weights are put, and how.
        step: How steps are taken.
    """
    decoder = Decoder(model, where)
    weights = FlatWeights.of(model, decoder.trained, where.take_trained)
    decoder.bind()
    decoder.prepare(settings.train_seq_length, step)
    optimizer = _optimizer(weights, settings, where.take_trained)
    where.weight_client.whole({"name": where.name})
    update = partial(_update(weights, optimizer, decoder), largest_norm=settings.gradient_clip)
    tokens = step.rows * settings.train_seq_length
    return StepBackend(
        weights, optimizer, StaticStep(decoder, update, tokens=tokens), step.rows, where.weight_client
    )


def _tell(text: str, *arguments: object) -> None:
    """Say something once in a run."""
    if is_first_process():
        log.info(text, *arguments)


def _update(weights: FlatWeights, optimizer: FlatAdamW, decoder: Decoder) -> Callable[..., None]:
    """Changes weights and their copies: one kernel on a CUDA device."""
    if weights.decayed.is_cuda:
        from holdwater.train.finetune.fused.update_kernels import FlatUpdate  # noqa: PLC0415 - Triton is with CUDA

        torch.cuda.empty_cache()  # what moving the weights has left
        return FlatUpdate(weights, optimizer, decoder.copies())

    def update(rate: Tensor, *, largest_norm: float) -> None:
        """Change the weights, then their copies."""
        _step(optimizer, rate, largest_norm=largest_norm)
        decoder.refresh()

    return update


def _step(optimizer: FlatAdamW, rate: Tensor, *, largest_norm: float) -> None:
    """Change the weights."""
    optimizer.step(learning_rate=rate, largest_norm=largest_norm)


def _optimizer(weights: FlatWeights, settings: TrainSettings, take: Take | None = None) -> FlatAdamW:
    """Make the optimizer, and say what it takes."""
    optimizer = FlatAdamW(weights, weight_decay=settings.weight_decay, take=take)
    count = weights.decayed.numel() + weights.undecayed.numel()
    size = sum(tensor.nbytes for tensor in optimizer.tensors().values())
    _tell("%d weights are trained; the optimizer holds %s for them", count, format_size(Bytes(size)))
    return optimizer
