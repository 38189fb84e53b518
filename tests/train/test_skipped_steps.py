"""`--non-finite skip`: a step with a loss or a gradient that is not finite changes nothing, the next one does."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from holdwater import Guard
from holdwater.config import gather
from holdwater.guard.summary import join_summaries
from holdwater.train.finetune.fused.decoder import StepPlan
from holdwater.train.finetune.step.captured import CapturedBackend
from holdwater.train.finetune.step.eager import EagerBackend
from holdwater.train.finetune.step.fused import FusedBackend
from holdwater.train.flat import first_non_finite
from holdwater.train.loop import recovering_step
from holdwater.train.pretrain.fused_step import FusedStep
from holdwater.train.pretrain.state import TrainState, new_state
from holdwater.train.pretrain.text import tokenise
from holdwater.train.settings import train_settings
from tests.train.finetune.test_state import made


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small steps."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pretraining(how: str) -> TrainState:
    """A model from scratch."""
    flags = {"preset": "tiny", "train_seq_length": "16", "device": "cpu", "non_finite": how}
    settings = train_settings(gather(flags=flags, environment={}), Path("run"))
    text = b"hold water, hold fast\n" * 200
    return new_state(settings, tokenise(text, settings.level, validation_share=0.1, length=16))


def held(state: Any) -> dict[str, Tensor]:
    """A copy of weights and moments."""
    optimizer, weights = getattr(state, "backend", state).optimizer, getattr(state, "backend", state).weights
    return {name: tensor.clone() for name, tensor in (weights.tensors() | optimizer.tensors()).items()}


def same(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    """Whether nothing has changed, to the bit."""
    return all(torch.equal(tensor, after[name]) for name, tensor in before.items())


class TestPretraining:
    """The fused steps of the small GPT."""

    @pytest.mark.parametrize("poisoned", ["loss", "gradient"])
    def test_a_step_that_is_not_finite_changes_nothing(
        self, poisoned: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A loss may be infinite while all gradients are finite, and the other way round."""
        state = pretraining("skip")
        step, state.rate = recovering_step(state.settings, state), 0.01
        step.take([state.batches.draw("cpu")])
        before, propagate = held(state), FusedStep.propagate

        def poison(self: FusedStep, tokens: Tensor, targets: Tensor, *, share: float = 1.0) -> Tensor:
            """Spoil one of the two."""
            loss = propagate(self, tokens, targets, share=share)
            if poisoned == "gradient":
                state.weights.undecayed_grad[3] = torch.nan
            return loss if poisoned == "gradient" else loss + torch.inf

        with monkeypatch.context() as patched:
            patched.setattr(FusedStep, "propagate", poison)
            step.take([state.batches.draw("cpu")])
        skipped = held(state)
        step.take([state.batches.draw("cpu")])

        assert same(before, skipped)
        assert not same(before, held(state))
        assert state.optimizer.steps == 2
        assert state.first_non_finite() == ""

    def test_a_run_without_such_a_step_is_the_same_to_the_bit(self) -> None:
        """Looking changes nothing."""
        ends = []
        for how in ("stop", "skip", "continue"):
            state = pretraining(how)
            step, state.rate = recovering_step(state.settings, state), 0.01
            for _ in range(5):
                step.take([state.batches.draw("cpu")])
            ends.append(held(state))

        assert same(ends[0], ends[1])
        assert same(ends[0], ends[2])


class TestFineTuning:
    """Adapters, eagerly and by fused steps."""

    @pytest.mark.parametrize("quantize", [None, "8"])
    def test_a_step_that_is_not_finite_changes_nothing(self, tmp_path: Path, quantize: str | None) -> None:
        """Rows whose weights are infinite give a loss that is."""
        state = made(tmp_path, train_seq_length=16, quantize=quantize, non_finite="skip")
        step, state.rate = recovering_step(state.settings, state), 0.01
        step.take([state.batches.draw("cpu")])
        before, batch = held(state), state.batches.draw("cpu")

        loss = step.take([replace(batch, weights=batch.weights + torch.inf)])
        skipped = held(state)
        step.take([state.batches.draw("cpu")])

        assert isinstance(state.backend, EagerBackend if quantize is None else FusedBackend)
        assert loss - loss != 0
        assert same(before, skipped)
        assert not same(before, held(state))

    def test_a_captured_step_changes_nothing_either(self, tmp_path: Path) -> None:
        """Without a device its functions run as they are; the loss is read from where a graph would leave it."""
        state = made(tmp_path, train_seq_length=16, non_finite="skip")
        backend = CapturedBackend(state.loaded.model, state.settings, StepPlan(rows=1))
        state.backend = backend
        step, state.rate = recovering_step(state.settings, state), 0.01
        step.take([state.batches.draw("cpu")])
        before, batch = held(state), state.batches.draw("cpu")

        loss = step.take([replace(batch, weights=batch.weights + torch.inf)])
        skipped = held(state)
        step.take([state.batches.draw("cpu")])

        assert loss - loss != 0
        assert same(before, skipped)
        assert not same(before, held(state))
        assert backend.optimizer.steps == 2

    def test_what_is_not_finite_is_named(self, tmp_path: Path) -> None:
        """Among weights and moments; parts that are empty count as finite."""
        state = made(tmp_path, train_seq_length=16)
        fine = state.first_non_finite()
        state.backend.optimizer.second[0][5] = torch.inf

        assert (fine, state.first_non_finite()) == ("", "second.decayed")
        assert first_non_finite({"empty": torch.empty(0), "one": torch.tensor([1.0, torch.nan])}) == "one"


class TestGuard:
    """Any loop that reports its loss."""

    @pytest.mark.parametrize(
        ("losses", "expected"),
        [
            ([1.0, 2.0], {"first_nonfinite_step": None}),
            ([1.0, float("nan"), 2.0, float("inf")], {"first_nonfinite_step": 2}),
            ([torch.tensor(torch.inf)], {"first_nonfinite_step": 1}),
            ([None, None], None),
        ],
        ids=["finite", "not finite", "a tensor", "none reported"],
    )
    def test_the_summary_has_the_first_step(self, losses: list[Any], expected: object) -> None:
        """Null where all were finite; nothing where the loop reports none."""
        with Guard(max_memory="8GB") as guard:
            for loss in losses:
                guard.step(loss=loss)
        summary = guard.summary()

        assert summary.get("loss") == expected
        assert join_summaries([summary, summary]).get("loss") == expected

    def test_a_loss_that_is_not_finite_is_in_no_mean(self) -> None:
        """The curve shows the others."""
        with Guard(max_memory="8GB") as guard:
            guard._next_sample = 10**9
            for loss in (1.0, float("inf"), 3.0):
                guard.step(loss=loss)
            mean = guard._losses.take_mean()

        assert mean == 2.0
