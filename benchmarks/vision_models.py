"""Vision-language models of random weights in the shapes of published ones, and rows with pictures for them.

Nothing of gigabytes is written: each program builds the model on the device from the same configuration and seed,
and finds in a folder what else it needs (configuration, tokenizer, template, settings of the processor).
"""

import argparse
import gc
import importlib
import importlib.util
import json
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from picture_files import draw_all

SIZE, SMALL_SIZE = (640, 480), (64, 64)
"""Width and height of a picture."""
WORDS = 94
"""Of the question and the answer of a row; the template adds six tokens, and two stand around the picture."""
QUESTION = 14
"""Words of these that are the question's."""
RATE, RANK, SEED = 1e-4, 16, 1
MARKS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<|unknown|>"),
)
TEMPLATE = """{% for message in messages %}<|im_start|> {{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}\
{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}\
{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|> assistant
{% endif %}"""
TINY_TEXT: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
TINY_TOWER = {"depth": 2, "hidden_size": 64, "intermediate_size": 96, "num_heads": 2, "out_hidden_size": 128}


@dataclass(frozen=True)
class Shape:
    """A vision-language model, as its configuration says."""

    family: str
    config: str
    """Its class in Transformers."""
    words: int
    """Of the vocabulary, before the tokens with a meaning of their own."""
    vocabulary: int
    text: dict[str, Any]
    tower: dict[str, Any]
    tiny_tower: dict[str, Any] = field(default_factory=dict)
    patch: int = 14
    colours: dict[str, Any] = field(default_factory=dict)
    """How the processor scales colours."""
    row: int = 1972
    """Tokens of a row: four examples of 493."""


SHAPES = {
    "qwen2.5-vl-7b": Shape(
        family="qwen2_5_vl", config="Qwen2_5_VLConfig", words=151_643, vocabulary=152_064,
        text={
            "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28, "num_attention_heads": 28,
            "num_key_value_heads": 4, "rms_norm_eps": 1e-6, "max_position_embeddings": 32_768,
            "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
        },
        tower={
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
            "patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
        },
        tiny_tower=TINY_TOWER | {"patch_size": 14, "window_size": 112, "fullatt_block_indexes": [1]},
        colours={
            "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
        },
    ),
    "qwen3-vl-8b": Shape(
        family="qwen3_vl", config="Qwen3VLConfig", words=151_643, vocabulary=151_936,
        text={
            "hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 36, "num_attention_heads": 32,
            "num_key_value_heads": 8, "head_dim": 128, "rms_norm_eps": 1e-6, "max_position_embeddings": 32_768,
            "rope_parameters": {"rope_type": "default", "mrope_section": [24, 20, 20], "rope_theta": 5e6}
            | {"mrope_interleaved": True},
        },
        tower={
            "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "out_hidden_size": 4096,
            "patch_size": 16, "deepstack_visual_indexes": [8, 16, 24],
        },
        tiny_tower=TINY_TOWER | {"patch_size": 16, "deepstack_visual_indexes": [0, 1]},
        patch=16, colours={"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}, row=1608,
    ),
}  # fmt: skip
SHAPES["1b"] = replace(
    SHAPES["qwen2.5-vl-7b"],
    text=SHAPES["qwen2.5-vl-7b"].text
    | {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 12}
    | {"num_attention_heads": 16, "num_key_value_heads": 2},
    tower=SHAPES["qwen2.5-vl-7b"].tower | {"out_hidden_size": 2048},
)
"""The tower of Qwen2.5-VL before a language model of about a billion weights."""


def configuration(name: str, *, small: bool = False, layers: int | None = None) -> Any:
    """The configuration of a model.

    Args:
        name: One of `SHAPES`.
        small: A tiny one, to try a script on the CPU.
        layers: Of the language model; None takes as many as the published one has.
    """
    import transformers

    shape = SHAPES[name]
    text, tower = dict(shape.text), dict(shape.tower)
    if small:
        rope = text["rope_parameters"] | {"mrope_section": [8, 4, 4]}
        text |= TINY_TEXT | {"rope_parameters": rope} | ({"head_dim": 32} if "head_dim" in text else {})
        tower = dict(shape.tiny_tower)
    if layers is not None:
        text["num_hidden_layers"] = layers
    words, vocabulary = (500, 520) if small else (shape.words, shape.vocabulary)
    marks = {mark: words + number for number, mark in enumerate(MARKS)}
    return getattr(transformers, shape.config)(
        text_config=text | {"vocab_size": vocabulary, "pad_token_id": marks["<|endoftext|>"]}
        | {"bos_token_id": marks["<|im_start|>"], "eos_token_id": marks["<|im_end|>"]},
        vision_config=tower, tie_word_embeddings=False,
        image_token_id=marks["<|image_pad|>"], video_token_id=marks["<|video_pad|>"],
        vision_start_token_id=marks["<|vision_start|>"], vision_end_token_id=marks["<|vision_end|>"],
    )  # fmt: skip


def build(config: Any, device: str, *, small: bool = False) -> Any:
    """A model of random weights, the same each time, in bfloat16; a small one in float32.

    Args:
        config: By `configuration`.
        device: Where it is built.
        small: As for `configuration`.
    """
    import transformers

    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32 if small else torch.bfloat16)
    with torch.device(device):
        model = transformers.AutoModelForImageTextToText.from_config(config)
    torch.set_default_dtype(torch.float32)
    model.config.use_cache = False
    return model


