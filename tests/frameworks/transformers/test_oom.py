"""A trainer's micro-batch that ran out of memory is propagated again, with the same gradients."""

from typing import Any

import pytest
import torch
from torch import nn

from holdwater.frameworks.transformers.oom import RecoveringTraining
from holdwater.oom.recovering_step import OneSampleTooLarge


class StandInTrainer:
    """Does what Transformers' Trainer does in `training_step`: loss, division by the accumulation, backward."""

    model_accepts_loss_kwargs = False
    compute_loss_func = None
    accumulation = 1

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The mean over target tokens, or their sum over those of the whole step."""
        losses = nn.functional.cross_entropy(
            model(inputs["x"])[:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten(), reduction="none"
        )
        count = (inputs["labels"][:, 1:] != -100).sum()
        mean: torch.Tensor = losses.sum() / (count if num_items_in_batch is None else num_items_in_batch)
        return mean

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Propagate."""
        loss = self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        if num_items_in_batch is None:
            loss = loss / self.accumulation
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


class Trainer(RecoveringTraining, StandInTrainer):
    """What a user writes."""


class Scarce(nn.Module):
    """A model that runs out of memory at some of its calls, half-way through."""

    def __init__(self, *failing: int, most_rows: int = 100) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 11)
        self.failing, self.most_rows, self.calls, self.sizes = failing, most_rows, 0, list[int]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits. Shape (rows, tokens, 11)."""
        self.calls += 1
        hidden = torch.tanh(self.first(x))
        if self.calls in self.failing or len(x) > self.most_rows:
            raise MemoryError("injected")
        self.sizes.append(len(x))
        logits: torch.Tensor = self.second(hidden)
        return logits


def window(count: int = 2) -> list[dict[str, torch.Tensor]]:
    """Micro-batches of 6 rows whose target tokens differ in number from row to row."""
    torch.manual_seed(1)
    batches = []
    for _ in range(count):
        labels = torch.randint(0, 11, (6, 7))
        for row in range(6):
            labels[row, row + 1 :] = -100
        batches.append({"x": torch.randn(6, 7, 5), "labels": labels})
    return batches


def train(model: Scarce, *, items: int | None = None) -> tuple[list[float], list[torch.Tensor]]:
    """The losses of one window, and its gradients."""
    trainer = Trainer()
    trainer.accumulation, trainer.model_accepts_loss_kwargs = 2, items is not None
    losses = [float(trainer.training_step(model, batch, items)) for batch in window()]
    return losses, [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]


class TestRecoveringTraining:
    """Same gradients, whatever ran out of memory; and a limit to patience."""

    @pytest.mark.parametrize("items", [None, 40])
    @pytest.mark.parametrize("call", [1, 2])
    def test_a_lack_of_memory_changes_no_bit(self, call: int, items: int | None) -> None:
        """In the first micro-batch of a window or in the second, where gradients are there already."""
        assert_same(train(Scarce(call), items=items), train(Scarce(), items=items), tolerance=0)

    @pytest.mark.parametrize("items", [None, 40])
    def test_smaller_parts_have_the_same_gradients(self, items: int | None) -> None:
        """At most 2 rows fit: equal to rounding, though target tokens differ from part to part."""
        scarce = Scarce(most_rows=2)

        found = train(scarce, items=items)

        assert max(scarce.sizes) <= 2
        assert_same(found, train(Scarce(), items=items), tolerance=1e-6)

    def test_stops_where_not_one_sample_fits(self) -> None:
        """Gradients are as before."""
        model = Scarce(most_rows=0)

        with pytest.raises(OneSampleTooLarge, match="not even one sample"):
            train(model)

        assert all(weight.grad is None for weight in model.parameters())

    def test_other_failures_are_left_alone(self) -> None:
        """A bug is a bug."""
        with pytest.raises(RuntimeError, match="shapes"):
            Trainer().training_step(Scarce(), {"x": torch.randn(6, 7, 4), "labels": torch.zeros(6, 7)})


def assert_same(found: Any, wanted: Any, *, tolerance: float) -> None:
    """Losses and gradients agree."""
    assert found[0] == pytest.approx(wanted[0], rel=tolerance, abs=0)
    for one, other in zip(found[1], wanted[1], strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_a_real_trainer_learns_the_same(tmp_path: Any) -> None:
    """Transformers' own, over a small Llama, with accumulation: one lack of memory changes no bit of the weights."""
    transformers = pytest.importorskip("transformers", reason="Transformers is not installed")
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    rows = [{"input_ids": torch.randint(0, 64, (12,)), "labels": torch.randint(0, 64, (12,))} for _ in range(32)]

    def learn(*failing: int) -> list[torch.Tensor]:
        """Train for four steps."""
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(config)
        calls = [0]

        def fail(*_: Any) -> None:
            """Run out of memory at some calls."""
            calls[0] += 1
            if calls[0] in failing:
                raise MemoryError("injected")

        model.model.layers[1].register_forward_hook(fail)
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path), per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=4,
            report_to=[], save_strategy="no", disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        kind = type("Recovering", (RecoveringTraining, transformers.Trainer), {})
        kind(model=model, args=arguments, train_dataset=rows).train()
        return list(model.parameters())

    for one, other in zip(learn(2, 5), learn(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
