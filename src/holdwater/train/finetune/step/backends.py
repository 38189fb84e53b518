"""The three ways to take the steps of a model, and which one a run takes: fused, captured autograd, or eager."""

import logging
from typing import Any, ClassVar, Protocol

from holdwater.errors import ModelError
from holdwater.oom.out_of_memory import is_out_of_memory
from holdwater.process.restart_context import is_first_process
from holdwater.train.finetune.data.packing import Packed
from holdwater.train.finetune.fused.decoder import StepPlan
from holdwater.train.finetune.fused.frozen import WeightPlacement
from holdwater.train.finetune.fused.shape import why_not
from holdwater.train.finetune.step.captured import CapturedBackend
from holdwater.train.finetune.step.eager import EagerBackend
from holdwater.train.finetune.step.fused import FusedBackend
from holdwater.train.finetune.step.quantized_linear import quantize_linear_layers
from holdwater.train.finetune.weight_server.client import WeightClient
from holdwater.train.flat import FlatAdamW, FlatWeights
from holdwater.train.settings import TrainSettings
from holdwater.units import Bytes, format_size

log = logging.getLogger("holdwater")


class StepBackend(Protocol):
    """Takes the steps of a model that lies on its device."""

    sends_batches: ClassVar[bool]
    """Whether batches are drawn into the host's memory and sent by the backend, so that the next one can be drawn
    while the device works."""
    seeds_dropout: bool
    """Whether dropout depends on the number of a micro-batch within its step."""
    weights: FlatWeights
    optimizer: FlatAdamW
    rows: int
    """Rows of a micro-batch, at most."""
    weight_client: WeightClient
    """Whose memory the weights lie in."""
    micro_batches: int
    """Of the step so far."""

    def clear(self) -> None:
        """Begin a step: gradients of the last one are forgotten."""
        ...

    def propagate(self, batch: Packed, share: float, *, seed: int) -> None:
        """Make the gradients of a micro-batch, or add them to those of the step so far.

        Args:
            batch: Some rows.
            share: What their mean loss counts in that of the step.
            seed: Of their dropout.
        """
        ...

    def stage(self, batch: Packed) -> None:
        """Begin with the batch of the next step, while the device works; another one may come all the same.

        Args:
            batch: Some rows.
        """
        ...

    def update(self, rate: float) -> None:
        """Change the weights by the gradients of the step.

        Args:
            rate: The learning rate of this step.
        """
        ...

    def loss(self) -> float:
        """The mean loss of the step, in nats."""
        ...

    def evaluate(self, batch: Packed) -> float:
        """The weighted sum of cross-entropies of some rows in nats, without gradients."""
        ...

    def refresh(self) -> None:
        """Take the trained weights as they are now: something else has changed them."""
        ...


class TextBackend(StepBackend, Protocol):
    """Takes the steps of a model that reads nothing but text."""

    def write(self, tokens: list[int], count: int, *, padding: int) -> list[int]:
        """Continue some tokens with the likeliest ones.

        Args:
            tokens: One or more.
            count: Tokens to add, at most.
            padding: The token that stands for none.

        Returns:
            The tokens, and those that were added.
        """
        ...


def choose_backend(model: Any, settings: TrainSettings, where: WeightPlacement, step: StepPlan) -> TextBackend:  # noqa: ANN401
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
    try:
        return _choose(model, settings, where, step)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            f"the model and a step of {settings.batch_size} × {settings.train_seq_length} tokens do not fit into "
            f"memory ({str(error).splitlines()[0][:160]}); use a smaller --batch-size, --train-seq-length or model"
        ) from None


def _choose(model: Any, settings: TrainSettings, where: WeightPlacement, step: StepPlan) -> TextBackend:  # noqa: ANN401
    """As `choose_backend`.

    Fused where the kernels know the model, and it lies on a CUDA device or in few bits. Other models are captured
    on a CUDA device, and run eagerly elsewhere.
    """
    on_cuda = settings.device == "cuda"
    fused = not why_not(model, length=settings.train_seq_length, device=settings.device)
    backend: TextBackend
    if fused and (on_cuda or where.bits is not None):
        _say("each step is fused%s", ", and captured" if on_cuda else "")
        backend = FusedBackend(model, settings, where, step)
    else:
        if where.bits is not None:
            count, share = quantize_linear_layers(model, where.bits, settings.device)
            _say("the weights of %d linear layers, %.0f%% of all, are in %d bits", count, 100 * share, where.bits)
        if on_cuda:
            _say("each step runs under autograd, and is captured")
            backend = CapturedBackend(model, settings, step)
        else:
            _say("each step runs eagerly: CUDA graphs need a CUDA device, and this is %s", settings.device)
            backend = EagerBackend(model, settings)
    size = sum(tensor.nbytes for tensor in backend.optimizer.tensors().values())
    _say(
        "%d weights are trained; the optimizer holds %s for them", backend.weights.count, format_size(Bytes(size))
    )
    return backend


def _say(text: str, *arguments: object) -> None:
    """Log something once in a run."""
    if is_first_process():
        log.info(text, *arguments)