def write_folder(folder: Path, name: str, config: Any, *, small: bool = False) -> None:
    """Write all that programs read of a model but its weights.

    Args:
        folder: Is made.
        name: One of `SHAPES`.
        config: By `configuration`.
        small: As for `configuration`.
    """
    import tokenizers
    import transformers
    from safetensors.torch import save_file

    shape = SHAPES[name]
    words = {f"t{number}": number for number in range(500 if small else shape.words)}
    words |= {mark: len(words) + number for number, mark in enumerate(MARKS)}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<|unknown|>"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    plain.add_special_tokens(list(MARKS))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token="<|unknown|>",
        extra_special_tokens={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor_settings(name)))
    save_file({"unused": torch.zeros(1)}, folder / "model.safetensors")  # a folder without weights is refused


def processor_settings(name: str) -> dict[str, Any]:
    """What the published model's folder says of its processor, in so far as it differs from Transformers' own."""
    shape = SHAPES[name]
    edge = 2 * shape.patch
    return {
        "image_processor_type": "Qwen2VLImageProcessor", "patch_size": shape.patch, "merge_size": 2,
        "temporal_patch_size": 2, "size": {"shortest_edge": 4 * edge**2, "longest_edge": 16_384 * edge**2},
    } | shape.colours  # fmt: skip


def processor(folder: Path, name: str, *, pillow: bool) -> Any:
    """The processor of Transformers for a folder by `write_folder`.

    Args:
        folder: Holds the tokenizer.
        name: One of `SHAPES`.
        pillow: Resize pictures with Pillow, as `holdwater train` does; else as Transformers does by itself.
    """
    import transformers

    kind = "Qwen3VLProcessor" if SHAPES[name].family == "qwen3_vl" else "Qwen2_5_VLProcessor"
    settings = {key: value for key, value in processor_settings(name).items() if key != "image_processor_type"}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    whole = importlib.util.find_spec("torchvision") is not None
    if pillow or not whole:
        code = importlib.import_module("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
        pictures = code.Qwen2VLImageProcessorPil(**settings)
    else:
        pictures = transformers.Qwen2VLImageProcessor(**settings)
    base = getattr(transformers, kind)

    def without_check(self: Any, name: str, argument: Any) -> None:
        """Takes a processor that uses Pillow, and none for videos."""

    taking = type(kind, (base,), {"check_argument_for_proper_class": without_check})
    return taking(pictures, tokenizer, transformers.Qwen2VLVideoProcessor() if whole else None,
                  chat_template=TEMPLATE)  # fmt: skip


def write_rows(folder: Path, count: int, *, pictures: int, small: bool = False) -> None:
    """Write rows of one picture, a question and an answer; words are common and rare as in texts.

    Args:
        folder: Gets `rows.jsonl` and the folder `pictures`.
        count: Rows.
        pictures: Different ones; rows take them in turn.
        small: Pictures of 64 x 64 pixels, and few words.
    """
    paths = draw_all(folder / "pictures", pictures, SMALL_SIZE if small else SIZE, workers=2 if small else 16)
    draw = np.random.default_rng(SEED)
    text = partial(_text, draw, most=400 if small else 100_000)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(count):
            said = {"prompt": text(QUESTION), "completion": text(WORDS - QUESTION)}
            file.write(json.dumps({"images": [str(paths[number % pictures])]} | said) + "\n")


def _text(draw: np.random.Generator, words: int, *, most: int) -> str:
    """Words of a Zipf distribution; token number 17 is the word t17."""
    return " ".join(f"t{word}" for word in 4 + draw.zipf(1.3, size=words) % most)


def length_of(name: str, *, small: bool = False) -> int:
    """Tokens of an example: its picture's, two around them, its words, and six of the template.

    Args:
        name: One of `SHAPES`.
        small: As for `configuration`.
    """
    edge = 2 * SHAPES[name].patch
    width, height = SMALL_SIZE if small else SIZE
    return round(width / edge) * round(height / edge) + WORDS + 8


def layout(options: argparse.Namespace, case: str) -> tuple[int, int]:
    """Rows of a step of `holdwater train`, and tokens of a row: four examples fit into one, or one.

    Args:
        options: Say which shape.
        case: `eight` or `one`.
    """
    if case == "one":
        return 1, 128 if options.small else 512
    return 2, 480 if options.small else SHAPES[options.shape].row


def built(options: argparse.Namespace) -> Any:
    """The model that the options ask for, where it is trained."""
    config = configuration(options.shape, small=options.small, layers=options.layers)
    return build(config, "cpu" if options.small else "cuda", small=options.small)


def begin() -> None:
    """Let go of what is not needed any more, and forget the peak so far."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
