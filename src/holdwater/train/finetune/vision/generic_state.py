"""Any vision-language model of Transformers in training, by its own code and that of its processor."""

import logging
from dataclasses import dataclass
from typing import Any, cast

import torch

from holdwater.errors import ConfigError
from holdwater.process.restart_context import is_first_process
from holdwater.random_states import seed_everything
from holdwater.train.finetune.data.held_out import data_file, fingerprint, split
from holdwater.train.finetune.data.selective import SelectiveLoss
from holdwater.train.finetune.identity import name_of
from holdwater.train.finetune.model.loading import check_length
from holdwater.train.finetune.model.lora import LoraConfig, add_adapters
from holdwater.train.finetune.state import TuneState, shown
from holdwater.train.finetune.step.allocator_calls import AllocatorCalls
from holdwater.train.finetune.vision.examples import PassedOver
from holdwater.train.finetune.vision.generic_backend import GenericVisionBackend
from holdwater.train.finetune.vision.generic_corpus import GenericCorpus
from holdwater.train.finetune.vision.generic_loading import check_projector, load_generic, parts_of
from holdwater.train.finetune.vision.generic_packing import ProcessedBatches, lay_out_rows
from holdwater.train.finetune.vision.generic_processor import GenericProcessor, Inputs
from holdwater.train.finetune.vision.loading import check_settings, lora_config
from holdwater.train.finetune.vision.malloc import map_large_pieces
from holdwater.train.finetune.vision.packing import ChosenPictures
from holdwater.train.finetune.vision.passed_over import PassedOverExamples
from holdwater.train.settings import TrainSettings, TuneSettings
from holdwater.train.trainable import Ahead
from holdwater.units import format_size

log = logging.getLogger("holdwater")

TRIED = 20
"""Examples among which one with a picture is looked for, on which the model is tried before a run."""


@dataclass(slots=True, kw_only=True)
class GenericVisionState(TuneState):
    """Adapters of any vision-language model in training."""

    processor: GenericProcessor
    """Of the model."""

    @property
    def remarks(self) -> str:
        """What was wasted on padding so far, and what was passed over."""
        said = TuneState.remarks.fget(self)  # type: ignore[attr-defined] # slots make another class: no super()
        passed = self.batches.state().get("passed_over", 0)
        return f"{said}, {passed} examples were passed over for their pictures" if passed else str(said)

    def held_out_batches(self) -> ProcessedBatches:
        """The batches of an evaluation, from the beginning."""
        return _batches(cast("ChosenPictures", self.held_out), self.settings, self.processor)

    @torch.no_grad()
    def sample(self, count: int) -> str:
        """Let the model answer the beginning of the first held-out example with the likeliest tokens.

        Args:
            count: Tokens to add.
        """
        prompt = self._prompt()
        tokenizer, backend = self.loaded.tokenizer, cast("GenericVisionBackend", self.backend)
        added = backend.answer(prompt, count, padding=self.processor.padding)
        asked = [one for one in prompt["input_ids"][0].tolist() if one != self.processor.image_token]
        return shown(tokenizer, asked, added)

    def _prompt(self) -> Inputs:
        """The beginning of the first held-out example whose pictures can be read."""
        corpus, numbers = cast("GenericCorpus", self.corpus), cast("ChosenPictures", self.held_out).numbers
        for number in numbers[:-1]:
            try:
                return corpus.prompt(number)
            except PassedOver:
                continue
        return corpus.prompt(numbers[-1])


