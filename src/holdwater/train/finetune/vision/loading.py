"""Load a vision-language model of Transformers, and the settings of its processor: safetensors, no remote code."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from holdwater.errors import ConfigError, ModelError
from holdwater.train.finetune.model.hub import hub_is_away
from holdwater.train.finetune.model.loading import PRELOADED, Loaded, check_folder, import_transformers, told
from holdwater.train.finetune.model.lora import HEADS, LoraConfig, is_linear, layer_number
from holdwater.train.finetune.model.plain_head import has_plain_head
from holdwater.train.finetune.vision.families import Family, family_of
from holdwater.train.finetune.vision.kinds import KINDS, kind_in_folder
from holdwater.train.finetune.vision.processors import Parts, read_processor
from holdwater.train.settings import TuneSettings
from holdwater.units import format_size

PROJECTORS = r"connector|multi_modal_projector|visual\.merger|visual\.deepstack_merger_list"
"""Between the tower and the language model, by their names in the families."""

ModelPart = Literal["text", "projector", "tower", "head"]
"""Of a vision-language model."""

PROCESSOR_FILES = (
    *("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"),
    *("chat_template.jinja", "chat_template.json"),
)


class LoadedVision(NamedTuple):
    """A vision-language model, its tokenizer, and its family."""

    loaded: Loaded
    family: Family


def is_vision_language(name: str) -> bool:
    """Whether a model is of a family whose pictures are known; False where that cannot be read.

    Args:
        name: A folder, or a name on the hub.
    """
    if Path(name).expanduser().is_dir():
        return kind_in_folder(name) in KINDS
    path = finder(name)("config.json")
    return path is not None and kind_in_folder(str(Path(path).parent)) in KINDS


def load_to_merge(name: str) -> Loaded:
    """Load a vision-language model as it is stored.

    Args:
        name: A folder, or a name on the hub.
    """
    return load_weights(read_parts(name), device="cpu", dtype="auto")


def load_vision_model(
    name: str, *, device: str, dtype: torch.dtype | Literal["auto"], max_pixels: int | None = None
) -> LoadedVision:
    """Load a model's weights, its tokenizer, and the settings of its processor.

    Args:
        name: A folder, or a name on the hub.
        device: Where the weights are put; `meta` loads none of them.
        dtype: Of the weights; `auto` takes them as they are stored.
        max_pixels: Most pixels of a resized picture; None takes the processor's own.

    Raises:
        ModelError: It is not there, is damaged, does not fit, or its pictures are not known.
        ConfigError: The model does not take so many pixels.
    """
    parts = read_parts(name, weights=device != "meta")
    family = family_of(parts, max_pixels)
    loaded = load_weights(parts, device=device, dtype=dtype)
    if device != "meta" and not has_plain_head(loaded.model):
        raise ModelError(
            f"--model {name} makes its logits in a way of its own, which is not supported with pictures yet"
        )
    return LoadedVision(loaded, family)


def read_parts(name: str, *, weights: bool = True) -> Parts:
    """Read all of a model but its weights.

    Args:
        name: A folder, or a name on the hub.
        weights: Whether they must be there.

    Raises:
        ModelError: It is not there, or is damaged.
    """
    transformers = import_transformers()
    folder = Path(name).expanduser()
    if folder.is_dir() and weights:
        check_folder(folder)
    where, local = place_of(name)
    try:
        config = transformers.AutoConfig.from_pretrained(where, local_files_only=local)
        tokenizer = PRELOADED.get(name) or transformers.AutoTokenizer.from_pretrained(
            where, local_files_only=local
        )
    except Exception as error:
        raise ModelError(told(name, error)) from error
    find = finder(name)
    tokenizer.chat_template = _chat_template(find) or tokenizer.chat_template
    return Parts(name, config, tokenizer, read_processor(find))


def load_weights(parts: Parts, *, device: str, dtype: torch.dtype | Literal["auto"]) -> Loaded:
    """Load the weights of a model whose other parts were read.

    Args:
        parts: Of the model.
        device: Where the weights are put; `meta` loads none of them.
        dtype: Of the weights; `auto` takes them as they are stored.

    Returns:
        The model in training mode, its tokenizer, and the files of its processor.

    Raises:
        ModelError: It is damaged, or does not fit.
    """
    transformers = import_transformers()
    where, local = place_of(parts.name)
    try:
        if device == "meta":
            with torch.device("meta"):
                model = transformers.AutoModelForImageTextToText.from_config(parts.config, dtype=dtype)
        else:
            model = transformers.AutoModelForImageTextToText.from_pretrained(
                where, dtype=dtype, use_safetensors=True, local_files_only=local
            ).to(device)
    except Exception as error:
        raise ModelError(told(parts.name, error)) from error
    find = finder(parts.name)
    files = {file: Path(path).read_text(encoding="utf-8") for file in PROCESSOR_FILES if (path := find(file))}
    return Loaded(model.train(), parts.tokenizer, parts.name, files)


def place_of(name: str) -> tuple[str, bool]:
    """Where Transformers finds a model, and whether it is to ask nobody on the network.

    Args:
        name: A folder, or a name on the hub.
    """
    folder = Path(name).expanduser()
    return (str(folder), True) if folder.is_dir() else (name, hub_is_away())


def check_settings(tuning: TuneSettings) -> None:
    """Refuse settings that contradict one another.

    Args:
        tuning: The settings.

    Raises:
        ConfigError: Some do.
    """
    if not tuning.lora_rank:
        raise ConfigError("lora_rank is 0, but of a model with pictures only adapters are trained; write 16, say")
    if tuning.vision_cache is not None and (tuning.adapt_vision or tuning.adapt_projector):
        part = "adapt_vision" if tuning.adapt_vision else "adapt_projector"
        size = format_size(tuning.vision_cache)
        raise ConfigError(f"vision_cache is {size}, but {part} changes the features in each step; leave one out")
    if tuning.vision_cache_folder is not None and tuning.vision_cache is None:
        raise ConfigError(
            f"vision_cache_folder is {tuning.vision_cache_folder}, but no size is given; add --vision-cache 10GB"
        )
    if tuning.distrust == "added":
        raise ConfigError("distrust is added, which is not supported with pictures; write weighted, or off")


def part_of(name: str) -> ModelPart:
    """The part of a model of a known family that a layer lies in.

    Args:
        name: Of the layer.
    """
    if re.match(rf"model\.({PROJECTORS})\.", name):
        return "projector"
    if re.match(r"model\.(language_model|text_model)\.", name):
        return "text"
    return "tower" if name.startswith("model.") else "head"


def lora_config(
    model: Any,  # noqa: ANN401 - of Transformers
    tuning: TuneSettings,
    part_of: Callable[[str], ModelPart] = part_of,
) -> LoraConfig:
    """The adapters that the settings of a run ask for: of the language model, and of what else is named.

    Args:
        model: With its layers.
        tuning: The settings.
        part_of: Says which part of the model a layer lies in.

    Raises:
        ConfigError: No layer has such a name.
    """
    plain = LoraConfig.of(tuning)
    pooling = tuple(
        f"{name}." for name, module in model.named_modules() if type(module).__name__.endswith("PoolingHead")
    )  # of SigLIP: features are what comes before it
    names = [name for name, module in model.named_modules() if is_linear(module) and not name.startswith(pooling)]
    adapted = {"text": True, "projector": tuning.adapt_projector, "tower": tuning.adapt_vision, "head": False}
    chosen = [name for name in names if adapted[part_of(name)] and name.rpartition(".")[2] not in HEADS]
    if plain.targets:
        chosen = [name for name in chosen if name.rpartition(".")[2] in plain.targets]
    if plain.layers is not None:
        numbers = sorted({layer_number(name) or 0 for name in chosen if part_of(name) == "text"})
        last = set(numbers[-plain.layers :])
        chosen = [name for name in chosen if part_of(name) != "text" or layer_number(name) in last]
    if not chosen:
        known = sorted({name.rpartition(".")[2] for name in names})
        raise ConfigError(
            f"lora_targets is {tuning.lora_targets}, but the linear layers of this model are {', '.join(known)}; "
            "name some of these"
        )
    return LoraConfig(rank=plain.rank, alpha=plain.alpha, dropout=plain.dropout, pattern=_pattern_of(chosen))


def _pattern_of(names: list[str]) -> str:
    """A pattern that matches these names: their numbers as alternatives, so that it stays short."""
    shapes: dict[str, set[str]] = {}
    for name in names:
        shape = re.sub(r"\.\d+\.", ".#.", name, count=1)
        number = re.search(r"\.(\d+)\.", name)
        shapes.setdefault(shape, set()).add(number[1] if number else "")
    by_numbers: dict[tuple[str, ...], list[str]] = {}
    for shape, numbers in shapes.items():
        by_numbers.setdefault(tuple(sorted(numbers)), []).append(re.escape(shape).replace(r"\#", "#"))
    parts = [
        "(" + "|".join(shapes).replace("#", "(" + "|".join(numbers) + ")") + ")"
        for numbers, shapes in by_numbers.items()
    ]
    return "|".join(parts)


def finder(name: str) -> Callable[[str], str | None]:
    """Where files of a model are, in a folder or in the hub's cache; asks the hub where there is none.

    Args:
        name: A folder, or a name on the hub.
    """
    transformers = import_transformers()

    def find(file: str) -> str | None:
        folder = Path(name).expanduser()
        if folder.is_dir():
            return str(folder / file) if (folder / file).is_file() else None
        try:
            found: str | None = transformers.utils.cached_file(
                name, file, local_files_only=hub_is_away(), _raise_exceptions_for_missing_entries=False
            )
        except Exception:  # noqa: BLE001 - no network, no such model: loading says which
            return None
        return found

    return find


def _chat_template(find: Callable[[str], str | None]) -> str | None:
    """The template of a processor, which shows pictures; a tokenizer's own may not."""
    plain, nested = find("chat_template.jinja"), find("chat_template.json")
    if plain is not None:
        return Path(plain).read_text(encoding="utf-8")
    if nested is not None:
        found = json.loads(Path(nested).read_text(encoding="utf-8")).get("chat_template")
        return None if found is None else str(found)
    return None
