"""Steps of a vision-language model: features of each picture by the tower, then the language model.

Two backends: eager autograd anywhere, and steps whose addresses never change, captured as CUDA graphs. Features
are made outside of these graphs, for pictures differ in size, and put into a buffer that the captured step reads.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from holdwater.errors import DataError
from holdwater.oom.out_of_memory import is_out_of_memory
from holdwater.train.finetune.data.packing import Packed
from holdwater.train.finetune.fused.decoder import Decoder, Inputs, PictureInputs, StepPlan
from holdwater.train.finetune.fused.frozen import WeightPlacement
from holdwater.train.finetune.fused.shape import why_not
from holdwater.train.finetune.losses import CHUNK
from holdwater.train.finetune.step.captured import update_weights
from holdwater.train.finetune.step.eager import EagerBackend
from holdwater.train.finetune.step.fused import fuse
from holdwater.train.finetune.step.quantized_linear import quantize_linear_layers
from holdwater.train.finetune.step.static_step import Part, Propagator, StaticStep
from holdwater.train.finetune.vision.cache import FeatureCache
from holdwater.train.finetune.vision.captured_tower import CapturedTower
from holdwater.train.finetune.vision.examples import PictureExample, PlacedPicture
from holdwater.train.finetune.vision.families import Family
from holdwater.train.finetune.vision.kept_features import KeptFeatures
from holdwater.train.finetune.vision.model import Features, PictureStep, added_layers, picture_loss
from holdwater.train.finetune.vision.packing import PackedPictures, pack_pictures
from holdwater.train.finetune.vision.sampling import describe
from holdwater.train.finetune.vision.tower_setup import Sampled, capture_tower, static_tower_of
from holdwater.train.flat import FlatAdamW, FlatWeights
from holdwater.train.settings import TrainSettings


class FeatureMaker:
    """Makes the features of pictures, or takes those that are kept.

    For `scatter`, a captured tower takes the pictures of a micro-batch in passes of a few sizes. Without one, and
    where a picture is larger than all of its budgets, a pass has one picture.
    """

    def __init__(  # noqa: PLR0913 - what features follow from
        self,
        model: Any,  # noqa: ANN401 - of Transformers
        family: Family,
        device: str,
        *,
        tower_learns: bool = False,
        cache: FeatureCache | None = None,
        tower: CapturedTower | None = None,
        buffers: Sequence[Tensor] = (),
    ) -> None:
        """Take a model.

        Args:
            model: On its device.
            family: Of the model.
            device: Where features are needed.
            tower_learns: Whether they have gradients: the tower or the projector has adapters.
            cache: Keeps them; None makes them anew each time.
            tower: Takes several pictures at once; None takes one.
            buffers: Of `scatter`, where that is used.
        """
        self._model, self._family, self._device = model, family, device
        self._tower_learns, self._cache, self._tower = tower_learns, cache, tower
        self._kept_features = KeptFeatures(buffers) if cache is not None and buffers else None

    @property
    def remark(self) -> str:
        """How features were found and made; empty where none are kept, and none share a pass."""
        padding = "" if self._tower is None else self._tower.remark
        return padding if self._cache is None else f"{padding}, {self._cache.summary}"

    def of_rows(self, batch: PackedPictures) -> list[Features]:
        """The features of all pictures of some rows, in order, each by a pass of its own."""
        return [self.of(one) for one in pictures_of(batch)]

    def of(self, placed: PlacedPicture) -> Features:
        """Features of a picture: kept ones, or made now; the decoded picture is not needed any more.

        Args:
            placed: The picture; it is decoded now if it is not yet.
        """
        return self._find(placed) or self._keep(placed, self._make(placed))

    def scatter(self, batch: PackedPictures, places: Tensor, buffers: Sequence[Tensor]) -> None:
        """Put the features of all pictures of some rows in their places.

        Args:
            batch: The rows.
            places: Of their features in the order of pictures, as rows of the buffers, in the host's memory.
                Shape (features,), int64.
            buffers: For each kind of features one; the last row takes what belongs nowhere. Shapes (rows, width).
        """
        pictures = pictures_of(batch)
        where = torch.split(places, [one.features for one in pictures])
        found = [self._find(one) for one in pictures]
        missing = [number for number, kept in enumerate(found) if kept is None]

        def keep(number: int, features: Features) -> None:
            """Keep what a pass has made, and let go of its picture."""
            self._keep(pictures[missing[number]], features)

        left = list(range(len(missing)))
        if self._tower is not None and missing:
            inputs = [self._inputs(pictures[number]) for number in missing]
            left = self._tower.scatter(inputs, [where[number] for number in missing], buffers, keep)
        for number in left:
            keep(number, made := self._make(pictures[missing[number]]))
            found[missing[number]] = made
        ready = [(features, own) for features, own in zip(found, where, strict=True) if features is not None]
        if ready and self._kept_features is not None and not left:
            self._kept_features.put(ready, buffers)
            return
        for features, own in ready:
            _put(features, own, buffers)

    def _find(self, placed: PlacedPicture) -> Features | None:
        """Features that are kept; None where they are to be made."""
        kept = placed.kept
        if kept is None and self._cache is not None:
            kept = self._cache.get(placed.key)
        if kept is None:
            return None
        placed.free()
        return tuple(kept[str(number)] for number in range(len(kept)))

    def _inputs(self, placed: PlacedPicture) -> dict[str, Tensor]:
        """What the tower takes for a picture; it is decoded now if it is not yet."""
        if placed.inputs is None:
            placed.inputs = self._family.inputs(placed.picture.load())
        return placed.inputs

    def _make(self, placed: PlacedPicture) -> Features:
        """Features of a picture, in a pass of its own."""
        on_device = {name: value.to(self._device) for name, value in self._inputs(placed).items()}
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._tower_learns):
            return self._family.features(self._model, on_device)

    def _keep(self, placed: PlacedPicture, features: Features) -> Features:
        """Let go of a picture, and keep its features where that is wanted."""
        placed.free()
        if self._cache is not None:
            self._cache.put(placed.key, {str(number): one.cpu() for number, one in enumerate(features)})
        return features


def pictures_of(batch: PackedPictures) -> list[PlacedPicture]:
    """The pictures of some rows, in order."""
    return [one for row in batch.pictures for one in row]


def _put(features: Features, places: Tensor, buffers: Sequence[Tensor]) -> None:
    """Put the features of one picture in their places."""
    for buffer, part in zip(buffers, features, strict=True):
        buffer.index_copy_(0, places.to(buffer.device), part.to(buffer))


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

    def describe(self, prompt: PictureExample, count: int, *, padding: int) -> list[int]:
        """Let the model answer an example with the likeliest tokens.

        Args:
            prompt: The tokens and pictures before the answer.
            count: Tokens to add, at most.
            padding: The token that stands for none.

        Returns:
            What was added.
        """
        return describe(self._model, self._family, prompt, count, padding=padding)

    def _loss(self, batch: Packed) -> Tensor:
        """The weighted sum of cross-entropies of some rows. Shape ()."""
        packed = cast("PackedPictures", batch.to(self._settings.device))
        return picture_loss(self._model, self._family, packed, self.features.of_rows(packed), chunk=CHUNK)


class CapturedVisionBackend(StaticStep):
    """Steps on rows with pictures whose addresses never change, captured on a CUDA device; the tower is frozen.

    The language model takes fused steps where the kernels know it, else those of its own code under autograd.
    """

    _staged: list[PlacedPicture] | None = None
    """The pictures whose features lie in their places before their step has begun; None without."""
    _first_rows: int | None = None
    """Of the first micro-batch of a step; None before the first step."""

    def __init__(  # noqa: PLR0913 - what steps follow from
        self,
        model: Any,  # noqa: ANN401 - of Transformers
        settings: TrainSettings,
        family: Family,
        where: WeightPlacement,
        step: StepPlan,
        *,
        cache: FeatureCache | None,
        sampled: Sequence[Sampled] = (),
    ) -> None:
        """Put a model on its device, and make all buffers.

        Args:
            model: On the CPU, with adapters of the language model only.
            settings: Of the run.
            family: Of the model.
            where: Frozen weights are put, and how; those of the tower stay as they are.
            step: How steps are taken.
            cache: Keeps features; None makes them anew each time.
            sampled: Examples, for whose pictures the tower is captured; none leaves it to run eagerly.
        """
        length = self._longest = settings.train_seq_length
        self.fused = self.seeds_dropout = not why_not(model, length=length, device=settings.device)
        self.weight_client, self.rows = where.weight_client, step.rows
        propagator: Propagator
        self._decoder: Decoder | None = None
        tower = static_tower_of(model, settings.device) if sampled else None
        if self.fused:
            self._decoder, self.weights, self.optimizer, update = fuse(model, settings, where, step)
            propagator = self._decoder
            model.to(settings.device)  # the tower
        else:
            quantize_language_model(model, where.bits, settings.device)
            self.weights = FlatWeights.of(model.to(settings.device))
            self.optimizer = FlatAdamW(
                self.weights, weight_decay=settings.weight_decay, skips=settings.non_finite == "skip"
            )
            propagator = PictureStep(model, family, self.weights, length=length)
            update = partial(update_weights, self.optimizer, largest_norm=settings.gradient_clip)
        tokens = self.rows * length
        more = Part("axes", torch.int64, 3 * tokens), Part("pictured", torch.bool, tokens)
        super().__init__(propagator, update, rows=self.rows, length=length, more=more)
        embedding = model.get_input_embeddings().weight
        self._places = tuple(
            embedding.new_zeros(tokens + 1, embedding.shape[1]) for _ in range(1 + added_layers(model))
        )
        self._whole_model, self._family = model, family
        self.tower = capture_tower(
            tower, sampled, device=settings.device, dtype=embedding.dtype, tokens=tokens
        )  # fmt: skip
        self.features = FeatureMaker(
            model, family, settings.device, cache=cache, tower=self.tower, buffers=self._places
        )

    def stage(self, batch: Packed) -> None:
        """Make the features of the next micro-batch while the device works; whatever fails is met by its step."""
        packed = cast("PackedPictures", batch).part(0, self._first_rows or self.rows)
        self._staged = None
        try:
            self._place(packed)
        except DataError:
            return
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return
        self._staged = pictures_of(packed)

    def propagate(self, batch: Packed, share: float, *, seed: int) -> None:
        """Make the gradients of a micro-batch, or add them to those of the step so far."""
        if self.micro_batches == 0:
            self._first_rows = len(batch.tokens)
        super().propagate(batch, share, seed=seed)

    def send(self, batch: Packed, factor: float, seed: int) -> None:
        """Send a micro-batch to the device, and put the features of its pictures in their places."""
        packed, staged = cast("PackedPictures", batch), self._staged
        self._staged = None
        if staged != pictures_of(packed):
            self._place(packed)
        super().send(batch, factor, seed)

    def fill(self, parts: dict[str, Tensor], batch: Packed, factor: float, seed: int) -> None:
        """Put a micro-batch into the memory from which it is sent."""
        super().fill(parts, batch, factor, seed)
        packed, count = cast("PackedPictures", batch), batch.tokens.numel()
        parts["axes"][: 3 * count].view(3, -1).copy_(packed.axes.transpose(0, 1).flatten(1))
        parts["pictured"][:count].copy_(packed.tokens.flatten() == self._family.image_token)

    def inputs(self, count: int) -> Inputs:
        """The micro-batch on the device."""
        axes, pictured = self.parts["axes"][: 3 * count].view(3, -1), self.parts["pictured"][:count, None]
        features = tuple(one[:count] for one in self._places)
        return replace(super().inputs(count), pictures=PictureInputs(pictured, axes, features))

    def describe(self, prompt: PictureExample, count: int, *, padding: int) -> list[int]:
        """Let the model answer an example with the likeliest tokens.

        Args:
            prompt: The tokens and pictures before the answer.
            count: Tokens to add, at most; fewer where a row ends before.
            padding: The token that stands for none.

        Returns:
            What was added.
        """
        count = min(count, self._longest - len(prompt.tokens))
        if self._decoder is None:
            return describe(self._whole_model, self._family, prompt, count, padding=padding)
        packed = pack_pictures([[prompt]], len(prompt.tokens))
        self.send(packed, 1.0, 0)
        return self._decoder.generate(self.inputs(len(prompt.tokens)), count) or []

    @torch.no_grad()
    def _place(self, packed: PackedPictures) -> None:
        """Put the features of a micro-batch in the places of their tokens."""
        for buffer in self._places[1:]:
            buffer.zero_()
        places = torch.nonzero(packed.tokens.flatten() == self._family.image_token)[:, 0]
        self.features.scatter(packed, places, self._places)
