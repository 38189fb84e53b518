"""A vision-language model in training: the adapters of its language model, and what makes batches of pictures."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch

from holdwater.process.restart_context import is_first_process
from holdwater.random_states import seed_everything
from holdwater.train.finetune.data.held_out import data_file, fingerprint, split
from holdwater.train.finetune.data.packing import Packed
from holdwater.train.finetune.data.selective import SelectiveLoss
from holdwater.train.finetune.fused.decoder import StepPlan
from holdwater.train.finetune.fused.frozen import WeightPlacement
from holdwater.train.finetune.fused.shape import why_not
from holdwater.train.finetune.identity import name_of
from holdwater.train.finetune.model.loading import check_length
from holdwater.train.finetune.model.lora import add_adapters
from holdwater.train.finetune.planner.plan import settle
from holdwater.train.finetune.state import TuneState, shown
from holdwater.train.finetune.step.allocator_calls import AllocatorCalls
from holdwater.train.finetune.vision.backend import CapturedVisionBackend, FeatureMaker, VisionBackend
from holdwater.train.finetune.vision.cache import FeatureCache
from holdwater.train.finetune.vision.corpus import PictureCorpus
from holdwater.train.finetune.vision.examples import PassedOver, PictureExample
from holdwater.train.finetune.vision.families import Family
from holdwater.train.finetune.vision.loading import check_settings, load_vision_model, lora_config
from holdwater.train.finetune.vision.malloc import map_large_pieces
from holdwater.train.finetune.vision.packing import ROWS_AHEAD, ChosenPictures, PackedPictures, PictureBatches
from holdwater.train.finetune.vision.passed_over import PassedOverExamples
from holdwater.train.finetune.vision.planning.device import vision_planned_of
from holdwater.train.finetune.vision.sampling import prompt_of
from holdwater.train.finetune.vision.tower_setup import Sampled, sample
from holdwater.train.settings import TrainSettings, TuneSettings
from holdwater.train.trainable import Ahead

log = logging.getLogger("holdwater")


@dataclass(slots=True, kw_only=True)
class VisionState(TuneState):
    """Adapters of a vision-language model in training."""

    family: Family
    """Of the model."""
    pictures: int | None = 0

    def propagate(self, batch: Packed, share: float) -> None:
        """Add the gradient of a micro-batch, times `share`, to that of the step; count its pictures."""
        TuneState.propagate(self, batch, share)  # slots make another class: no super()
        self.pictures = (self.pictures or 0) + sum(map(len, cast("PackedPictures", batch).pictures))

    @property
    def features(self) -> FeatureMaker:
        """Makes the features of pictures."""
        return cast("VisionBackend | CapturedVisionBackend", self.backend).features

    @property
    def remarks(self) -> str:
        """What was wasted on padding so far, what was passed over, and how features were found."""
        said = TuneState.remarks.fget(self)  # type: ignore[attr-defined] # slots make another class: no super()
        passed = self.batches.state().get("passed_over", 0)
        over = f", {passed} examples were passed over for their pictures" if passed else ""
        return f"{said}{over}{self.features.remark}"

    def held_out_batches(self) -> PictureBatches:
        """The batches of an evaluation, from the beginning."""
        return held_out_batches(self.held_out, self.settings)

    @torch.no_grad()
    def sample(self, count: int) -> str:
        """Let the model answer the beginning of the first held-out example with the likeliest tokens.

        Args:
            count: Tokens to add.
        """
        prompt = prompt_of(first_readable(self.held_out), self.family, self.settings.train_seq_length - 1)
        tokenizer, backend = self.loaded.tokenizer, cast("VisionBackend | CapturedVisionBackend", self.backend)
        added = backend.describe(prompt, count, padding=tokenizer.eos_token_id or 0)
        return shown(tokenizer, prompt.tokens, added)


def held_out_batches(held_out: Any, settings: TrainSettings) -> PictureBatches:  # noqa: ANN401 - `ChosenPictures`
    """The batches of an evaluation.

    Args:
        held_out: The examples.
        settings: Of the run.
    """
    return PictureBatches(
        held_out, size=settings.batch_size, length=settings.train_seq_length, seed=settings.seed, prepared=True
    )


def _read(examples: Any, number: int) -> PictureExample | None:  # noqa: ANN401 - of a corpus with pictures
    """Read an example; None where a picture cannot be read."""
    try:
        example: PictureExample = examples[number]
    except PassedOver:
        return None
    return example


def first_readable(examples: Any) -> PictureExample:  # noqa: ANN401 - of a corpus with pictures
    """The first example whose pictures can be read."""
    return next(one for number in range(len(examples)) if (one := _read(examples, number)) is not None)


def new_vision_tuning(settings: TrainSettings, tuning: TuneSettings) -> VisionState:
    """Load a vision-language model, give it adapters, and open its examples.

    Args:
        settings: Of the run.
        tuning: Which model, which adapters.

    Raises:
        DataError: The examples cannot be read.
        ModelError: The model cannot be loaded.
        ConfigError: The adapters or the pictures cannot be so.
    """
    path = data_file(settings.data)
    check_settings(tuning)
    step, choice = settle(settings, tuning, vision_planned_of)
    seed_everything(settings.seed)
    if settings.device != "cpu":
        map_large_pieces()
    dtype = torch.float32 if settings.device == "cpu" else torch.bfloat16  # the trained weights are in float32
    loaded, family = load_vision_model(tuning.model, device="cpu", dtype=dtype, max_pixels=tuning.max_pixels)
    check_length(loaded.model, settings.train_seq_length)
    name, cache = name_of(loaded.model), _open_cache(tuning)
    corpus = PictureCorpus(
        path, loaded.tokenizer, family, length=settings.train_seq_length, answers_only=tuning.learn == "answers",
        passed_over=PassedOverExamples(settings.out) if tuning.bad_pictures == "skip" else None,
        selective=SelectiveLoss.of(tuning), tower="" if cache is None else name,
        dtype=dtype, is_kept=(lambda _: False) if cache is None else cache.holds,
        fetch=(lambda _: None) if cache is None else cache.get,
    )  # fmt: skip
    learned, held_out = (ChosenPictures(corpus, numbers) for numbers in split(corpus, settings))
    lora = lora_config(loaded.model, tuning)
    add_adapters(loaded.model, lora)
    backend = _choose_backend(
        loaded.model, settings, tuning, family, cache, step=step, sampled=lambda: sample(corpus, learned.numbers)
    )
    held_out_batches(held_out, settings).draw()  # can be evaluated
    examples = PictureBatches(
        learned, ahead=ROWS_AHEAD * settings.batch_size, size=settings.batch_size,
        length=settings.train_seq_length, seed=settings.seed, weighs=tuning.distrust == "weighted", prepared=True,
        selective_from=tuning.selective_loss_from,
    )  # fmt: skip
    identity = settings.identity() | {"examples": fingerprint(path), "model": name, "pictures": family.settings}
    captures = isinstance(backend, CapturedVisionBackend) and settings.device == "cuda"
    return VisionState(
        settings, tuning, loaded, lora, backend, examples, Ahead(examples, device="cpu"), held_out, identity,
        corpus=corpus, weight_client=backend.weight_client, choice=choice, micro_batch=backend.rows,
        calls=AllocatorCalls(enabled=captures), family=family,
    )  # fmt: skip


def _choose_backend(  # noqa: PLR0913 - what steps follow from
    model: Any,  # noqa: ANN401 - of Transformers
    settings: TrainSettings,
    tuning: TuneSettings,
    family: Family,
    cache: FeatureCache | None,
    *,
    step: StepPlan,
    sampled: Callable[[], list[Sampled]],
) -> VisionBackend | CapturedVisionBackend:
    """Put a model on its device, and say how its steps are taken.

    Where the tower is frozen: captured on CUDA; fused, where the kernels know the model, on CUDA or in few bits.
    """
    learns = tuning.adapt_vision or tuning.adapt_projector
    on_cuda, few = settings.device == "cuda", tuning.quantize is not None
    static = on_cuda or (few and not why_not(model, length=settings.train_seq_length, device=settings.device))
    backend: VisionBackend | CapturedVisionBackend
    if static and not learns:
        where = WeightPlacement(settings.device, tuning.quantize)
        backend = CapturedVisionBackend(
            model, settings, family, where, step, cache=cache, sampled=sampled() if on_cuda else ()
        )
        how = ("is fused" if backend.fused else "runs under autograd") + (", and captured" if on_cuda else "")
    else:
        backend = VisionBackend(model, settings, family, bits=tuning.quantize, tower_learns=learns, cache=cache)
        how = "runs eagerly"
    if is_first_process():
        tower = "has adapters too" if learns else "is frozen"
        log.info("each step %s; %d weights are trained, the vision tower %s", how, backend.weights.count, tower)
        if isinstance(backend, CapturedVisionBackend) and backend.tower is not None:
            log.info("the vision tower is captured for %s", backend.tower)
    return backend


def _open_cache(tuning: TuneSettings) -> FeatureCache | None:
    """Where features are kept; None where none are."""
    if tuning.vision_cache is None:
        return None
    return FeatureCache(tuning.vision_cache, place=tuning.vision_cache_folder)
