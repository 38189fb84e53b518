"""Steps of a vision-language model: features of each picture by the frozen tower, then the language model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from holdwater.train.finetune.data.packing import Packed
from holdwater.train.finetune.losses import CHUNK
from holdwater.train.finetune.step.eager import EagerBackend
from holdwater.train.finetune.step.quantized_linear import quantize_linear_layers
from holdwater.train.finetune.vision.cache import FeatureCache
from holdwater.train.finetune.vision.examples import PictureExample, PlacedPicture
from holdwater.train.finetune.vision.families import Family
from holdwater.train.finetune.vision.model import Features, picture_loss
from holdwater.train.settings import TrainSettings

if TYPE_CHECKING:
    from holdwater.train.finetune.vision.packing import PackedPictures


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
        if bits is not None:
            for part in ("model.language_model", "model.text_model"):
                quantize_linear_layers(model, bits, settings.device, within=part)
        super().__init__(model, settings)
        self._family, self._tower_learns, self._cache = family, tower_learns, cache
        self.pictures = 0
        """Whose features were put into rows so far, in this process."""

    @property
    def cache_remark(self) -> str:
        """How features were found; empty where none are kept."""
        return "" if self._cache is None else f", {self._cache.summary}"

    def propagate(self, batch: Packed, share: float, *, seed: int) -> None:  # noqa: ARG002 - of a backend
        """Add the gradient of some rows, times `share`, to the model's; the seed is not needed."""
        mean = self._loss(batch) / batch.weight
        (mean * share).backward()  # type: ignore[no-untyped-call]
        self._mean += mean.item() * share
        self.micro_batches += 1

    def evaluate(self, batch: Packed) -> float:
        """The weighted sum of cross-entropies of some rows in nats; the caller has turned gradients off."""
        return self._loss(batch).item()

    @torch.no_grad()
    def describe(
        self, example: PictureExample, count: int, *, most: int, padding: int
    ) -> tuple[list[int], list[int]]:
        """Let the model answer the beginning of an example, by Transformers' own generation.

        Args:
            example: With its pictures decoded.
            count: Tokens to add, at most.
            most: Tokens of the beginning, at most.
            padding: The token that stands for none.

        Returns:
            The beginning, and what was added.
        """
        begin = example.beginning[:most]
        device = self._settings.device
        tokens = torch.tensor([begin], device=device)
        shown = int((tokens == self._family.image_token).sum())
        inputs: dict[str, Tensor] = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        pictures = self._whole(example.pictures, shown)
        if pictures:
            decoded = [self._family.inputs(one.picture.load()) for one in pictures]
            inputs |= {name: value.to(device) for name, value in self._family.join(decoded).items()}
            if self._family.kinds_name:
                inputs[self._family.kinds_name] = (tokens == self._family.image_token).long()
        model = self._model.eval()
        found = model.generate(**inputs, max_new_tokens=count, do_sample=False, pad_token_id=padding)
        model.train()
        return begin, found[0].tolist()[len(begin) :]

    @staticmethod
    def _whole(pictures: Sequence[PlacedPicture], tokens: int) -> list[PlacedPicture]:
        """The first pictures that have all their tokens."""
        found: list[PlacedPicture] = []
        for one in pictures:
            tokens -= one.features
            if tokens < 0:
                break
            found.append(one)
        return found

    def _loss(self, batch: Packed) -> Tensor:
        """The weighted sum of cross-entropies of some rows. Shape ()."""
        packed = cast("PackedPictures", batch.to(self._settings.device))
        features = [self._features(one) for row in packed.pictures for one in row]
        self.pictures += len(features)
        return picture_loss(self._model, self._family, packed, features, chunk=CHUNK)

    def _features(self, placed: PlacedPicture) -> Features:
        """Features of a picture: kept ones, or made now; the decoded picture is not needed any more."""
        kept = None if self._cache is None else self._cache.get(placed.key)
        if kept is not None:
            placed.free()
            return tuple(kept[str(number)] for number in range(len(kept)))
        inputs = self._family.inputs(placed.picture.load()) if placed.inputs is None else placed.inputs
        on_device = {name: value.to(self._settings.device) for name, value in inputs.items()}
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._tower_learns):
            features = self._family.features(self._model, on_device)
        placed.free()
        if self._cache is not None:
            self._cache.put(placed.key, {str(number): one.cpu() for number, one in enumerate(features)})
        return features
