"""Steps of any model by autograd, run eagerly: for devices without CUDA graphs."""

from typing import Any, ClassVar

from holdwater.train.finetune.data.packing import Packed
from holdwater.train.finetune.losses import CHUNK
from holdwater.train.finetune.model.loading import generate, packed_loss
from holdwater.train.finetune.weight_server.client import WeightClient
from holdwater.train.flat import FlatAdamW, FlatWeights
from holdwater.train.settings import TrainSettings


class EagerBackend:
    """Eager autograd. Batches come on the device; dropout draws from torch's own generators."""

    sends_batches: ClassVar[bool] = False
    seeds_dropout: bool = False

    def __init__(self, model: Any, settings: TrainSettings) -> None:  # noqa: ANN401 - of Transformers
        """Put a model on its device.

        Args:
            model: On the CPU, but for weights in few bits.
            settings: Of the run.
        """
        self._model, self._settings = model, settings
        self.weights = FlatWeights.of(model.to(settings.device))
        self.optimizer = FlatAdamW(
            self.weights, weight_decay=settings.weight_decay, skips=settings.non_finite == "skip"
        )
        self.weight_client = WeightClient()
        self.rows = settings.batch_size
        self.micro_batches = 0
        self._mean = 0.0

    def clear(self) -> None:
        """Set all gradients to zero."""
        self.weights.clear_gradients()
        self.micro_batches, self._mean = 0, 0.0

    def propagate(self, batch: Packed, share: float, *, seed: int) -> None:  # noqa: ARG002 - of a backend
        """Add the gradient of some rows, times `share`, to the model's; the seed is not needed."""
        mean = packed_loss(self._model, batch, chunk=CHUNK) / batch.weight
        (mean * share).backward()  # type: ignore[no-untyped-call]
        self._mean += mean.item() * share
        self.micro_batches += 1

    def stage(self, batch: Packed) -> None:
        """Nothing to do: the device has no queue."""

    def update(self, rate: float) -> None:
        """Change the weights."""
        self.optimizer.step(learning_rate=rate, largest_norm=self._settings.gradient_clip, loss=self._mean)

    def loss(self) -> float:
        """The mean loss of the step, in nats."""
        return self._mean

    def evaluate(self, batch: Packed) -> float:
        """The weighted sum of cross-entropies of some rows in nats; the caller has turned gradients off."""
        return packed_loss(self._model, batch.to(self._settings.device), chunk=CHUNK).item()

    def write(self, tokens: list[int], count: int, *, padding: int) -> list[int]:
        """Continue some tokens by Transformers' own generation."""
        return generate(self._model, tokens, count, device=self._settings.device, padding=padding)

    def refresh(self) -> None:
        """Nothing to do: the model computes with the weights that are trained."""
