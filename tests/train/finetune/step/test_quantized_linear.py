"""Layers whose frozen weights are in few bits, in models whose steps run under autograd."""

from pathlib import Path

import pytest
import torch

from holdwater.train.finetune.model.lora import LoraConfig, LoraLinear, add_adapters
from holdwater.train.finetune.step.quantized_linear import QuantizedLinear, quantize_linear_layers
from tests.small_models import make_model


class TestFewBitsLinear:
    """One layer."""

    @pytest.mark.parametrize("bits", [4, 8])
    @pytest.mark.parametrize("transposed", [False, True])
    def test_is_the_layer_of_the_weights_that_it_stands_for(self, bits: int, transposed: bool) -> None:
        """Output and gradient, with a bias, whichever way round the weight lies."""
        from transformers.pytorch_utils import Conv1D

        torch.manual_seed(0)
        base = Conv1D(48, 64) if transposed else torch.nn.Linear(64, 48)
        base.bias.data.normal_()
        layer = QuantizedLinear(base.requires_grad_(requires_grad=False), bits, "cpu")
        base.weight.data = layer.whole()
        rows = torch.randn(2, 5, 64, requires_grad=True)
        again = rows.detach().clone().requires_grad_()

        found, wanted = layer(rows), base(again)
        found.square().sum().backward()
        wanted.square().sum().backward()

        assert torch.allclose(found, wanted, atol=1e-5)
        assert rows.grad is not None
        assert again.grad is not None
        assert torch.allclose(rows.grad, again.grad, atol=1e-4)

    def test_keeps_neither_the_weight_nor_its_input(self) -> None:
        """Between the product and the backward pass."""
        layer = QuantizedLinear(torch.nn.Linear(64, 64).requires_grad_(requires_grad=False), 4, "cpu")

        assert sum(one.nbytes for one in layer.buffers()) < 64 * 64 * 0.6
        kept: list[torch.Tensor] = []

        def keep(one: torch.Tensor) -> torch.Tensor:
            """Note what autograd keeps."""
            kept.append(one)
            return one

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
            layer(torch.randn(3, 64, requires_grad=True))
        assert not kept


def test_a_head_with_an_adapter_stays_as_it_is(tmp_path: Path) -> None:
    """As one without."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(make_model(tmp_path, "Llama"))
    add_adapters(model, LoraConfig(rank=2, targets=("lm_head", "q_proj")))

    quantize_linear_layers(model, 4, "cpu")

    assert isinstance(model.lm_head.base, torch.nn.Linear)
    assert isinstance(model.model.layers[0].self_attn.q_proj.base, QuantizedLinear)


@pytest.mark.parametrize("family", ["GPT2", "Llama"])
def test_all_linear_layers_but_the_head_are_replaced(tmp_path: Path, family: str) -> None:
    """With adapters beside them, and without."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(make_model(tmp_path, family))
    add_adapters(model, LoraConfig(rank=2, layers=1))
    tokens = torch.arange(20)[None]
    before = model(tokens).logits

    count, share = quantize_linear_layers(model, 8, "cpu")

    assert 0.2 < share < 1
    assert count == (8 if family == "GPT2" else 14)
    assert not isinstance(model.get_output_embeddings(), QuantizedLinear)
    assert all(isinstance(one.base, QuantizedLinear) for one in model.modules() if isinstance(one, LoraLinear))
    assert torch.allclose(model(tokens).logits, before, atol=0.05)
