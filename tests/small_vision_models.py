"""Small vision-language models of random weights, made from configurations, with tokenizer, processor and template."""

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "idefics3", "smolvlm", "gemma3")

TEXT: dict[str, Any] = {
    "vocab_size": 500, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "pad_token_id": 0,
}  # fmt: skip
CHATML = """{% for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}\
{% if part.type == 'image' %}PICTURE{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
SPECIAL = [
    "<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>", "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>",
    "<start_of_image>", "<end_of_image>", "<image_soft_token>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)),
]  # fmt: skip
WORDS = ["what is in this picture? a red square and a blue circle beside it, as large as the other"] * 3


def make_vision_model(folder: Path, family: str, *, layers: int = 2) -> Path:
    """Write a model of random weights with all that loading it needs.

    Args:
        folder: Is made.
        family: One of `FAMILIES`.
        layers: Of the language model.
    """
    shutil.copytree(_made(family, layers), folder, dirs_exist_ok=True)
    torch.manual_seed(0)
    return folder


@cache
def _made(family: str, layers: int) -> Path:
    """A folder with such a model, which nobody changes: made once in a process."""
    import transformers

    folder = Path(tempfile.mkdtemp(prefix="small-vision-model-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    torch.manual_seed(0)
    tokenizer = _tokenizer(folder, transformers, named=family == "gemma3")
    ids = dict(zip(SPECIAL, tokenizer.convert_tokens_to_ids(SPECIAL), strict=True))
    config = _CONFIGS[family](transformers, ids, TEXT | {"num_hidden_layers": layers})
    transformers.AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    marker, processor = _PROCESSORS[family]
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "chat_template.jinja").write_text(CHATML.replace("PICTURE", marker))
    return folder


def features_of(tower: Any, pictures: Any) -> list[Any]:
    """Copies of what a captured tower makes of pictures; None for one that needs a pass of its own."""
    found: list[Any] = [None] * len(pictures)
    buffers = [one[:1].clone() for one in tower._made]  # of one row, which takes what belongs nowhere
    counts = [tower._tower.features(tower._tower.size(one) or 0) for one in pictures]
    places = [torch.zeros(count, dtype=torch.int64) for count in counts]

    def keep(number: int, features: Any) -> None:
        """What the next pass overwrites."""
        found[number] = tuple(one.clone() for one in features)

    left = tower.scatter(pictures, places, buffers, keep)
    assert [number for number, one in enumerate(found) if one is None] == left
    return found


def make_processor(folder: Path, family: str) -> Any:
    """The processor of Transformers, of those that need no torchvision; Qwen's without videos.

    Args:
        folder: As `make_vision_model` wrote it.
        family: `idefics3`, `gemma3` or `qwen2_5_vl`.
    """
    import importlib

    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    kind = settings.pop("image_processor_type").removesuffix("ImageProcessor")
    module = {"qwen2_5_vl": "qwen2_vl"}.get(family, family)
    code = importlib.import_module(f"transformers.models.{module}.image_processing_pil_{module}")
    pixels = getattr(code, f"{kind}ImageProcessorPil")(**settings)
    template = (folder / "chat_template.jinja").read_text()
    if family == "idefics3":
        return transformers.Idefics3Processor(pixels, tokenizer, image_seq_len=4, chat_template=template)
    if family == "gemma3":
        return transformers.Gemma3Processor(pixels, tokenizer, image_seq_length=4, chat_template=template)

    class WithoutVideos(transformers.Qwen2_5_VLProcessor):  # type: ignore[misc] # no type is known of it
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> None:
            """Takes none for the processor of videos."""

    return WithoutVideos(pixels, tokenizer, None, chat_template=template)


def _tokenizer(folder: Path, transformers: Any, *, named: bool) -> Any:
    """Bytes, with the tokens that stand for pictures in all families."""
    import tokenizers

    raw = tokenizers.ByteLevelBPETokenizer()
    raw.train_from_iterator(WORDS, vocab_size=400, special_tokens=SPECIAL)
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    more = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw._tokenizer, **special, extra_special_tokens=more if named else {}
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def _qwen2_5(transformers: Any, ids: dict[str, int], text: dict[str, Any]) -> Any:
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32,
        "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 56,
        "fullatt_block_indexes": [1],
    }  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    return transformers.Qwen2_5_VLConfig(
        text_config=text | {"rope_parameters": rope}, vision_config=vision, **_qwen_tokens(ids)
    )


def _qwen3(transformers: Any, ids: dict[str, int], text: dict[str, Any]) -> Any:
    vision = {
        "depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32,
        "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "deepstack_visual_indexes": [0, 1],
        "num_position_embeddings": 64,
    }  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0, "mrope_interleaved": True}
    return transformers.Qwen3VLConfig(
        text_config=text | {"rope_parameters": rope, "head_dim": 8}, vision_config=vision, **_qwen_tokens(ids)
    )


def _qwen_tokens(ids: dict[str, int]) -> dict[str, int]:
    return {
        "image_token_id": ids["<|image_pad|>"], "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"], "vision_end_token_id": ids["<|vision_end|>"],
    }  # fmt: skip


def _idefics(transformers: Any, ids: dict[str, int], text: dict[str, Any], name: str = "Idefics3") -> Any:
    vision = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    return getattr(transformers, f"{name}Config")(
        text_config=text | {"model_type": "llama"}, vision_config=vision, scale_factor=2,
        image_token_id=ids["<image>"],
    )  # fmt: skip


def _smolvlm(transformers: Any, ids: dict[str, int], text: dict[str, Any]) -> Any:
    return _idefics(transformers, ids, text, "SmolVLM")


def _gemma3(transformers: Any, ids: dict[str, int], text: dict[str, Any]) -> Any:
    vision = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    return transformers.Gemma3Config(
        text_config=text | {"head_dim": 8, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
        vision_config=vision, mm_tokens_per_image=4, image_token_index=ids["<image_soft_token>"],
        boi_token_index=ids["<start_of_image>"], eoi_token_index=ids["<end_of_image>"],
    )  # fmt: skip


_CONFIGS = {
    "qwen2_5_vl": _qwen2_5, "qwen3_vl": _qwen3, "idefics3": _idefics, "smolvlm": _smolvlm, "gemma3": _gemma3,
}  # fmt: skip
_QWEN = "<|vision_start|><|image_pad|><|vision_end|>"
_PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2_5_vl": (_QWEN, {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14, "merge_size": 2,
                           "size": {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 20}}),
    "qwen3_vl": (_QWEN, {"image_processor_type": "Qwen2VLImageProcessorFast", "patch_size": 16, "merge_size": 2,
                         "size": {"shortest_edge": 32 * 32, "longest_edge": 32 * 32 * 20},
                         "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}),
    "idefics3": ("<image>", {"image_processor_type": "Idefics3ImageProcessor", "size": {"longest_edge": 64},
                             "max_image_size": {"longest_edge": 32}}),
    "smolvlm": ("<image>", {"image_processor_type": "SmolVLMImageProcessor", "size": {"longest_edge": 64},
                            "max_image_size": {"longest_edge": 32}}),
    "gemma3": ("<start_of_image>", {"image_processor_type": "Gemma3ImageProcessor",
                                    "size": {"height": 32, "width": 32}}),
}  # fmt: skip
