"""Image processors of Transformers with the settings of a model, always those that use Pillow.

A run makes the same pixels whether torchvision is installed or not.
"""

import importlib
import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdwater.errors import ModelError
from holdwater.train.finetune.model.loading import import_transformers

BILINEAR = 2
"""The filter of Pillow that processors use where their settings name none."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a folder or the hub says of a model: its configuration, its tokenizer, and its processor's settings."""

    name: str
    config: Any
    tokenizer: Any
    processor: dict[str, Any]


def image_processor(parts: Parts, module: str, name: str) -> Any:  # noqa: ANN401 - of Transformers
    """An image processor that uses Pillow, with the settings of a model.

    Raises:
        ModelError: Pillow is not installed.
    """
    import_transformers()
    check_pillow()
    code = importlib.import_module(f"transformers.models.{module}.image_processing_pil_{module}")
    return getattr(code, name)(**image_settings(parts))


def any_image_processor(parts: Parts) -> Any:  # noqa: ANN401 - of Transformers
    """The image processor that a model's settings name, or that Transformers has for such models.

    Raises:
        ModelError: Pillow is not installed, or Transformers has no such image processor that works here.
    """
    import_transformers()
    check_pillow()
    code: Any = importlib.import_module("transformers.models.auto.image_processing_auto")
    settings = parts.processor.get("image_processor", parts.processor)
    tables = {kind: set(names.values()) for kind, names in code.IMAGE_PROCESSOR_MAPPING_NAMES.items()}
    table = code.IMAGE_PROCESSOR_MAPPING_NAMES.get(parts.config.model_type) or {}
    named = re.sub(r"(Fast|Pil)$", "", settings.get("image_processor_type") or "")
    wanted = [f"{named}Pil", named] if named else list(filter(None, (table.get("pil"), table.get("torchvision"))))
    if not wanted:
        raise ModelError(
            f"--model {parts.name} names no image processor, and Transformers has none for the family "
            f"{parts.config.model_type}; copy preprocessor_config.json from the original model"
        )
    for stem in ("image_processing_pil", "image_processing"):
        for name in wanted:
            kind = class_named(name, [model for model, names in tables.items() if name in names], stem)
            if kind is not None:
                return kind(**image_settings(parts))
    raise ModelError(
        f"--model {parts.name} is of the family {parts.config.model_type}, whose image processor {wanted[-1]} "
        "of this version of Transformers needs torchvision, which is not installed; install it, or use another "
        "model"
    )


def class_named(name: str, kinds: Iterable[str], stem: str) -> Any:  # noqa: ANN401 - a class of Transformers
    """A class of Transformers by its name.

    It is looked for in the modules themselves: Transformers' own table has placeholders for some classes that need
    torchvision no more.

    Args:
        name: Of the class.
        kinds: Of the models that have it.
        stem: The beginning of the names of their modules.

    Returns:
        The class; None where no module can be imported.
    """
    names: Any = importlib.import_module("transformers.models.auto.configuration_auto")
    for kind in kinds:
        module = names.model_type_to_module_name(kind)
        with suppress(ImportError):
            code = importlib.import_module(f"transformers.models.{module}.{stem}_{module}")
            if hasattr(code, name):
                return getattr(code, name)
    return None


def image_settings(parts: Parts) -> dict[str, Any]:
    """What the files of a model say of its image processor, without the names of its kind.

    Args:
        parts: Of the model.
    """
    own = parts.processor.get("image_processor", parts.processor)
    about_class = re.compile(r".*_(class|type)$|auto_map")
    return {key: value for key, value in own.items() if not about_class.fullmatch(key)}


def check_pillow() -> None:
    """Refuse to begin where no picture can be decoded.

    Raises:
        ModelError: Pillow is not installed.
    """
    try:
        importlib.import_module("PIL")
    except ImportError:
        said = "pictures need Pillow, which is not installed; write: pip install pillow"
        raise ModelError(said) from None


def resized(picture: Any, processor: Any, size: tuple[int, int]) -> Any:  # noqa: ANN401 - of Pillow, Transformers
    """Resize a picture as a processor does first, which then finds it at its size.

    The pixels are the same: processors resize with Pillow too, but only after they have made arrays of the whole
    picture, which take several times its memory.

    Args:
        picture: In RGB.
        processor: By `image_processor`.
        size: Width and height to which it resizes the picture.
    """
    if not processor.do_resize:
        return picture
    return picture.resize(size, BILINEAR if processor.resample is None else int(processor.resample))


def settings_of(processor: Any) -> str:  # noqa: ANN401 - of Transformers
    """The settings of a processor, as text."""
    return json.dumps(processor.to_dict(), sort_keys=True, default=repr)


def read_processor(find: Callable[[str], str | None]) -> dict[str, Any]:
    """The settings of a model's processor.

    Args:
        find: Returns the path of one of the model's files by its name; None if there is none.

    Returns:
        Of `processor_config.json` and `preprocessor_config.json` together; empty if there is neither.
    """
    found: dict[str, Any] = {}
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = find(name)
        if path is not None:
            found |= json.loads(Path(path).read_text(encoding="utf-8"))
    return found
