"""The pytest plugin's test of repeated calls on a CUDA device: tensors that stay there, and steps that leave nothing."""

import pytest
import torch

from holdwater.testing.flat_memory import CallLimits, judge_function

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]


def test_reports_tensors_that_stay_on_the_device() -> None:
    """A kilobyte a call, with the list that holds it."""
    history: list[torch.Tensor] = []

    def step() -> None:
        history.append(torch.ones(256, device="cuda"))

    verdict = judge_function(step, CallLimits(steps=1500))

    assert (verdict.kind, verdict.component) == ("leak", "device.active")
    assert verdict.explanation is not None
    assert "history" in {site.name for site in verdict.explanation.sites}


def test_ignores_a_training_step() -> None:
    """Weights, gradients and the optimizer's state come in the first calls."""
    model = torch.nn.Linear(64, 64).cuda()
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        model(torch.randn(16, 64, device="cuda")).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    assert judge_function(step).kind == "flat"
