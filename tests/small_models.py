"""Small models of random weights, made from configurations, with a tokenizer trained on the spot."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

FAMILIES = ("Llama", "Qwen2", "GPT2")


def make_model(folder: Path, family: str, *, layers: int = 2, heads: int = 4, **more: int) -> Path:
    """Write a model of random weights, and a tokenizer trained on a few words; made once in a process, then copied."""
    shutil.copytree(_made(family, layers, heads, tuple(more.items())), folder, dirs_exist_ok=True)
    torch.manual_seed(0)
    return folder


@cache
def _made(family: str, layers: int, heads: int, more: tuple[tuple[str, int], ...]) -> Path:
    """A folder with such a model, which nobody changes."""
    folder = Path(tempfile.mkdtemp(prefix="small-model-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    sizes: dict[str, Any] = (
        {"n_embd": 32, "n_layer": layers, "n_head": heads, "n_positions": 64}
        if family == "GPT2"
        else {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": max(heads // 2, 1), "max_position_embeddings": 64,
        }
    )  # fmt: skip
    import tokenizers
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=300, bos_token_id=0, eos_token_id=1, **(sizes | dict(more))
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    raw = tokenizers.ByteLevelBPETokenizer()
    raw.train_from_iterator(["hold water, hold fast"] * 3, vocab_size=300, special_tokens=["<s>", "</s>"])
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw._tokenizer, **special).save_pretrained(folder)
    return folder