def new_generic_tuning(settings: TrainSettings, tuning: TuneSettings) -> GenericVisionState:
    """Load a vision-language model with its own processor, give it adapters, and open its examples.

    Args:
        settings: Of the run.
        tuning: Which model, which adapters.

    Raises:
        DataError: The examples cannot be read.
        ModelError: The model cannot be loaded, or fails on its pictures.
        ConfigError: The adapters or the pictures cannot be so.
    """
    path = data_file(settings.data)
    _check(tuning)
    seed_everything(settings.seed)
    if settings.device != "cpu":
        map_large_pieces()
    dtype = torch.float32 if settings.device == "cpu" else torch.bfloat16  # the trained weights are in float32
    loaded, processor = load_generic(tuning.model, device="cpu", dtype=dtype)
    _check_suffix(processor, tuning)
    check_length(loaded.model, settings.train_seq_length)
    name = name_of(loaded.model)
    corpus = GenericCorpus(
        path, processor, length=settings.train_seq_length, answers_only=tuning.learn == "answers",
        passed_over=PassedOverExamples(settings.out) if tuning.bad_pictures == "skip" else None,
        selective=SelectiveLoss.of(tuning),
    )  # fmt: skip
    learned, held_out = (ChosenPictures(corpus, numbers) for numbers in split(corpus, settings))
    backend, lora = _adapted(loaded.model, settings, tuning, processor)
    _batches(held_out, settings, processor).draw()  # can be evaluated
    _try(backend, corpus, processor, settings.train_seq_length)
    weighs, begins = tuning.distrust == "weighted", tuning.selective_loss_from
    examples = _batches(learned, settings, processor, weighs=weighs, selective_from=begins)
    identity = settings.identity() | {"examples": fingerprint(path), "model": name, "pictures": processor.settings}
    return GenericVisionState(
        settings, tuning, loaded, lora, backend, examples, Ahead(examples, device="cpu"), held_out, identity,
        corpus=corpus, weight_client=backend.weight_client, choice=None, micro_batch=backend.rows,
        calls=AllocatorCalls(enabled=False), processor=processor,
    )  # fmt: skip


def _batches(
    examples: ChosenPictures,
    settings: TrainSettings,
    processor: GenericProcessor,
    *,
    weighs: bool = False,
    selective_from: int = 0,
) -> ProcessedBatches:
    """Batches of examples, from the beginning."""
    return ProcessedBatches(
        examples, padding=processor.padding, size=settings.batch_size, length=settings.train_seq_length,
        seed=settings.seed, weighs=weighs, prepared=True, selective_from=selective_from,
    )  # fmt: skip


def _adapted(
    model: Any,  # noqa: ANN401 - of Transformers
    settings: TrainSettings,
    tuning: TuneSettings,
    processor: GenericProcessor,
) -> tuple[GenericVisionBackend, LoraConfig]:
    """Give a model adapters, put it on its device, and say how its steps are taken."""
    text, part_of = parts_of(model)
    if tuning.adapt_projector:
        check_projector(model, part_of)
    lora = lora_config(model, tuning, part_of)
    add_adapters(model, lora)
    backend = GenericVisionBackend(model, settings, processor.takes, text=text, bits=tuning.quantize)
    if is_first_process():
        log.info(
            "each step runs eagerly, by the model's own code on what its %s makes; %d weights are trained, the "
            "vision tower %s", type(processor.processor).__name__, backend.weights.count,
            "has adapters too" if tuning.adapt_vision or tuning.adapt_projector else "is frozen",
        )  # fmt: skip
    return backend, lora


def _try(backend: GenericVisionBackend, corpus: GenericCorpus, processor: GenericProcessor, length: int) -> None:
    """Try a model on an example with a picture, if one of the first examples has any."""
    for number in range(min(TRIED, len(corpus))):
        try:
            example = corpus[number]
        except PassedOver:
            continue
        if processor.image_token in example.tokens:
            backend.check(lay_out_rows([example], length, padding=processor.padding))
            return


def _check(tuning: TuneSettings) -> None:
    """Refuse settings that contradict one another, or that need more knowledge of a model than there is.

    Raises:
        ConfigError: Some do.
    """
    check_settings(tuning)
    if tuning.max_pixels is not None:
        raise ConfigError(
            f"max_pixels is {tuning.max_pixels}, but the pictures of this family of models are resized by its own "
            "processor, which has other settings; leave it out, or change them in preprocessor_config.json in the "
            "model's folder"
        )
    if tuning.vision_cache is not None:
        raise ConfigError(
            f"vision_cache is {format_size(tuning.vision_cache)}, but models of this family make features within "
            "their own forward, where they cannot be kept; leave it out"
        )


def _check_suffix(processor: GenericProcessor, tuning: TuneSettings) -> None:
    """Refuse to learn what a model sees as a whole.

    Raises:
        ConfigError: That is asked for.
    """
    if not processor.has_suffix:
        return
    if tuning.learn != "answers":
        raise ConfigError(
            f"learn is {tuning.learn}, but this model sees its question as a whole, so only answers can be "
            "learned; write answers"
        )
    if tuning.selective_loss != "none":
        raise ConfigError(
            f"selective_loss is {tuning.selective_loss}, which is not supported for models that see their "
            "question as a whole; write none"
        )
