"""Which way the steps of a model are taken: written out, captured from its own code, or eagerly; and why."""

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from holdwater.errors import ModelError
from holdwater.integrations.out_of_memory import is_out_of_memory
from holdwater.train.flat import FlatAdamW, FlatWeights
from holdwater.train.settings import TrainSettings
from holdwater.train.tuning.decoder.decoder import Decoder
from holdwater.train.tuning.decoder.shape import why_not
from holdwater.train.tuning.own_code import OwnCode
from holdwater.train.tuning.static_step import StaticStep
from holdwater.units import Bytes, format_size

log = logging.getLogger("holdwater")


@dataclass(frozen=True, slots=True)
class Way:
    """What a step needs."""

    weights: FlatWeights
    optimizer: FlatAdamW
    static: StaticStep | None
    """Takes the steps in memory that never moves; None where autograd takes them eagerly."""


def choose_way(model: Any, settings: TrainSettings) -> Way:  # noqa: ANN401 - of Transformers
    """Put a model with adapters on its device, and get its steps ready.

    Args:
        model: On the CPU.
        settings: Of the run.

    Raises:
        ModelError: The model, or a step of it, does not fit into the device's memory.
        RuntimeError: The device failed otherwise.
    """
    try:
        return _way(model, settings)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            f"the model and a step of {settings.batch_size} × {settings.train_seq_length} tokens do not fit into "
            f"memory ({str(error).splitlines()[0][:160]}); use a smaller --batch-size, --train-seq-length or model"
        ) from None


def _way(model: Any, settings: TrainSettings) -> Way:  # noqa: ANN401
    """As `choose_way`."""
    tokens = settings.batch_size * settings.train_seq_length
    length, device = settings.train_seq_length, settings.device
    if device != "cuda":
        weights = FlatWeights.of(model.to(device))
        log.info("each step runs eagerly: CUDA graphs need a CUDA device, and this is %s", device)
        return Way(weights, _optimizer(weights, settings), None)
    if reason := why_not(model, length=length):
        log.info("each step is captured from the model's own code: %s", reason)
        weights = FlatWeights.of(model.to(device))
        optimizer = _optimizer(weights, settings)
        own = OwnCode(model, weights, device=device, length=length)
        static = StaticStep(own, partial(_step, optimizer, largest_norm=settings.gradient_clip), tokens=tokens)
        return Way(weights, optimizer, static)
    log.info("each step is written out, and captured")
    decoder = Decoder(model, device=device)
    weights = FlatWeights.of(model, decoder.trained)
    decoder.bind()
    decoder.prepare(tokens, length)
    optimizer = _optimizer(weights, settings)
    torch.cuda.empty_cache()  # what moving the weights has left
    update = _flat_update(weights, optimizer, decoder)
    static = StaticStep(decoder, partial(update, largest_norm=settings.gradient_clip), tokens=tokens)
    return Way(weights, optimizer, static)


def _step(optimizer: FlatAdamW, rate: Tensor, *, largest_norm: float) -> None:
    """Change the weights."""
    optimizer.step(learning_rate=rate, largest_norm=largest_norm)


def _flat_update(weights: FlatWeights, optimizer: FlatAdamW, decoder: Decoder) -> Any:  # noqa: ANN401 - a callable
    """The update as one kernel."""
    from holdwater.train.tuning.decoder.update_kernels import FlatUpdate  # noqa: PLC0415 - Triton is with CUDA only

    return FlatUpdate(weights, optimizer, decoder.copies())


def _optimizer(weights: FlatWeights, settings: TrainSettings) -> FlatAdamW:
    """Make the optimizer, and say what it takes."""
    optimizer = FlatAdamW(weights, weight_decay=settings.weight_decay)
    count = weights.decayed.numel() + weights.undecayed.numel()
    size = sum(tensor.nbytes for tensor in optimizer.tensors().values())
    log.info("%d weights are trained; the optimizer holds %s for them", count, format_size(Bytes(size)))
    return optimizer
