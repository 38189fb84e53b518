"""A loss that is not finite on a CUDA device: captured and fused steps are skipped without a wait for the device."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch

from holdwater.config import gather
from holdwater.train.finetune.state import TuneState, new_tuning
from holdwater.train.finetune.step.captured import CapturedBackend
from holdwater.train.finetune.step.fused import FusedBackend
from holdwater.train.loop import recovering_step
from holdwater.train.settings import train_settings
from tests.small_models import make_model

if TYPE_CHECKING:
    from holdwater.train.finetune.step.backends import TextBackend

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]
BACKENDS = {"Llama": FusedBackend, "GPT2": CapturedBackend}


def made(folder: Path, family: str, how: str) -> TuneState:
    """A state from flags, on the device."""
    make_model(folder / "model", family, heads=1)
    rows = [{"text": f"{number} holds water"} for number in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = {"model": str(folder / "model"), "data": str(folder / "rows.jsonl"), "device": "cuda"}
    given = {**flags, "train_seq_length": "32", "non_finite": how}
    settings = train_settings(gather(flags=given, environment={}), folder / "run")
    assert settings.tuning is not None
    settings.out.mkdir()
    return new_tuning(settings, settings.tuning)


def held(state: Any) -> list[torch.Tensor]:
    """A copy of weights and moments."""
    backend = state.backend
    return [tensor.clone() for tensor in (backend.weights.tensors() | backend.optimizer.tensors()).values()]


@pytest.mark.parametrize("family", BACKENDS)
def test_a_skipped_step_changes_nothing(tmp_path: Path, family: str) -> None:
    """Before capture and in replay; the steps between are taken."""
    state = made(tmp_path, family, "skip")
    step, state.rate = recovering_step(state.settings, state), 0.01
    assert isinstance(state.backend, BACKENDS[family])
    for number in range(8):
        before, batch = held(state), state.batches.draw("cuda")
        spoilt = number in {1, 6}
        loss = step.take([replace(batch, weights=batch.weights + torch.inf) if spoilt else batch])
        state.step += 1
        unchanged = all(map(torch.equal, before, held(state)))
        assert unchanged is spoilt, number
        assert (loss - loss == 0) is not spoilt
    assert state.backend.optimizer.steps == 6
    assert state.first_non_finite() == ""


@pytest.mark.parametrize("family", BACKENDS)
def test_generated_text_is_the_models_own(tmp_path: Path, family: str) -> None:
    """With or without keys and values kept, and no further than a row."""
    state = made(tmp_path, family, "stop")
    begin = [5, 6, 7]

    written = cast("TextBackend", state.backend).write(begin, 100, padding=0)

    assert written[:3] == begin
    assert len(written) <= 32
