"""The fused step of a decoder against autograd, on the CPU."""

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from holdwater.train.finetune.data.examples import Example
from holdwater.train.finetune.data.packing import Packed, pack
from holdwater.train.finetune.fused import plain_kernels
from holdwater.train.finetune.fused.decoder import Decoder, Inputs, StepPlan
from holdwater.train.finetune.fused.frozen import WeightPlacement
from holdwater.train.finetune.fused.head import LearnedOrder, learned_first
from holdwater.train.finetune.fused.quantized import dequantize, quantize
from holdwater.train.finetune.fused.shape import why_not
from holdwater.train.finetune.losses import IGNORED
from holdwater.train.finetune.model.loading import generate, load_model, packed_loss
from holdwater.train.finetune.model.lora import LoraConfig, add_adapters
from holdwater.train.flat import FlatWeights
from tests.small_models import make_model

pytest.importorskip("transformers", reason="Transformers is not installed")


def adapted(folder: Path, family: str, **config: Any) -> Any:
    """A small model whose adapters do something."""
    sizes = {"head_dim": 8} if family == "Qwen3" else {}
    model = load_model(str(make_model(folder, family, layers=4, **sizes)), device="cpu", dtype=torch.float32).model
    torch.manual_seed(3)
    if family == "Qwen2":
        for name, bias in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(bias)
    add_adapters(model, LoraConfig(**{"rank": 4, **config}))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
        elif "norm" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    return model


def packed_rows() -> Packed:
    """Two rows of three examples, with padding."""
    torch.manual_seed(1)
    sizes = ((5, 9), (11,))
    return pack(
        [[Example(torch.randint(2, 300, (size,)).tolist(), [True] * size) for size in row] for row in sizes], 16
    )


def inputs_of(packed: Packed, *, ordered: bool = False) -> Inputs:
    """The same for the fused step, with those tokens first that are learned from if that is asked for."""
    flat = (packed.tokens.flatten(), packed.targets.flatten(), packed.weights.flatten())
    order = LearnedOrder(*learned_first(flat[1])) if ordered else None
    return Inputs(*flat, torch.zeros(1).long(), packed.spans, order=order)


@pytest.mark.parametrize(("recomputed", "offloaded"), [(0, False), (1, False), (2, False), (0, True), (4, True)])
@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("Llama", {}),
        ("Qwen2", {}),
        ("Qwen3", {}),
        ("Qwen3", {"targets": ["k_proj"]}),
        ("Llama", {"targets": ["q_proj", "v_proj", "down_proj"]}),
        ("Llama", {"layers": 1}),
    ],
)
def test_gives_the_models_own_loss_and_gradients(
    tmp_path: Path, family: str, config: dict[str, Any], recomputed: int, offloaded: bool
) -> None:
    """Written over once, then added to; whichever layers are adapted, kept or computed again."""
    model, packed = adapted(tmp_path, family, **config), packed_rows()
    plain = packed_loss(model, packed, chunk=7)
    plain.backward()  # type: ignore[no-untyped-call]
    wanted = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}

    assert not why_not(model, length=16, device="cpu")
    decoder = Decoder(model, WeightPlacement("cpu"))
    FlatWeights.of(model, decoder.trained)
    decoder.bind()
    decoder.prepare(16, StepPlan(rows=3, recomputed=recomputed, chunk=7, offloaded=offloaded))
    first = decoder.propagate(inputs_of(packed), add=False)

    assert first.item() == pytest.approx(plain.item(), rel=1e-5)
    found = {name: weight.grad for name, weight in model.named_parameters() if name in wanted}
    for name, grad in wanted.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-4, atol=1e-5)
    decoder.propagate(inputs_of(packed), add=True)
    for name, grad in wanted.items():
        torch.testing.assert_close(found[name], 2 * grad, rtol=1e-4, atol=1e-5)
    assert decoder.loss(inputs_of(packed)).item() == pytest.approx(plain.item(), rel=1e-5)
    assert packed_loss(model, packed, chunk=7).item() == pytest.approx(plain.item(), rel=1e-5)


