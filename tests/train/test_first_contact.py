"""What `train` shows: short prompts, a speed without evaluations, text made with keys and values kept."""

import time
from pathlib import Path

import pytest
import torch

from holdwater.train.finetune.fused.decoder import StepPlan
from holdwater.train.finetune.step.captured import CapturedBackend
from holdwater.train.pretrain.model import GPT, Shape
from holdwater.train.progress import Speed, format_throughput
from tests.train.finetune.test_state import made


def test_a_sample_shows_the_end_of_a_long_prompt(tmp_path: Path) -> None:
    """At most 200 characters of it."""
    long = "hold water, " * 60
    state, texts = made(tmp_path, train_seq_length=64), iter([long, "yes"])
    state.loaded.tokenizer.decode = lambda *_, **__: next(texts)

    shown = state.sample(2)

    prompt = shown.split(" → ")[0]
    assert prompt.startswith("…")
    assert prompt[1:] == long[-199:]


def test_a_short_prompt_is_shown_as_it_is(tmp_path: Path) -> None:
    """All of it."""
    state = made(tmp_path, train_seq_length=64, rows=[{"prompt": "hold", "completion": "water"}] * 40)

    assert state.sample(2).startswith("hold → ")


def test_speed_and_time_left_leave_evaluations_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten steps a second, though an evaluation took ten seconds."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    pace = Speed(first_step=0, steps=100, tokens_in_step=1)
    now[0] += 15.0
    pace.leave_out(10.0)

    pace.measure(50, 25)

    assert pace.rate == pytest.approx(10)
    assert format_throughput(pace) == "10 tokens/s  5.0 pictures/s"
    assert pace.left(50) == pytest.approx(5)
    assert pace.elapsed == pytest.approx(15)


def test_a_loss_that_is_not_finite_does_not_stay_in_the_mean() -> None:
    """One infinite loss would hide all later ones."""
    pace = Speed(first_step=0, steps=100, tokens_in_step=1)

    for loss in (2.0, float("inf"), float("nan"), 2.0):
        pace.note(loss)

    assert pace.average == 2.0


def test_captured_models_generate_with_a_cache_as_far_as_a_row_goes(tmp_path: Path) -> None:
    """The same tokens as one pass for each token makes."""
    state = made(tmp_path, train_seq_length=16)
    model = state.loaded.model
    model.generation_config.eos_token_id = None
    backend = CapturedBackend(model, state.settings, StepPlan(rows=1))
    expected = [5, 6, 7]
    for _ in range(13):
        expected.append(int(model.eval()(torch.tensor([expected])).logits[0, -1].argmax()))

    assert backend.write([5, 6, 7], 100, padding=0) == expected
    assert backend.write(expected, 100, padding=0) == expected


class TestGenerate:
    """The small GPT with the keys and values of earlier tokens kept."""

    def test_makes_the_same_text_as_without(self) -> None:
        """As long as it fits into the model's length."""
        torch.manual_seed(0)
        model = GPT(Shape(width=32, layers=2, heads=2), vocabulary=50, length=16)
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.3)
        expected, generator = torch.tensor([[1, 2, 3]]), torch.Generator().manual_seed(0)
        for _ in range(13):
            chances = model(expected)[0, -1].softmax(-1).detach()
            expected = torch.cat((expected, torch.multinomial(chances, 1, generator=generator)[None]), dim=1)

        found = model.generate(torch.tensor([[1, 2, 3]]), 13, torch.Generator().manual_seed(0))

        assert torch.equal(found, expected)

    @pytest.mark.parametrize("begin", [1, 16, 40])
    def test_goes_on_beyond_the_models_length(self, begin: int) -> None:
        """From the last half of it."""
        model = GPT(Shape(width=32, layers=2, heads=2), vocabulary=50, length=16)

        found = model.generate(torch.ones(1, begin, dtype=torch.long), 50, torch.Generator().manual_seed(0))

        assert found.shape == (1, begin + 50)

    def test_ends_where_the_model_is_not_finite(self) -> None:
        """Nothing can be drawn then."""
        model = GPT(Shape(width=32, layers=2, heads=2), vocabulary=50, length=16)
        torch.nn.init.constant_(model.norm.weight, torch.nan)

        found = model.generate(torch.tensor([[1, 2]]), 5, torch.Generator().manual_seed(0))

        assert found.tolist() == [[1, 2]]
