"""Packed rows of models whose layers see a window only, against the models' own code."""

from typing import Any

import pytest
import torch

from holdwater.train.finetune.data.examples import Example
from holdwater.train.finetune.data.packing import pack
from holdwater.train.finetune.model.loading import packed_loss

transformers = pytest.importorskip("transformers", reason="Transformers is not installed")

SIZES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "head_dim": 8,
    "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 6, "max_position_embeddings": 64,
}  # fmt: skip
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Gemma3Text", {"layer_types": MIXED}),
        ("Gemma2", {"layer_types": [*MIXED[:2], "full_attention"]}),
        ("Mistral", {}),
        ("Qwen2", {"use_sliding_window": True, "layer_types": MIXED}),
        ("Qwen2", {"use_sliding_window": False}),
    ],
)
def test_rows_longer_than_a_window(kind: str, options: dict[str, Any]) -> None:
    """The loss is that of the examples one by one, each with its own window."""
    torch.manual_seed(1)
    config = getattr(transformers, f"{kind}Config")(**SIZES | options)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    examples = [Example(torch.randint(2, 300, (size,)).tolist(), [True] * size) for size in (20, 9)]

    together = packed_loss(model, pack([examples], 32), chunk=7)

    alone = 0.0
    for example in examples:
        tokens = torch.tensor([example.tokens])
        logits = model(tokens).logits[0, :-1]
        alone += torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="sum").item()
    assert together.item() == pytest.approx(alone, rel=1e-5)