@pytest.mark.parametrize(("family", "recomputed"), [("Llama", 0), ("Llama", 3), ("Qwen2", 4), ("Qwen3", 2)])
def test_generates_what_the_model_itself_generates(tmp_path: Path, family: str, recomputed: int) -> None:
    """With kept keys and values, whichever layers share buffers; and learns as before afterwards."""
    model, packed = adapted(tmp_path, family), packed_rows()
    prompt = torch.randint(2, 300, (5,)).tolist()
    wanted = generate(model, prompt, 9, device="cpu", padding=0)
    decoder = Decoder(model, WeightPlacement("cpu"))
    FlatWeights.of(model, decoder.trained)
    decoder.bind()
    decoder.prepare(16, StepPlan(rows=3, recomputed=recomputed, chunk=7))
    before = decoder.propagate(inputs_of(packed), add=False).item()

    found = decoder.generate(inputs_of(pack([[Example(prompt, [False] * 5)]], 5)), 9)

    assert found == wanted[5:]
    assert decoder.propagate(inputs_of(packed), add=False).item() == before


def test_generates_nothing_where_layers_share_the_residual_stream(tmp_path: Path) -> None:
    """There is no memory for keys and values then, and the caller takes the long way."""
    model = adapted(tmp_path, "Llama")
    decoder = Decoder(model, WeightPlacement("cpu"))
    FlatWeights.of(model, decoder.trained)
    decoder.bind()
    decoder.prepare(16, StepPlan(rows=3, chunk=7, offloaded=True))

    assert decoder.generate(inputs_of(pack([[Example([5, 6], [False] * 2)]], 2)), 3) is None


