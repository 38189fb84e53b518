"""What steps of a vision-language model will take from a device; each part of a step is a term of its own.

With a frozen tower the step of the language model is captured, and reads features out of buffers; the tower makes
them before, one picture after another. With adapters in the tower or the projector everything is one step.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from holdwater.errors import NothingFits
from holdwater.probes.statm import read_resident
from holdwater.train.finetune.data.held_out import data_file
from holdwater.train.finetune.fused.decoder import Inputs, PictureInputs, StepPlan
from holdwater.train.finetune.fused.shape import why_not
from holdwater.train.finetune.losses import CHUNK
from holdwater.train.finetune.model.lora import add_adapters
from holdwater.train.finetune.planner import CachingAllocator, Peak
from holdwater.train.finetune.planner.autograd import MARGIN, AutogradPlanned, Traces, ask, inputs_of, replay
from holdwater.train.finetune.planner.fused import CONTEXT, WORKSPACE, Choice, choose, nothing_fits, told_rows
from holdwater.train.finetune.planner.meta_trace import Event, Trace, peak_of, trace
from holdwater.train.finetune.planner.peak import margin_of
from holdwater.train.finetune.step.autograd import AutogradStep, packed_of
from holdwater.train.finetune.vision.backend import quantize_language_model
from holdwater.train.finetune.vision.families import Family
from holdwater.train.finetune.vision.loading import (
    LoadedVision,
    check_settings,
    load_vision_model,
    lora_config,
    part_of,
)
from holdwater.train.finetune.vision.model import PictureStep, added_layers, picture_loss
from holdwater.train.finetune.vision.packing import PackedPictures
from holdwater.train.finetune.vision.planning.captured import FusedSteps, plan_captured_tower
from holdwater.train.finetune.vision.planning.sizes import (
    PictureSize,
    PictureSizes,
    read_sizes,
    sizes_without_data,
)
from holdwater.train.finetune.vision.planning.tower import (
    CapturedTowerPlan,
    OnMeta,
    PictureTrace,
    TowerPlan,
    blank_inputs,
    masks_select_all,
    trace_tower,
)
from holdwater.train.settings import TrainSettings, TuneSettings
from holdwater.units import Bytes

LINES = {"tower": "vision tower", "projector": "projector"}
"""Parts of a model whose frozen weights have a line of their own, and what it says."""


class VisionPlanned(AutogradPlanned):
    """A vision-language model on the meta device."""

    def __init__(  # noqa: PLR0913 - what memory follows from
        self,
        model: Any,  # noqa: ANN401 - of Transformers
        family: Family,
        sizes: PictureSizes,
        *,
        length: int,
        bits: int | None,
        tower_learns: bool,
        tower: CapturedTowerPlan | None = None,
        fused: FusedSteps | None = None,
    ) -> None:
        """Take a model with adapters, without memory.

        Args:
            model: On the meta device, in the type that it is trained in.
            family: Of the model.
            sizes: Of the pictures of the run.
            length: Tokens of a row.
            bits: Of a frozen weight of the language model; None for its own.
            tower_learns: Whether the tower or the projector has adapters.
            tower: Its passes, where it is captured.
            fused: Steps of the language model, where they are fused; of a model of their own.
        """
        self.family, self.sizes, self.tower_learns = family, sizes, tower_learns
        frozen = [one for one in model.parameters() if not one.requires_grad]
        self.loaded_weights = sum(one.numel() for one in frozen)
        """How many weights the files of the model hold."""
        super().__init__(model, length=length, bits=bits)
        left = {id(one) for one in model.parameters()}
        self.replaced_weights = sum(one.numel() for one in frozen if id(one) not in left)
        """How many of them are in few bits."""
        self.captured = tower
        """The passes of the tower, where it is captured."""
        self.fused = fused
        """Steps of the language model, where they are fused."""
        self.resident = read_resident()
        """Of this process, which has imported what the run imports and has built the model without memory."""

    def can_compute_again(self, rows: int) -> bool:  # noqa: ARG002 - as `AutogradPlanned`
        """Never: steps on pictures keep all that the backward pass needs."""
        return False

    @property
    def trained_bytes(self) -> int:
        """Of all trained weights."""
        return self._weights.decayed.nbytes + self._weights.undecayed.nbytes

    @property
    def few_bytes(self) -> int:
        """Of all weights in few bits."""
        return sum(self._few)

    @cached_property
    def feature_bytes_of_token(self) -> int:
        """Of what the tower makes for each token of a picture, in bfloat16."""
        return sum(self._picture(self.sizes.largest).features) // max(self.sizes.largest.tokens, 1)

    def peak_on_cpu(self, rows: int) -> int:
        """Most bytes that a step takes on the CPU, in float32 and eagerly, besides weights and decoded pictures.

        Args:
            rows: Of a micro-batch.
        """
        self._model.to(torch.float32)
        return peak_of(self._trace_eager(rows, learns=True, on_cpu=True).events)

    @cached_property
    def tower(self) -> TowerPlan | CapturedTowerPlan:
        """What making features takes, with a frozen tower, which takes one picture after another."""
        return self.captured or TowerPlan(self.sizes, self._picture, length=self.length)

    def choose(self, *, rows: int, limit: Bytes | None, whole: bool = False) -> Choice:
        """Plan micro-batches: fused ones as those of text, all others as they are.

        Args:
            rows: Of a micro-batch, as it was asked for.
            limit: What the process may take; None sets no limit.
            whole: Whether all rows must be propagated at once.

        Raises:
            NothingFits: They do not fit.
        """
        if self.fused is not None:
            found = choose(self, rows=rows, limit=limit, whole=whole)
            return replace(found, why=f"{found.why}; the vision tower is captured beside it")
        step = StepPlan(rows=rows)
        peak = self.peak(step)
        if limit is not None and peak.needed > limit:
            said = nothing_fits(limit, peak, bits=self.bits)
            raise NothingFits(f"{said}; a smaller --batch-size or --max-pixels takes less too")
        told = told_rows(rows, self.length, rows)
        how = "everything eagerly" if self.tower_learns else "the language model captured, the tower before it"
        return Choice(step, peak, f"{told}, under autograd: {how}")

    def peak(self, step: StepPlan) -> Peak:
        """Predict what a run takes.

        Args:
            step: How its steps are taken.
        """
        if self.fused is not None:
            return self.fused.peak(step, self.tower, self.feature_buffers(step.rows))
        allocator = CachingAllocator()
        roles = self._by_part(self._lasting(allocator, gives_back=False))
        if self.tower_learns:
            return self._eager(allocator, roles, step.rows)
        traces, pool = self._traced(step.rows, False), self.tower.start(allocator)  # noqa: FBT003 - for the cache
        roles["feature buffers"] = Bytes(ask(allocator, self.feature_buffers(step.rows)))
        self.tower.replay(allocator, step.rows, first=True)
        replay(allocator, traces.step.events, traces.step.workspaces[1:])
        self.tower.replay(allocator, step.rows)
        allocator.empty_cache()
        captured = CachingAllocator()
        at_peak = replay(captured, traces.step.events, traces.step.workspaces)
        self.tower.replay(allocator, step.rows)
        replay(allocator, traces.evaluation.events)
        reserved = pool + max(allocator.peak, allocator.reserved + captured.reserved)
        roles |= self._of_step(at_peak, 2 * len(traces.step.workspaces))
        tower, evaluation = self.tower.peak + self.tower.held(step.rows), peak_of(traces.evaluation.events)
        roles["tower activations"] = Bytes(tower)
        roles["evaluation"] = Bytes(max(evaluation - (0 if self.tower.captured else tower), 0))
        return Peak(roles, Bytes(reserved), CONTEXT, margin_of(reserved, MARGIN))

    def _eager(self, allocator: CachingAllocator, roles: dict[str, Bytes], rows: int) -> Peak:
        """The same where features have gradients: nothing is captured."""
        traces = self._traced(rows, False)  # noqa: FBT003 - for the cache
        at_peak = replay(allocator, traces.step.events, traces.step.workspaces)
        replay(allocator, traces.evaluation.events)
        replay(allocator, traces.step.events)
        roles |= self._of_step(at_peak, len(traces.step.workspaces))
        return Peak(roles, allocator.peak, CONTEXT, margin_of(allocator.peak, MARGIN))

    def _of_step(self, at_peak: Sequence[Event], workspaces: int) -> dict[str, Bytes]:
        """What a step of the language model takes, by what it is for."""
        logits = sum(event.size for event in at_peak if event.width == self._vocabulary)
        return {
            "activations": Bytes(sum(event.size for event in at_peak) - logits),
            "logits": Bytes(logits),
            "workspace": Bytes(workspaces * WORKSPACE),
        }

    def _by_part(self, roles: dict[str, Bytes]) -> dict[str, Bytes]:
        """Frozen weights of tower and projector, apart from those of the language model."""
        sizes = dict.fromkeys(LINES, 0)
        for name, one in chain(self._model.named_parameters(), self._model.named_buffers()):
            if not one.requires_grad and (part := part_of(name)) in LINES:
                sizes[part] += one.nbytes
        own = {LINES[part]: Bytes(size) for part, size in sizes.items()}
        return {"weights": Bytes(roles["weights"] - sum(own.values())), **own} | {
            role: size for role, size in roles.items() if role != "weights"
        }

    def _quantize(self, model: Any) -> None:  # noqa: ANN401 - of Transformers
        """Put frozen weights of the language model in few bits."""
        quantize_language_model(model, self.bits, "meta")

    def _propagator(self, rows: int, *, again: bool) -> AutogradStep:  # noqa: ARG002 - nothing is computed again
        """What takes a micro-batch."""
        return PictureStep(self._model, self.family, self._weights, length=self.length)

    def inputs(self, rows: int) -> Inputs:
        """The inputs of a micro-batch, and its pictures' features."""
        tokens = rows * self.length
        axes = torch.empty(3, tokens, dtype=torch.int64, device="meta")
        pictured = torch.empty(tokens, 1, dtype=torch.bool, device="meta")
        features = tuple(one[:tokens] for one in self.feature_buffers(rows))
        return replace(inputs_of(tokens), pictures=PictureInputs(pictured, axes, features))

    def feature_buffers(self, rows: int) -> list[Tensor]:
        """Where features wait for the step: rows of tokens and one more, for each kind of features."""
        embedding = self._model.get_input_embeddings().weight
        kinds = 1 + added_layers(self._model)
        return [embedding.new_empty(rows * self.length + 1, embedding.shape[1]) for _ in range(kinds)]

    def _trace(self, rows: int, again: bool) -> Traces:  # noqa: FBT001 - as `AutogradPlanned`
        """Run a micro-batch and an evaluation where tensors have no memory."""
        if not self.tower_learns:
            return super()._trace(rows, again)
        self._model.train()
        return Traces(self._trace_eager(rows, learns=True), self._trace_eager(rows, learns=False))

    def _trace_eager(self, rows: int, *, learns: bool, on_cpu: bool = False) -> Trace:
        """Run a micro-batch with its pictures, as under plain autograd."""
        sizes = self._sizes_of(self.sizes.in_rows(rows, self.length))
        pictures, tokens = [self._on_meta(size) for size in sizes], sum(size.tokens for size in sizes)
        packed, family = self._packed(rows), self.family
        decoded = [one for inputs in pictures for one in inputs.values()] if on_cpu else []

        def run() -> None:
            """The whole micro-batch."""
            with torch.set_grad_enabled(learns), OnMeta(places=(packed.tokens.shape, tokens)):
                with torch.set_grad_enabled(learns and self.tower_learns):
                    features = [family.features(self._model, one) for one in pictures]
                loss = picture_loss(self._model, family, packed, features, chunk=CHUNK)
                if learns:
                    loss.backward()  # type: ignore[no-untyped-call]

        with masks_select_all():
            return trace(run, [*self.known(), packed.tokens, packed.axes, *decoded])

    def _sizes_of(self, tokens: int) -> list[PictureSize]:
        """Pictures that have so many tokens, or little less: the largest, then others of the median size."""
        largest, median = self.sizes.largest, self.sizes.median
        return [largest, *[median] * ((tokens - largest.tokens) // max(median.tokens, 1))]

    def _on_meta(self, size: PictureSize) -> dict[str, Tensor]:
        """The inputs of a picture of a size; sizes and masks have their values."""
        inputs = blank_inputs(self.family, size)
        floats = {name for name, value in inputs.items() if value.is_floating_point()}
        return {name: value.to("meta") if name in floats else value for name, value in inputs.items()}

    def _packed(self, rows: int) -> PackedPictures:
        """Rows on the meta device."""
        plain = packed_of(inputs_of(rows * self.length), self.length)
        axes = torch.empty(rows, 3, self.length, dtype=torch.int64, device="meta")
        return PackedPictures(
            plain.tokens, plain.targets, plain.positions, plain.segments, plain.weights, axes, ((),) * rows
        )

    def _picture(self, size: PictureSize) -> PictureTrace:
        """Trace a picture through the tower."""
        return trace_tower(self._model, self.family, blank_inputs(self.family, size))


def vision_planned_of(
    settings: TrainSettings, tuning: TuneSettings, sizes: PictureSizes | None = None
) -> VisionPlanned:
    """Build a vision-language model on the meta device, as it will be trained on a CUDA device.

    Args:
        settings: Of the run.
        tuning: Which model, which adapters.
        sizes: Of the pictures of the run; None reads them.

    Raises:
        ModelError: The model's configuration cannot be read.
        DataError: The examples cannot be read.
        ConfigError: The model cannot be trained so.
    """
    check_settings(tuning)
    loaded = _loaded(tuning)
    sizes = sizes or _sizes(loaded, settings, tuning, length=settings.train_seq_length)
    learns, length = tuning.adapt_vision or tuning.adapt_projector, settings.train_seq_length
    model, tower, fused = _adapted(loaded, tuning), None, None
    if not learns:
        other = copy.deepcopy(model)
        tower = plan_captured_tower(other, sizes.sampled, tokens=settings.batch_size * length)
        if not why_not(other, length=length):
            fused = FusedSteps(other, length=length, bits=tuning.quantize)
    return VisionPlanned(
        model, loaded.family, sizes,
        length=length, bits=tuning.quantize, tower_learns=learns, tower=tower, fused=fused,
    )  # fmt: skip


def _adapted(loaded: LoadedVision, tuning: TuneSettings) -> Any:  # noqa: ANN401 - of Transformers
    """The model with adapters, in the type that it is trained in."""
    model = loaded.loaded.model
    add_adapters(model, lora_config(model, tuning))
    return model.to(torch.bfloat16)


def read_picture_sizes(settings: TrainSettings, tuning: TuneSettings) -> PictureSizes | None:
    """The sizes of the pictures of a run, for rows of any length; None without data.

    Args:
        settings: Of the run.
        tuning: Which model.

    Raises:
        DataError: The examples cannot be read.
    """
    if settings.data is None:
        return None
    loaded = _loaded(tuning)
    most = getattr(loaded.loaded.model.config.get_text_config(), "max_position_embeddings", None)
    return _sizes(loaded, settings, tuning, length=int(most or settings.train_seq_length))


def _loaded(tuning: TuneSettings) -> LoadedVision:
    """The model without memory, and its family."""
    return load_vision_model(tuning.model, device="meta", dtype=torch.bfloat16, max_pixels=tuning.max_pixels)


def _sizes(loaded: LoadedVision, settings: TrainSettings, tuning: TuneSettings, *, length: int) -> PictureSizes:
    """The sizes of the pictures of a run; without data, its rows are full of pictures."""
    family, patch = loaded.family, int(loaded.loaded.model.config.vision_config.patch_size)
    if settings.data is None:
        return sizes_without_data(family, length=length, patch=patch)
    path = data_file(settings.data)
    return read_sizes(path, loaded.loaded.tokenizer, family, tuning, length=length, patch=patch)
