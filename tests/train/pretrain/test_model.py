"""The model: its written-out block equals the plain one, its sizes are those promised."""

import pytest
import torch
from torch import Tensor

from holdwater.train.flat import FlatAdamW, FlatWeights
from holdwater.train.pretrain.fused_step import FusedStep
from holdwater.train.pretrain.model import GPT, PRESETS, Shape
from holdwater.train.schedule import learning_rate

SHAPE = Shape(width=32, layers=2, heads=2)


def new_model(seed: int = 0) -> GPT:
    """A very small model."""
    torch.manual_seed(seed)
    return GPT(SHAPE, vocabulary=50, length=16)


def batch(rows: int = 3, length: int = 16) -> tuple[Tensor, Tensor]:
    """Random tokens and targets."""
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randint(0, 50, (rows, length), generator=generator),
        torch.randint(0, 50, (rows, length), generator=generator),
    )


class TestPresets:
    """Sizes of the presets."""

    @pytest.mark.parametrize(
        ("preset", "parameters"),
        [("tiny", 46_368), ("small", 429_568), ("medium", 3_225_088), ("large", 19_046_400)],
    )
    def test_have_the_promised_number_of_parameters(self, preset: str, parameters: int) -> None:
        """46 thousand, 0.43 million, about 3 million; large has width 512 and 6 layers."""
        model = GPT(PRESETS[preset], vocabulary=256, length=64)

        assert sum(weight.numel() for weight in model.parameters()) == parameters


class TestWrittenOut:
    """Loss and gradients, fused for the CPU."""

    @pytest.mark.parametrize(("rows", "length"), [(1, 16), (3, 16), (2, 7)])
    def test_gives_the_gradients_of_the_model(self, rows: int, length: int) -> None:
        """Loss and every gradient, to rounding."""
        plain, flat = new_model().double(), new_model().double()
        FlatWeights.of(flat)
        tokens, targets = batch(rows, length)

        expected = plain.loss(tokens, targets)
        expected.backward()  # type: ignore[no-untyped-call]
        loss = FusedStep(flat, batch=rows, time=length).propagate(tokens, targets)

        torch.testing.assert_close(loss, expected)
        for (name, weight), other in zip(flat.named_parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(weight.grad, other.grad, msg=name)

    def test_adds_to_gradients_over_micro_batches(self) -> None:
        """Accumulation: two halves, at half weight, give the gradient of the whole."""
        whole, halves = new_model().double(), new_model().double()
        FlatWeights.of(whole)
        FlatWeights.of(halves)
        tokens, targets = batch(4)

        FusedStep(whole, batch=4, time=16).propagate(tokens, targets)
        half = FusedStep(halves, batch=2, time=16)
        for part in (slice(0, 2), slice(2, 4)):
            half.propagate(tokens[part], targets[part], share=0.5)

        for one, other in zip(whole.parameters(), halves.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)

    def test_follows_the_model_through_training(self) -> None:
        """Thirty steps of both end at the same weights, to rounding."""
        plain, flat = new_model().double(), new_model().double()
        ours, theirs = FlatWeights.of(flat), FlatWeights.of(plain)
        fused = FusedStep(flat, batch=3, time=16)
        optimizers = [FlatAdamW(weights, weight_decay=0.1) for weights in (ours, theirs)]
        tokens, targets = batch()

        for _ in range(30):
            ours.clear_gradients()
            theirs.clear_gradients()
            fused.propagate(tokens, targets)
            plain.loss(tokens, targets).backward()  # type: ignore[no-untyped-call]
            for optimizer in optimizers:
                optimizer.step(learning_rate=0.01, largest_norm=1.0)

        for one, other in zip(flat.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


class TestFlatAdamW:
    """The optimizer on flat weights."""

    @pytest.mark.parametrize("largest_norm", [0.01, 1e9], ids=["clipped", "not clipped"])
    def test_updates_as_pytorch_does(self, largest_norm: float) -> None:
        """Ten steps against torch.optim.AdamW and clip_grad_norm_."""
        plain, flat = new_model().double(), new_model().double()
        weights = FlatWeights.of(flat)
        ours = FlatAdamW(weights, weight_decay=0.1)
        groups = [
            {"params": [w for w in plain.parameters() if w.dim() > 1], "weight_decay": 0.1},
            {"params": [w for w in plain.parameters() if w.dim() <= 1], "weight_decay": 0.0},
        ]
        theirs = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95))
        tokens, targets = batch()

        for _ in range(10):
            plain.zero_grad()
            weights.clear_gradients()
            plain.loss(tokens, targets).backward()  # type: ignore[no-untyped-call]
            flat.loss(tokens, targets).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(plain.parameters(), largest_norm)
            theirs.step()
            ours.step(learning_rate=0.01, largest_norm=largest_norm)

        for one, other in zip(flat.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)

    def test_takes_no_memory_per_step(self) -> None:
        """Weights and gradients stay where they were laid out."""
        model = new_model()
        weights = FlatWeights.of(model)
        optimizer = FlatAdamW(weights, weight_decay=0.1)
        places = [(w.data_ptr(), w.grad.data_ptr()) for w in model.parameters() if w.grad is not None]

        for _ in range(3):
            weights.clear_gradients()
            model.loss(*batch()).backward()  # type: ignore[no-untyped-call]
            optimizer.step(learning_rate=0.01, largest_norm=1.0)

        assert places == [(w.data_ptr(), w.grad.data_ptr()) for w in model.parameters() if w.grad is not None]


class TestSchedule:
    """The learning rate over a run."""

    @pytest.mark.parametrize(("step", "rate"), [(1, 0.01), (50, 0.5), (100, 1.0), (550, 0.55), (1000, 0.1)])
    def test_rises_and_falls(self, step: int, rate: float) -> None:
        """Linear to the peak, half a cosine to a tenth."""
        assert learning_rate(step, peak=1.0, warmup=100, steps=1000) == pytest.approx(rate)

    def test_a_run_without_warmup_begins_at_the_peak(self) -> None:
        """Nothing is divided by zero."""
        assert learning_rate(1, peak=1.0, warmup=0, steps=1_000_000) == pytest.approx(1.0)


def test_generated_text_does_not_touch_the_randomness_of_training() -> None:
    """A sample of text between two steps changes nothing."""
    model = new_model()
    before = torch.get_rng_state()

    tokens = model.generate(torch.tensor([[1, 2]]), 5, torch.Generator().manual_seed(0))

    assert tokens.shape == (1, 7)
    assert torch.equal(before, torch.get_rng_state())
