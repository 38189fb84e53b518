"""Which kinds of models take pictures, by their configuration alone: imports nothing that takes time."""

import json
from pathlib import Path

KINDS = frozenset(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "idefics3", "smolvlm", "gemma3"))
"""As configurations name them."""


def kind_in_folder(name: str) -> str | None:
    """The kind of model that a folder holds; None if it is no folder of a model.

    Args:
        name: A folder, or a name on the hub.
    """
    try:
        config = json.loads((Path(name).expanduser() / "config.json").read_text(encoding="utf-8"))
        return str(config.get("model_type"))
    except (OSError, ValueError, AttributeError):
        return None
