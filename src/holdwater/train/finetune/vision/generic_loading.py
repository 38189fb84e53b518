"""Load any vision-language model of Transformers with its processor: safetensors, no remote code, no torchvision.

Which processor a model has is said by its folder, or by Transformers' own table. Image processors are those that
use Pillow, where there is one. Processors of videos need torchvision, and are left out.
"""

import importlib
import inspect
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from holdwater.errors import ConfigError, DataError, ModelError
from holdwater.frameworks.transformers.picture_messages import with_sources
from holdwater.signal_errors import not_the_scripts
from holdwater.train.finetune.data.rows import open_rows
from holdwater.train.finetune.model.loading import Loaded
from holdwater.train.finetune.vision.generic_processor import GenericProcessor
from holdwater.train.finetune.vision.kinds import KINDS, kind_in_folder
from holdwater.train.finetune.vision.loading import ModelPart, finder, load_weights, place_of, read_parts
from holdwater.train.finetune.vision.processors import Parts, any_image_processor, class_named, settings_of

LOOKED_AT = 1_000
"""Rows that are looked at for pictures, of a model that can learn from text alone."""
PROJECTOR = re.compile(
    r"(^|\.)(\w*projector|connector|merger|aligner|resampler|qformer|perceiver\w*|language_projection"
    r"|embed_vision|modality_projection)(\.|$)"
)
"""Between the tower and the language model, by the names that models give it."""


class LoadedGeneric(NamedTuple):
    """A vision-language model, and its processor."""

    loaded: Loaded
    processor: GenericProcessor


def learns_from_pictures(name: str, data: str | None) -> bool:
    """Whether a model takes pictures by a processor that only Transformers knows.

    Models that Transformers also knows as causal language models learn from pictures where the data has some, and
    from text otherwise.

    Args:
        name: A folder, or a name on the hub.
        data: Where the examples are; None looks at no examples.
    """
    path = finder(name)("config.json")
    kind = None if path is None else kind_in_folder(str(Path(path).parent))
    if kind is None or kind in KINDS:
        return False
    models: Any = importlib.import_module("transformers.models.auto.modeling_auto")
    if kind not in models.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return False
    only_text = kind in models.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return not only_text or (data is not None and has_pictures(Path(data).expanduser()))


def has_pictures(path: Path) -> bool:
    """Whether one of the first rows has pictures; False where they cannot be read, which is said later.

    Args:
        path: Of the examples.
    """
    try:
        rows = open_rows(path)
    except DataError:
        return False
    for number in range(min(len(rows), LOOKED_AT)):
        with suppress(DataError):
            if with_sources(rows[number], where="")[1]:
                return True
    return False


def load_generic(name: str, *, device: str, dtype: torch.dtype | Literal["auto"]) -> LoadedGeneric:
    """Load a model's weights, its tokenizer and its processor.

    Args:
        name: A folder, or a name on the hub.
        device: Where the weights are put; `meta` loads none of them.
        dtype: Of the weights; `auto` takes them as they are stored.

    Raises:
        ModelError: It is not there, is damaged, does not fit, or its pictures cannot be learned from.
    """
    parts = read_parts(name)
    if getattr(parts.config, "is_encoder_decoder", False):
        raise ModelError(
            f"{_named(parts)}, an encoder and a decoder: its answers are not behind its question in one text, so "
            "it cannot be trained here; use a model that has only a decoder"
        )
    processor = load_processor(parts)
    image_token = image_token_of(parts, processor)
    loaded = load_weights(parts, device=device, dtype=dtype)
    takes = frozenset(inspect.signature(type(loaded.model).forward).parameters) - {"labels"}
    tokenizer = loaded.tokenizer
    tokenizer.chat_template = processor.chat_template or tokenizer.chat_template
    settings = f"{type(processor).__name__} {settings_of(processor.image_processor)}"
    return LoadedGeneric(loaded, GenericProcessor(processor, tokenizer, takes, image_token, settings))


