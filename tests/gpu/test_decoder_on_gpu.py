"""The fused step on a device: each kernel against plain torch, the whole against autograd."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from holdwater.train.finetune.data.examples import Example
from holdwater.train.finetune.data.packing import Packed, pack
from holdwater.train.finetune.fused import plain_kernels as plain
from holdwater.train.finetune.fused.decoder import Decoder, StepPlan
from holdwater.train.finetune.fused.frozen import WeightPlacement
from holdwater.train.finetune.model.loading import packed_loss
from holdwater.train.finetune.model.lora import LoraConfig, add_adapters
from holdwater.train.finetune.step.backends import choose_backend
from holdwater.train.finetune.step.captured import CapturedBackend
from holdwater.train.finetune.step.static_step import StaticStep
from holdwater.train.flat import FlatAdamW, FlatWeights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TOKENS, WIDTH, INNER = 300, 512, 1536


def draw(*size: int) -> torch.Tensor:
    """Random values as weights have them."""
    return torch.randn(size, device="cuda", dtype=torch.bfloat16)


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The relative distance of two tensors."""
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.fixture
def fast() -> Any:
    """The kernels of the device."""
    torch.manual_seed(0)
    from holdwater.train.finetune.fused import triton_kernels

    return triton_kernels


def spans(*sizes: int) -> torch.Tensor:
    """Where examples of some lengths begin and end."""
    ends = torch.tensor(sizes).cumsum(0)
    both = torch.stack([ends - torch.tensor(sizes), ends])
    return both.repeat_interleave(torch.tensor(sizes), dim=1).int().cuda()


