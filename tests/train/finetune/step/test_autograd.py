"""Steps under autograd."""

from functools import partial
from pathlib import Path

import pytest
import torch

from holdwater.train.finetune.data.examples import Example
from holdwater.train.finetune.data.packing import pack
from holdwater.train.finetune.fused.decoder import Inputs
from holdwater.train.finetune.model.lora import LoraConfig, add_adapters
from holdwater.train.finetune.planner.autograd import AutogradPlanned
from holdwater.train.finetune.planner.plan import NotPlanned, choose_settings
from holdwater.train.finetune.step.autograd import AutogradStep
from holdwater.train.flat import FlatWeights
from tests.small_models import make_model


def gradient(folder: Path, *, again: bool, whole: bool = False) -> torch.Tensor:
    """Of the adapters, or of all weights by narrower products, by two micro-batches."""
    import transformers

    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).train()
    if not whole:
        add_adapters(model, LoraConfig(rank=2))
    for name, weight in model.named_parameters():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(weight, std=0.02)
    weights = FlatWeights.of(model)
    narrow = partial(torch.autocast, "cpu", dtype=torch.bfloat16, cache_enabled=False) if whole else None
    own = AutogradStep(model, weights, length=16, narrow=narrow, again=again)
    for add in (False, True):
        batch = pack([[Example(list(range(5, 15)), [True] * 10), Example([7, 8, 9], [True] * 3)]], 16)
        tokens, targets, counts = (part.flatten() for part in (batch.tokens, batch.targets, batch.weights))
        own.propagate(Inputs(tokens, targets, counts, torch.zeros(1), batch.spans), add=add)
    return weights.decayed_grad.clone()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("family", ["Olmo2", "Llama"])
def test_layers_computed_again_give_the_same_gradient(tmp_path: Path, family: str, whole: bool) -> None:
    """To the bit."""
    make_model(tmp_path, family)

    found, wanted = (gradient(tmp_path, again=again, whole=whole) for again in (True, False))

    assert wanted.abs().max() > 0
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("family", "dropout", "can"),
    [("Olmo2", 0.0, True), ("Olmo2", 0.1, False), ("GPT2", 0.0, False), ("OPT", 0.0, False)],
)
def test_what_draws_random_numbers_is_not_computed_again(
    tmp_path: Path, family: str, dropout: float, *, can: bool
) -> None:
    """They would be others. GPT-2 has dropout of its own, and OPT has it where no module tells of it."""
    import transformers

    if family == "OPT":
        config = transformers.OPTConfig(
            vocab_size=300, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=64, word_embed_proj_dim=32,
        )  # fmt: skip
    else:
        config = transformers.AutoConfig.from_pretrained(make_model(tmp_path, family))
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    add_adapters(model, LoraConfig(rank=2, dropout=dropout))
    planned = AutogradPlanned(model.to(torch.bfloat16), length=16, bits=None)

    assert planned.can_compute_again(2) is can


def test_a_weight_that_is_frozen_by_itself_is_no_adapter(tmp_path: Path) -> None:
    """All others are trained in float32, with products in bfloat16; position tables of some families are frozen."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(make_model(tmp_path, "Llama"))
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.model.norm.weight.requires_grad_(requires_grad=False)

    assert AutogradPlanned(model, length=16, bits=None).whole


def test_a_mixture_whose_weights_are_all_trained_is_not_planned(tmp_path: Path) -> None:
    """And says so; beside adapters it is."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(make_model(tmp_path, "Mixtral"))
    planned = []
    for whole in (True, False):
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
        if not whole:
            add_adapters(model, LoraConfig(rank=2))
            model.to(torch.bfloat16)
        planned.append(AutogradPlanned(model, length=16, bits=None))

    assert choose_settings(planned[1], rows=2, limit=None).step.rows == 2
    with pytest.raises(NotPlanned, match=r"does not run on the meta device .*; try it with a few steps"):
        choose_settings(planned[0], rows=2, limit=None)