def load_processor(parts: Parts) -> Any:  # noqa: ANN401 - of Transformers
    """The processor of a model, without videos.

    Args:
        parts: Of the model.

    Raises:
        ModelError: It has none, or one that cannot be used here.
    """
    names: Any = importlib.import_module("transformers.models.auto.processing_auto")
    named = parts.processor.get("processor_class") or parts.tokenizer.init_kwargs.get("processor_class")
    name = named or names.PROCESSOR_MAPPING_NAMES.get(parts.config.model_type)
    if not parts.processor or name is None:
        raise ModelError(
            f"{_named(parts)} and has no processor of pictures; copy processor_config.json and "
            "preprocessor_config.json from the original model"
        )
    table = [model for model, processor in names.PROCESSOR_MAPPING_NAMES.items() if processor == name]
    kind = class_named(name, table, "processing")
    if kind is None:
        raise ModelError(
            f"{_named(parts)}, whose processor {name} of this version of Transformers needs torchvision or "
            "another library that is not installed; install torchvision, or use another model"
        )
    where, local = place_of(parts.name)
    try:
        return _without_videos(kind, parts).from_pretrained(where, local_files_only=local)
    except ModelError:
        raise
    except not_the_scripts(Exception) as error:  # each processor has errors of its own
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{_named(parts)}, whose processor {name} cannot be loaded ({first[:200]})") from error


def _without_videos(kind: Any, parts: Parts) -> Any:  # noqa: ANN401 - a class of Transformers
    """A kind of processor that is loaded without what reads videos, and with an image processor of Pillow."""

    def part(name: str) -> Any:  # noqa: ANN401 - of Transformers
        """A part of the processor, by its name."""
        if name == "tokenizer":
            return parts.tokenizer
        if name == "image_processor":
            return any_image_processor(parts)
        if name in {"video_processor", "feature_extractor", "audio_processor"}:
            return None
        raise ModelError(f"{_named(parts)}, whose processor needs a {name}, which is not supported here")

    def all_parts(cls: Any, /, *_: object, **__: object) -> list[Any]:  # noqa: ANN401 - a class of Transformers
        """In the order in which the processor takes them."""
        return [part(name) for name in cls.get_attributes()]

    def unchecked(*_: object) -> type[object]:
        """Takes None for a part."""
        return object

    own = {"_get_arguments_from_pretrained": classmethod(all_parts), "check_argument_for_proper_class": unchecked}
    return type(kind.__name__, (kind,), own)


def image_token_of(parts: Parts, processor: Any) -> int:  # noqa: ANN401 - of Transformers
    """The token that stands for pictures.

    Args:
        parts: Of the model.
        processor: Of Transformers.

    Raises:
        ModelError: There is none.
    """
    owners = ((parts.config, "image_token_id"), (parts.config, "image_token_index"), (processor, "image_token_id"))
    found = [getattr(owner, name, None) for owner, name in owners]
    token = next((one for one in found if isinstance(one, int)), None)
    if token is None:
        raise ModelError(
            f"{_named(parts)} and has no token that stands for a picture, so its pictures cannot be found in a "
            "text; use a model that has one"
        )
    return token


def parts_of(model: Any) -> tuple[str, Callable[[str], ModelPart]]:  # noqa: ANN401 - of Transformers
    """Where the language model is.

    Args:
        model: Any vision-language model.

    Returns:
        The name of the module that is the language model, and a function that says which part of the model a layer
        lies in.

    Raises:
        ModelError: It cannot be told from the rest.
    """
    decoder = model.get_decoder()
    text = next((name for name, module in model.named_modules() if module is decoder), "")
    base = model.base_model_prefix
    if text in {"", base}:
        raise ModelError(
            f"the model is a {type(model).__name__}, whose language model cannot be told from its vision tower, "
            "so it is not known where adapters go; use another model"
        )
    head = model.get_output_embeddings()
    heads = {name for name, module in model.named_modules() if module is head}

    def part_of(name: str) -> ModelPart:
        """The part of the model that a layer lies in."""
        if name in heads:
            return "head"
        if name.startswith(f"{text}."):
            return "text"
        return "projector" if PROJECTOR.search(name) else "tower"

    return text, part_of


def check_projector(model: Any, part_of: Callable[[str], ModelPart]) -> None:  # noqa: ANN401 - of Transformers
    """Refuse adapters of a projector that is not found.

    Args:
        model: Any vision-language model.
        part_of: Says which part of it a layer lies in.

    Raises:
        ConfigError: No layer is known as one of a projector.
    """
    if not any(part_of(name) == "projector" for name, _ in model.named_modules()):
        raise ConfigError(
            f"adapt_projector is yes, but no layer of a {type(model).__name__} is known to be its projector; "
            "leave it out, or write --adapt-vision, which adapts all outside of the language model"
        )


def _named(parts: Parts) -> str:
    """How messages about a model begin."""
    return f"--model {parts.name} is of the family {parts.config.model_type}"