class TestKernels:
    """Each does what plain torch does, to rounding."""

    @pytest.mark.parametrize("changed", [False, True])
    def test_norm(self, fast: Any, changed: bool) -> None:
        """Forward and back, with and without a change of the stream."""
        rows, weight, delta = draw(TOKENS, WIDTH), draw(WIDTH), draw(TOKENS, WIDTH + 40)
        made: list[list[torch.Tensor]] = []
        grad, before = draw(TOKENS, WIDTH), draw(TOKENS, WIDTH + 64)
        for kernels in (plain, fast):
            total, normed, again = (torch.full_like(rows, 7) for _ in range(3))
            scale, into = torch.empty(TOKENS, device="cuda"), before.clone()
            small = torch.full((TOKENS, 40), 7.0, device="cuda").bfloat16()[:, :24]
            change = (delta, small) if changed else (None, None)
            kernels.norm(rows, change[0], weight, 1e-5, total, normed, scale, change[1])
            kernels.norm_backward(grad, rows, weight, scale, into[:, :WIDTH], again, add=changed)
            made.append([total, normed, scale, into, again, small])

        for found, wanted in zip(made[1], made[0], strict=True):
            assert error(found, wanted) < 1e-3

    @pytest.mark.parametrize("rank", [8, 64])
    @pytest.mark.parametrize("adapted", [False, True])
    @pytest.mark.parametrize("biased", [False, True])
    def test_rotate(self, fast: Any, rank: int, adapted: bool, biased: bool) -> None:
        """With adapters, biases and grouped queries; and back."""
        heads, width = (6, 2), 64
        size = (heads[0] + 2 * heads[1]) * width
        rows, bias = draw(TOKENS, size + 3 * rank), draw(size) if biased else None
        lora_b = ([draw(6 * width, rank), draw(2 * width, rank), draw(2 * width, rank)], 2.0) if adapted else None
        angles = torch.rand(TOKENS, width // 2, device="cuda")
        tables, begins = torch.stack([angles.cos(), angles.sin()]).bfloat16(), spans(5, 95, 200)[0]
        grads = tuple(draw(TOKENS, 6 * width) for _ in range(3))
        made = []
        for kernels in (plain, fast):
            rotated, into = rows.clone(), torch.zeros_like(rows)
            kernels.rotate(rotated, bias, heads, tables, begins, lora_b)
            kernels.rotate_backward(grads, heads, tables, begins, into[:, :size])
            made.append((rotated, into))

        assert error(made[1][0], made[0][0]) < 5e-3
        assert error(made[1][1], made[0][1]) < 1e-3

    @pytest.mark.parametrize(("heads", "width"), [((6, 2), 64), ((32, 8), 128), ((4, 4), 32)])
    def test_norms_of_heads(self, fast: Any, heads: tuple[int, int], width: int) -> None:
        """Forward and back; values and what lies beside them stay."""
        size = (heads[0] + 2 * heads[1]) * width
        rows, grad, gains = draw(TOKENS, size + 24), draw(TOKENS, size), (draw(width), draw(width))
        made = []
        for kernels in (plain, fast):
            own, out = rows.clone(), torch.full_like(grad, 7)
            kernels.norm_heads(own, gains, heads, 1e-6, out)
            kernels.norm_heads_backward(grad, own, gains, heads, 1e-6)
            made.append((out, own))

        assert error(made[1][0], made[0][0]) < 1e-3
        assert error(made[1][1][:, :size], made[0][1][:, :size]) < 1e-3
        assert torch.equal(made[1][1][:, size:], rows[:, size:])

    @pytest.mark.parametrize(("tokens", "inner", "rank"), [
        (TOKENS, INNER, 0), (TOKENS, INNER, 8), (TOKENS, INNER, 64), (1100, 1544, 24), (1100, 1544, 128),
    ])  # fmt: skip
    def test_gate(self, fast: Any, tokens: int, inner: int, rank: int) -> None:
        """With adapters, of sizes that fill no last block; and back."""
        pairs, grad = draw(tokens, 2 * inner + 2 * rank), draw(tokens, inner)
        lora_b = ([draw(inner, rank), draw(inner, rank)], 0.5) if rank else None
        made = []
        for kernels in (plain, fast):
            own, out, grad_out = pairs.clone(), torch.full_like(grad, 7), grad.clone()
            kernels.gate(own, out, lora_b)
            opened = own.clone()
            kernels.gate_backward(grad_out, own[:, : 2 * inner])
            made.append((opened, out, grad_out, own))

        for found, wanted in zip(made[1], made[0], strict=True):
            assert error(found, wanted) < 5e-3

    @pytest.mark.parametrize(("tokens", "rank", "widths"), [
        (512, 64, (4096, 1024, 1024)), (77, 8, (256, 256)), (512, 16, (4096,)), (130, 24, (14336, 14336)),
        (65, 100, (4096, 1024, 1024)), (512, 128, (14336, 14336)),
    ])  # fmt: skip
    @pytest.mark.parametrize("add", [False, True])
    def test_lora_b_backward(self, fast: Any, tokens: int, rank: int, widths: tuple[int, ...], add: bool) -> None:
        """As in float64, and the same each time; what the first matrices gave lies beside, or elsewhere."""
        outer = sum(widths)
        grad, workspace = draw(tokens, outer + rank * len(widths)), draw(tokens, 4096)
        lora_b = ([draw(width, rank) for width in widths], 0.5)
        apart = draw(tokens, rank * len(widths) + 8)
        before = [torch.randn(width, rank, device="cuda") for width in widths]
        exact = ([matrix.double() for matrix in lora_b[0]], 0.5)
        for small in (None, apart):
            made = []
            for known in (lora_b, lora_b, exact):
                own = grad.double() if known is exact else grad.clone()
                into = [one.to(known[0][0].dtype if known is exact else one.dtype, copy=True) for one in before]
                given = own[:, outer:] if small is None else small.to(own.dtype)
                kernels = plain if known is exact else fast
                chunk = fast.chunk_of(grad, lora_b, workspace)
                kernels.lora_b_backward(own, given, known, into, torch.randn_like(workspace), chunk=chunk, add=add)
                made.append([own[:, :outer], own[:, outer:], *into])

            for found, again, wanted in zip(*made, strict=True):
                assert torch.equal(found, again)
                assert error(found, wanted) < 3e-3
            assert torch.equal(made[0][0], grad[:, :outer])

    def test_sums_do_not_depend_on_who_makes_the_other_gradients(self, fast: Any) -> None:
        """Those of second matrices may be made elsewhere."""
        grad, lora_b, workspace = draw(130, 512 + 16), ([draw(512, 16)], 0.5), draw(130, 4096)
        beside, made = grad.clone(), [torch.zeros(512, 16, device="cuda")]
        fast.lora_b_backward(beside, beside[:, 512:], lora_b, made, workspace, chunk=256, add=False)
        fast.lora_b_backward(grad, grad[:, 512:], lora_b, (), workspace, chunk=256, add=False)

        assert torch.equal(grad, beside)

    def test_large_ranks_are_left_alone(self, fast: Any) -> None:
        """Their tiles would not fit into shared memory."""
        grad, workspace = draw(64, 4096 + 256), draw(64, 4096)

        assert fast.chunk_of(grad, ([draw(4096, 256)], 0.5), workspace) is None
        assert fast.chunk_of(grad, ([draw(4096, 128)], 0.5), workspace) == 256
        assert not fast.adds_to_gates(4096, ([draw(4096, 256)] * 2, 0.5))
        assert fast.adds_to_gates(4096, ([draw(4096, 128)] * 2, 0.5))

    def test_cross_entropy(self, fast: Any) -> None:
        """With weights, and targets that are ignored."""
        logits, targets = 3 * draw(TOKENS, 5000), torch.randint(0, 5000, (TOKENS,), device="cuda")
        targets[::7] = -100
        weights = torch.rand(TOKENS, device="cuda")
        made = []
        for kernels in (plain, fast):
            own, losses = logits.clone(), torch.empty(TOKENS, device="cuda")
            kernels.cross_entropy(own, targets, weights, losses)
            made.append((own, losses))

        assert error(made[1][0], made[0][0]) < 1e-3
        assert error(made[1][1], made[0][1]) < 1e-5

    def test_drop(self, fast: Any) -> None:
        """A share of zeros, the same again for the same seed, others for another."""
        rows, seed = draw(TOKENS, WIDTH), torch.tensor([5], device="cuda")
        one, other, added = torch.empty_like(rows), torch.empty_like(rows), torch.zeros_like(rows)
        fast.drop(rows, 0.25, seed, 3, one)
        fast.drop(rows, 0.25, seed + 1, 3, other)
        fast.add_dropped(rows, 0.25, seed, 3, added)

        assert (one == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
        assert error(one[one != 0], (rows / 0.75)[one != 0]) < 5e-3
        assert torch.equal(one, added)
        assert not torch.equal(one, other)

    @pytest.mark.parametrize("sizes", [(300,), (5, 9, 100, 1, 1, 1, 183), (64,) * 8, (1,) * 50 + (200, 7)])
    def test_attention(self, fast: Any, sizes: tuple[int, ...]) -> None:
        """Of examples of any length, forward and back, the same to the bit each time."""
        tokens, heads, width = sum(sizes), (8, 2), 64
        rows, grad, where = draw(tokens, 12 * width + 24), draw(tokens, 8 * width), spans(*sizes)
        made = []
        for kernels in (plain, fast, fast):
            out, *into = (torch.full((tokens, 8 * width), torch.nan, device="cuda").bfloat16() for _ in range(4))
            logsumexp, delta = (torch.empty(8, tokens, device="cuda") for _ in range(2))
            own = rows[:, : 12 * width]
            kernels.attend(own, heads, where[0], out, logsumexp)
            kernels.attend_backward(own, heads, where, out, logsumexp, delta, grad, tuple(into))
            made.append([out, *into])

        for wanted, found, again in zip(*made, strict=True):
            assert error(found, wanted) < 1e-2
            assert torch.equal(found, again)


def small_model(rank: int = 8, dropout: float = 0.0, family: str = "Llama") -> Any:
    """A model of five layers on the device, with adapters that do something."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=1000, hidden_size=256, intermediate_size=512, num_hidden_layers=5, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=256,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).cuda()
    add_adapters(model, LoraConfig(rank=rank, dropout=dropout))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
        elif "norm" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    return model


def own_losses(*, captured: bool, again: bool, whole: bool) -> tuple[list[float], int]:
    """Losses of a model of another kind, and the calls to the allocator of its last four steps."""
    import transformers

    torch.manual_seed(0)
    config = transformers.Olmo2Config(
        vocab_size=1024, hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).train()
    if not whole:
        add_adapters(model.to(torch.bfloat16), LoraConfig(rank=8))
    settings: Any = SimpleNamespace(
        train_seq_length=128,
        device="cuda",
        weight_decay=0.0,
        gradient_clip=1.0,
        batch_size=1,
        non_finite="stop",
    )
    backend = choose_backend(
        model, settings, WeightPlacement("cuda"), StepPlan(rows=1, recomputed=3 if again else 0)
    )
    assert isinstance(backend, CapturedBackend)
    backend.recording.enabled = captured
    rows, losses, asked = batch(60, 68), [], 0
    for number in range(8):
        if number == 4:
            asked = torch.cuda.memory_stats()["allocation.all.allocated"]
        backend.clear()
        backend.propagate(rows, 1.0, seed=number)
        backend.update(1e-3)
        losses.append(backend.loss())
    return losses, torch.cuda.memory_stats()["allocation.all.allocated"] - asked


def batch(*sizes: int, length: int = 128) -> Packed:
    """A row of examples of random tokens."""
    return pack([[Example(torch.randint(2, 1000, (size,)).tolist(), [True] * size) for size in sizes]], length)


def static(
    model: Any, *, captured: bool = True, recomputed: int = 0, offloaded: bool = False
) -> tuple[StaticStep, FlatWeights]:
    """The steps of a model."""
    from holdwater.train.finetune.fused.update_kernels import FlatUpdate

    decoder = Decoder(model, WeightPlacement("cuda"))
    weights = FlatWeights.of(model, decoder.trained, WeightPlacement("cuda").take_trained)
    decoder.bind()
    decoder.prepare(128, StepPlan(rows=2, recomputed=recomputed, offloaded=offloaded))
    update = FlatUpdate(weights, FlatAdamW(weights, weight_decay=0.01), decoder.copies())
    step = StaticStep(decoder, lambda rate, loss: update(rate, loss, largest_norm=0.5), rows=2, length=128)
    step.recording.enabled = captured
    return step, weights


class TestCapturedAutograd:
    """A model whose steps run under autograd."""

    @pytest.mark.parametrize("whole", [False, True])
    @pytest.mark.parametrize("again", [False, True])
    def test_captured_steps_are_those_of_eager_ones_to_the_bit(self, again: bool, whole: bool) -> None:
        """Also where layers are computed again or all weights are trained, and without a call to the allocator."""
        losses, calls = zip(
            *(own_losses(captured=captured, again=again, whole=whole) for captured in (True, False)), strict=True
        )

        assert losses[0] == losses[1]
        assert calls[0] == 0


class TestWhole:
    """Steps of a small model."""

    @pytest.mark.parametrize("family", ["Llama", "Qwen3"])
    def test_gradients_are_as_near_to_the_truth_as_the_models_own(self, family: str) -> None:
        """Both in bfloat16, the truth in float32."""
        rows = batch(60, 50)
        grads = []
        for own in (True, False):
            model = small_model(family=family)
            model = model.float() if own else model
            packed_loss(model, rows.to("cuda"), chunk=64).backward()  # type: ignore[no-untyped-call]
            grads.append({n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None})
        model = small_model(family=family)
        step, _ = static(model)
        step.clear()
        step.propagate(rows, rows.weight, seed=0)
        found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}

        truth, peer = grads
        ours = [error(found[name], truth[name]) for name in truth]
        theirs = [error(peer[name], truth[name]) for name in truth]
        assert sum(ours) < 1.2 * sum(theirs)

    @pytest.mark.parametrize("family", ["Llama", "Qwen3"])
    @pytest.mark.parametrize(("recomputed", "offloaded"), [(0, False), (2, False), (5, True)])
    def test_captured_steps_are_those_of_eager_ones_to_the_bit(
        self, recomputed: int, offloaded: bool, family: str
    ) -> None:
        """With dropout, accumulation and two sizes of micro-batches; also where layers are computed again."""
        small, large = batch(60, 50), pack([[Example([5] * 100, [True] * 100)]] * 2, 128)
        ends = []
        for captured in (False, True):
            step, weights = static(
                small_model(dropout=0.1, family=family),
                captured=captured,
                recomputed=recomputed,
                offloaded=offloaded,
            )
            losses = []
            for number in range(6):
                step.clear()
                for part in (small, large) if number % 2 else (small, small):
                    step.propagate(part, 0.5, seed=number)
                step.update(0.01)
                losses.append(step.loss())
            ends.append((weights.decayed.clone(), losses))

        assert torch.equal(ends[0][0], ends[1][0])
        assert ends[0][1] == ends[1][1]
        assert ends[0][1][0] > ends[0][1][-1]

    def test_a_captured_step_makes_no_call_to_the_allocator(self) -> None:
        """From the batch to the loss, counted by the allocator itself."""
        step, _ = static(small_model(dropout=0.1))
        rows = [batch(60, 50), batch(128)]

        def take(number: int) -> float:
            """One step."""
            step.clear()
            step.propagate(rows[number % 2], 1.0, seed=number)
            step.update(0.001)
            return step.loss()

        for number in range(4):
            take(number)
        before = torch.cuda.memory_stats()
        for number in range(20):
            take(number)
        after = torch.cuda.memory_stats()

        assert before["allocation.all.allocated"] == after["allocation.all.allocated"]
        assert before["reserved_bytes.all.current"] == after["reserved_bytes.all.current"]

    def test_the_update_is_that_of_torch(self) -> None:
        """AdamW with clipping, and copies that follow."""
        model = small_model()
        step, weights = static(model)
        rows = batch(100)
        step.clear()
        step.propagate(rows, 1.0, seed=0)
        reference = FlatWeights(*(part.clone() for part in (
            weights.decayed, weights.undecayed, weights.decayed_grad, weights.undecayed_grad
        )))  # fmt: skip
        FlatAdamW(reference, weight_decay=0.01).step(learning_rate=0.01, largest_norm=0.5)
        step.update(0.01)

        torch.testing.assert_close(weights.decayed, reference.decayed, rtol=1e-5, atol=1e-7)
        copies: Any = step._model
        for copy, master in copies.copies():
            assert torch.equal(copy, master.bfloat16())

    def test_states_that_wait_in_the_hosts_memory_come_back_as_they_were(self) -> None:
        """The same gradients to the bit as where they stay."""
        rows, ends = batch(60, 50), []
        for offloaded in (False, True):
            step, weights = static(small_model(), recomputed=5, offloaded=offloaded)
            for number in range(4):
                step.clear()
                step.propagate(rows, 1.0, seed=number)
                step.update(0.01)
            ends.append(weights.decayed.clone())

        assert torch.equal(ends[0], ends[1])

    @pytest.mark.parametrize("bits", [4, 8])
    def test_weights_of_few_bits_are_made_whole_as_in_plain_torch(self, bits: int) -> None:
        """Of a size that fills no last block of programs."""
        from holdwater.train.finetune.fused.quantized import dequantize, quantize
        from holdwater.train.finetune.fused.quantized_kernels import dequantize as fast_dequantize

        weight = torch.randn(333, 640, device="cuda").bfloat16()
        small, made = quantize(weight, bits, "cuda"), [torch.empty_like(weight) for _ in range(2)]
        dequantize(small, made[0])
        fast_dequantize(small, made[1])

        assert error(made[1], made[0]) < 1e-3
        assert error(made[1], weight) < (0.1 if bits == 4 else 0.01)
