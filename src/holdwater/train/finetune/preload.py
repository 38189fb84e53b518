"""What a training process inherits from the one that it is forked from: a model's code, tokenizer and kernels.

Importing this module loads them for the model that the environment names; nothing of it touches a device.
"""

import os
from importlib import import_module
from pathlib import Path

import torch

from holdwater.train.finetune import PRELOADED_MODEL
from holdwater.train.finetune.model.loading import PRELOADED, load_model
from holdwater.train.finetune.vision.generic_loading import learns_from_pictures, load_generic
from holdwater.train.finetune.vision.loading import is_vision_language, load_vision_model

KERNELS = ("triton_kernels", "update_kernels", "quantized_kernels")


def preload(folder: str) -> None:
    """Load everything of a model that can be inherited.

    Args:
        folder: Of a model; a name on the hub is left alone, for nothing is downloaded here.

    Raises:
        ModelError: There is no such model; the training process will say so.
    """
    if not Path(folder).expanduser().is_dir():
        return
    if is_vision_language(folder):
        loaded = load_vision_model(folder, device="meta", dtype=torch.bfloat16).loaded
    elif learns_from_pictures(folder, None):
        loaded = load_generic(folder, device="meta", dtype=torch.bfloat16).loaded
    else:
        loaded = load_model(folder, device="meta", dtype=torch.bfloat16)
    PRELOADED[folder] = loaded.tokenizer
    if Path("/dev/nvidiactl").exists():
        for name in KERNELS:
            import_module(f"holdwater.train.finetune.fused.{name}")
        import_module("triton.compiler")
        import_module("triton.runtime.cache").triton_key()  # reads all of Triton once: 0.35 s


if os.environ.get(PRELOADED_MODEL):
    preload(os.environ[PRELOADED_MODEL])
