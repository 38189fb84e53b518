"""Small vision-language models of families that are trained by Transformers' own processors."""

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tests.small_vision_models import CHATML, SPECIAL, TEXT, WORDS

GENERIC = ("llava", "llava_onevision", "paligemma", "internvl", "idefics2")
TOWER: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
TILES = [[32, 32], [32, 64], [64, 32], [64, 64]]
MORE = ["<img>", "</img>", "<video>"]
NAMED = {
    "image_token": "<image>", "context_image_token": "<image>", "start_image_token": "<img>",
    "end_image_token": "</img>", "video_token": "<video>",
}  # fmt: skip


def make_generic_model(folder: Path, family: str) -> Path:
    """Write a model of random weights with all that loading it needs.

    Args:
        folder: Is made.
        family: One of `GENERIC`.
    """
    shutil.copytree(_made(family), folder, dirs_exist_ok=True)
    torch.manual_seed(0)
    return folder


@cache
def _made(family: str) -> Path:
    """A folder with such a model, which nobody changes: made once in a process."""
    import transformers

    folder = Path(tempfile.mkdtemp(prefix="small-generic-model-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    torch.manual_seed(0)
    token = _tokenizer(folder, transformers, family).convert_tokens_to_ids("<image>")
    config = getattr(transformers, f"{_NAMES[family]}Config")(
        **_config(family), **{_TOKEN.get(family, "image_token_id"): token}
    )
    transformers.AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    pixels, processor = _PROCESSORS[family]
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    (folder / "processor_config.json").write_text(
        json.dumps(processor | {"processor_class": f"{_NAMES[family]}Processor"})
    )
    if family != "paligemma":
        (folder / "chat_template.jinja").write_text(CHATML.replace("PICTURE", "<image>"))
    return folder


def _tokenizer(folder: Path, transformers: Any, family: str) -> Any:
    """Bytes, with the tokens that stand for pictures in all families."""
    import tokenizers

    raw = tokenizers.ByteLevelBPETokenizer()
    raw.train_from_iterator(WORDS, vocab_size=400, special_tokens=[*SPECIAL, *MORE])
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw._tokenizer, **special,
        extra_special_tokens=NAMED if family in {"internvl", "paligemma"} else {},
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    return tokenizer


def _config(family: str) -> dict[str, Any]:
    """The configuration of a small model."""
    llama = {"text_config": TEXT | {"model_type": "llama"}}
    siglip = {"vision_config": TOWER | {"model_type": "siglip_vision_model", "vision_use_head": False}}
    if family == "llava":
        return llama | {"vision_config": TOWER | {"model_type": "clip_vision_model"}}
    if family == "llava_onevision":
        return llama | siglip | {"image_grid_pinpoints": TILES, "vision_feature_layer": -1}
    if family == "paligemma":
        text = TEXT | {"model_type": "gemma", "head_dim": 8, "vocab_size": 2000}
        return siglip | {"text_config": text, "projection_dim": 32, "hidden_size": 32}
    if family == "internvl":
        tower = TOWER | {"image_size": [32, 32], "patch_size": [8, 8], "model_type": "internvl_vision"}
        return llama | {"vision_config": tower, "downsample_ratio": 0.5, "image_seq_length": 4}
    resampler = {"resampler_n_latents": 5, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 8,
                 "num_key_value_heads": 1, "hidden_size": 32}  # fmt: skip
    return llama | {"vision_config": TOWER, "perceiver_config": resampler}


_NAMES = {
    "llava": "Llava", "llava_onevision": "LlavaOnevision", "paligemma": "PaliGemma", "internvl": "InternVL",
    "idefics2": "Idefics2",
}  # fmt: skip
_TOKEN = {"llava": "image_token_index", "llava_onevision": "image_token_index", "paligemma": "image_token_index"}
_SQUARE = {"height": 32, "width": 32}
_PROCESSORS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llava": (
        {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}, "crop_size": _SQUARE},
        {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
    ),
    "llava_onevision": (
        {"image_processor_type": "LlavaOnevisionImageProcessor", "size": _SQUARE, "image_grid_pinpoints": TILES},
        {"num_image_tokens": 16, "vision_feature_select_strategy": "full"},
    ),
    "paligemma": ({"image_processor_type": "SiglipImageProcessor", "size": _SQUARE, "image_seq_length": 16}, {}),
    "internvl": (
        {"image_processor_type": "GotOcr2ImageProcessor", "size": _SQUARE, "min_patches": 1, "max_patches": 4,
         "crop_to_patches": True},
        {"image_seq_length": 4},
    ),
    "idefics2": (
        {"image_processor_type": "Idefics2ImageProcessor", "size": {"shortest_edge": 16, "longest_edge": 32},
         "do_image_splitting": False},
        {"image_seq_len": 5},
    ),
}  # fmt: skip
