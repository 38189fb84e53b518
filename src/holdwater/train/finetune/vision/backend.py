"""Steps of a vision-language model: features of each picture by the tower, then the language model.

Two backends: eager autograd anywhere, and steps whose addresses never change, captured as CUDA graphs. Features
are made outside of the graphs, for pictures differ in size, and put into a buffer that the captured step reads.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from holdwater.train.finetune.data.packing import Packed
from holdwater.train.finetune.losses import CHUNK
from holdwater.train.finetune.step.captured import update_weights
from holdwater.train.finetune.step.eager import EagerBackend
from holdwater.train.finetune.step.quantized_linear import quantize_linear_layers
from holdwater.train.finetune.step.static_step import StaticStep
from holdwater.train.finetune.vision.cache import FeatureCache
from holdwater.train.finetune.vision.examples import PlacedPicture
from holdwater.train.finetune.vision.families import Family
from holdwater.train.finetune.vision.model import Features, PictureStep, picture_loss
from holdwater.train.finetune.weight_server.client import WeightClient
from holdwater.train.flat import FlatAdamW, FlatWeights
from holdwater.train.settings import TrainSettings

if TYPE_CHECKING:
    from holdwater.train.finetune.vision.packing import PackedPictures


class FeatureMaker:
    """Makes the features of pictures, one picture at a time, or takes those that are kept."""

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - of Transformers
        family: Family,
        device: str,
        *,
        tower_learns: bool = False,
        cache: FeatureCache | None = None,
    ) -> None:
        """Take a model.

        Args:
            model: On its device.
            family: Of the model.
            device: Where features are needed.
            tower_learns: Whether they have gradients: the tower or the projector has adapters.
            cache: Keeps them; None makes them anew each time.
        """
        self._model, self._family, self._device = model, family, device
        self._tower_learns, self._cache = tower_learns, cache

    @property
    def remark(self) -> str:
        """How features were found; empty where none are kept."""
        return "" if self._cache is None else f", {self._cache.summary}"

    def of_rows(self, batch: "PackedPictures") -> list[Features]:
        """The features of all pictures of some rows, in order."""
        return [self.of(one) for row in batch.pictures for one in row]

    def of(self, placed: PlacedPicture) -> Features:
        """Features of a picture: kept ones, or made now; the decoded picture is not needed any more.

        Args:
            placed: The picture; it is decoded now if it is not yet.
        """
        kept = None if self._cache is None else self._cache.get(placed.key)
        if kept is not None:
            placed.free()
            return tuple(kept[str(number)] for number in range(len(kept)))
        inputs = self._family.inputs(placed.picture.load()) if placed.inputs is None else placed.inputs
        on_device = {name: value.to(self._device) for name, value in inputs.items()}
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._tower_learns):
            features = self._family.features(self._model, on_device)
        placed.free()
        if self._cache is not None:
            self._cache.put(placed.key, {str(number): one.cpu() for number, one in enumerate(features)})
        return features


def quantize_language_model(model: Any, bits: int | None, device: str) -> None:  # noqa: ANN401 - of Transformers
    """Put the frozen weights of the language model in few bits; the tower stays as it is.

    Args:
        model: With adapters.
        bits: Of a weight; None leaves them as they are.
        device: Where they are to lie.
    """
    for part in ("model.language_model", "model.text_model") if bits is not None else ():
        quantize_linear_layers(model, cast("int", bits), device, within=part)


class VisionBackend(EagerBackend):
    """Eager autograd on rows with pictures. Batches are drawn into the host's memory."""

    sends_batches: ClassVar[bool] = True

    def __init__(  # noqa: PLR0913 - what steps follow from
        self,
        model: Any,  # noqa: ANN401 - of Transformers
        settings: TrainSettings,
        family: Family,
        *,
        bits: int | None,
        tower_learns: bool,
        cache: FeatureCache | None,
    ) -> None:
        """Put a model on its device.

        Args:
            model: On the CPU, with adapters.
            settings: Of the run.
            family: Of the model.
            bits: Of a frozen weight of the language model; None leaves them as they are.
            tower_learns: Whether features have gradients: the tower or the projector has adapters.
            cache: Keeps features; None makes them anew each time.
        """
        quantize_language_model(model, bits, settings.device)
        super().__init__(model, settings)
        self._family = family
        self.features = FeatureMaker(model, family, settings.device, tower_learns=tower_learns, cache=cache)

    def propagate(self, batch: Packed, share: float, *, seed: int) -> None:  # noqa: ARG002 - of a backend
        """Add the gradient of some rows, times `share`, to the model's; the seed is not needed."""
        mean = self._loss(batch) / batch.weight
        (mean * share).backward()  # type: ignore[no-untyped-call]
        self._mean += mean.item() * share
        self.micro_batches += 1

    def evaluate(self, batch: Packed) -> float:
        """The weighted sum of cross-entropies of some rows in nats; the caller has turned gradients off."""
        return self._loss(batch).item()

    def _loss(self, batch: Packed) -> Tensor:
        """The weighted sum of cross-entropies of some rows. Shape ()."""
        packed = cast("PackedPictures", batch.to(self._settings.device))
        return picture_loss(self._model, self._family, packed, self.features.of_rows(packed), chunk=CHUNK)


class CapturedVisionBackend(StaticStep):
    """Steps on rows with pictures whose addresses never change, captured on a CUDA device; the tower is frozen."""

    seeds_dropout: ClassVar[bool] = False

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - of Transformers
        settings: TrainSettings,
        family: Family,
        *,
        bits: int | None,
        cache: FeatureCache | None,
    ) -> None:
        """Put a model on its device, and make all buffers.

        Args:
            model: On the CPU, with adapters of the language model only.
            settings: Of the run.
            family: Of the model.
            bits: Of a frozen weight of the language model; None leaves them as they are.
            cache: Keeps features; None makes them anew each time.
        """
        quantize_language_model(model, bits, settings.device)
        self.weights = FlatWeights.of(model.to(settings.device))
        self.optimizer = FlatAdamW(
            self.weights, weight_decay=settings.weight_decay, skips=settings.non_finite == "skip"
        )
        self.weight_client = WeightClient()
        self.rows = settings.batch_size
        length = settings.train_seq_length
        self._own = PictureStep(model, family, self.weights, rows=self.rows, length=length)
        update = partial(update_weights, self.optimizer, largest_norm=settings.gradient_clip)
        super().__init__(self._own, update, rows=self.rows, length=length)
        self.features = FeatureMaker(model, family, settings.device, cache=cache)

    def send(self, batch: Packed, factor: float, seed: int) -> None:
        """Send a micro-batch to the device, and put the features of its pictures in their places."""
        packed = cast("PackedPictures", batch)
        with torch.no_grad():
            self._own.place(packed, self.features.of_rows(packed))
        super().send(batch, factor, seed)

    def write(self, tokens: list[int], count: int, *, padding: int) -> list[int]:
        """Not used: samples of these models have pictures (`sampling.describe`)."""
        raise NotImplementedError
