"""Image processors of Transformers with the settings of a model, always those that use Pillow.

A run makes the same pixels whether torchvision is installed or not.
"""

import importlib
import json
import re
from collections.abc import Callable
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
    try:
        importlib.import_module("PIL")
    except ImportError:
        said = "pictures need Pillow, which is not installed; write: pip install pillow"
        raise ModelError(said) from None
    code = importlib.import_module(f"transformers.models.{module}.image_processing_pil_{module}")
    own = parts.processor.get("image_processor", parts.processor)
    about_class = re.compile(r".*_(class|type)$|auto_map")
    return getattr(code, name)(**{key: value for key, value in own.items() if not about_class.fullmatch(key)})


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