@pytest.mark.parametrize("together", [0, 100, 10_000])
def test_sums_and_gradients_by_kernels_of_their_own_are_those_of_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """As on a device where tokens are few: for no layers, for narrow ones, and for all; over, then added to."""
    ends = []
    for own in (False, True):
        if own:
            monkeypatch.setattr(plain_kernels, "chunk_of", lambda _grad, lora_b, _room: 256 if lora_b else None)
            monkeypatch.setattr(plain_kernels, "TOGETHER", together)
        model = adapted(tmp_path, "Llama", targets=["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"])
        decoder = Decoder(model, WeightPlacement("cpu"))
        weights = FlatWeights.of(model, decoder.trained)
        decoder.bind()
        decoder.prepare(16, StepPlan(rows=3, chunk=7))
        for add in (False, True):
            decoder.propagate(inputs_of(packed_rows()), add=add)
        ends.append(weights.decayed_grad)

    torch.testing.assert_close(ends[1], ends[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("recomputed", "offloaded"), [(0, False), (2, False), (4, True)])
@pytest.mark.parametrize("family", ["Llama", "Qwen3"])
def test_gradients_with_dropout_are_those_of_the_loss(
    tmp_path: Path, family: str, recomputed: int, offloaded: bool
) -> None:
    """By finite differences along the gradient: the same seed drops the same values each time."""
    model, packed = adapted(tmp_path, family, dropout=0.3), packed_rows()
    decoder = Decoder(model, WeightPlacement("cpu"))
    weights = FlatWeights.of(model, decoder.trained)
    decoder.bind()
    decoder.prepare(16, StepPlan(rows=3, recomputed=recomputed, chunk=7, offloaded=offloaded))
    inputs = inputs_of(packed)

    decoder.propagate(inputs, add=False)
    length = weights.decayed_grad.norm().item()
    direction, losses = weights.decayed_grad / length, []
    for step in (0.001, -0.002):
        weights.decayed.add_(direction, alpha=step)
        decoder.refresh()
        losses.append(decoder.propagate(inputs, add=False).item())

    assert (losses[0] - losses[1]) / 0.002 == pytest.approx(length, rel=0.01)
    assert decoder.loss(inputs).item() != pytest.approx(losses[1], rel=1e-3)  # an evaluation drops nothing


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_of_few_bits_give_the_gradients_of_the_weights_they_stand_for(tmp_path: Path, bits: int) -> None:
    """Against autograd on weights that went through the same bits."""
    own, packed = adapted(tmp_path, "Llama"), packed_rows()
    for layer in own.model.layers:
        attention, network = layer.self_attn, layer.mlp
        names = (("q_proj", "k_proj", "v_proj"), ("o_proj",))
        groups = [[getattr(attention, name).base for name in group] for group in names]
        groups += [[network.gate_proj.base, network.up_proj.base], [network.down_proj.base]]
        for group in groups:
            together = torch.cat([base.weight.data for base in group])
            whole = torch.empty_like(together)
            dequantize(quantize(together, bits, "cpu"), whole)
            for base, part in zip(group, torch.split(whole, [len(base.weight) for base in group]), strict=True):
                base.weight.data = part
    plain = packed_loss(own, packed, chunk=7)
    plain.backward()  # type: ignore[no-untyped-call]
    model = adapted(tmp_path, "Llama")
    decoder = Decoder(model, WeightPlacement("cpu", bits))
    FlatWeights.of(model, decoder.trained)
    decoder.bind()
    decoder.prepare(16, StepPlan(rows=3, chunk=7))

    loss = decoder.propagate(inputs_of(packed), add=False)

    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    grads = dict(own.named_parameters())
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(weight.grad, grads[name].grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("bits", "error", "size"), [(4, 0.1, 0.52), (8, 0.008, 1.02)])
def test_few_bits_are_near_the_weights(bits: int, error: float, size: float) -> None:
    """Normal weights, in so many bytes each, in blocks that do not fill the last group."""
    torch.manual_seed(0)
    weight, whole = torch.randn(300, 640), torch.empty(300, 640)
    small = quantize(weight, bits, "cpu")
    dequantize(small, whole)

    assert ((whole - weight).norm() / weight.norm()).item() < error
    assert small.nbytes / weight.numel() < size


def test_an_evaluation_has_no_dropout(tmp_path: Path) -> None:
    """Though the steps have."""
    packed = packed_rows()
    losses = []
    for dropout in (0.0, 0.5):
        model = adapted(tmp_path, "Llama", dropout=dropout)
        decoder = Decoder(model, WeightPlacement("cpu"))
        FlatWeights.of(model, decoder.trained)
        decoder.bind()
        decoder.prepare(16, StepPlan(rows=2))
        inputs = inputs_of(packed)
        losses.append((decoder.loss(inputs).item(), decoder.propagate(inputs, add=False).item()))

    assert losses[0][0] == losses[1][0] == pytest.approx(losses[0][1])
    assert losses[1][1] != losses[1][0]


class TestTokensWithoutTarget:
    """Of prompts and padding: their logits are not needed."""

    @pytest.mark.parametrize("learned", [0, 1, 6, 7, 8, 22])
    def test_change_nothing_and_are_left_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learned: int
    ) -> None:
        """Loss and gradients are those of all logits; with chunks of seven, as many are made as there are sevens."""
        model = adapted(tmp_path, "Llama")
        decoder = Decoder(model, WeightPlacement("cpu"))
        weights = FlatWeights.of(model, decoder.trained)
        decoder.bind()
        decoder.prepare(16, StepPlan(rows=3, chunk=7))
        packed = packed_rows()
        targets = packed.targets.flatten()
        targets[torch.nonzero(targets != IGNORED)[learned:, 0]] = IGNORED
        count = int((targets != IGNORED).sum())
        entropy = mock.Mock(wraps=plain_kernels.cross_entropy)
        monkeypatch.setattr(plain_kernels, "cross_entropy", entropy)
        whole = decoder.propagate(inputs_of(packed), add=False).item()
        wanted = weights.decayed_grad.clone()
        assert entropy.call_count == -(-len(targets) // 7)
        entropy.reset_mock()
        decoder.buffers.losses.fill_(float("nan"))
        decoder.buffers.scratch.grad_normed.fill_(float("nan"))
        inputs = inputs_of(packed, ordered=True)
        found = decoder.propagate(inputs, add=False).item()

        assert found == pytest.approx(whole, rel=1e-6, abs=1e-9)
        assert torch.allclose(weights.decayed_grad, wanted, rtol=1e-4, atol=1e-7)
        assert entropy.call_count == -(-count // 7)
        assert decoder.loss(inputs).item() == pytest.approx(whole, rel=1e-6, abs=1e-9)
