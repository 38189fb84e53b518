"""An optimizer's step that ran out of memory is repeated only if nothing was written."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from holdwater.oom.optimizer_step import recover_steps
from holdwater.oom.recovering_step import HalfUpdated


class Scarce(torch.optim.AdamW):
    """Runs out of memory in some steps: where state is made, or after the first weight was written."""

    def __init__(self, parameters: Any, *failing: int, half: bool = False) -> None:
        super().__init__(parameters, lr=0.1)
        self.failing, self.half, self.steps = failing, half, 0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Step, or fail."""
        self.steps += 1
        if self.steps in self.failing:
            if self.half:
                self.param_groups[0]["params"][0].add_(1)
            raise MemoryError("injected")
        return super().step(closure)


def learn(*failing: int, half: bool = False, recover: bool = True) -> list[torch.Tensor]:
    """Four steps of a small model, under a scheduler; its weights."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = Scarce(model.parameters(), *failing, half=half)
    if recover:
        optimizer = recover_steps(recover_steps(optimizer))
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer)
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.ones(2, 4)).pow(2).sum().backward()
        optimizer.step()
        scheduler.step()
    return [weight.detach().clone() for weight in model.parameters()]


@pytest.mark.parametrize("failing", [(1,), (3,), (1, 2), (2, 5)])
def test_a_step_that_wrote_nothing_is_repeated(failing: tuple[int, ...]) -> None:
    """At the first step, where the state is made, and later; no bit differs, and the scheduler counts on."""
    for found, wanted in zip(learn(*failing), learn(recover=False), strict=True):
        assert torch.equal(found, wanted)


def test_a_step_that_wrote_is_refused() -> None:
    """To step again would change a weight twice: only a checkpoint is intact."""
    with pytest.raises(HalfUpdated, match="while the weights were being changed"):
        learn(2, half=True)


def test_a_step_that_never_fits_raises_what_it_raised() -> None:
    """After three attempts, and nothing was written."""
    with pytest.raises(MemoryError, match="injected"):
        learn(2, 3, 4)


class TestGroups:
    """Torch's own optimizers, which step their groups one by one."""

    def learn(self, *failing: int, recover: bool = True) -> tuple[list[torch.Tensor], int]:
        """Three steps of two groups; the weights, and how often hooks behind the step were called.

        Args:
            failing: The groups, counted through all steps, whose state cannot be made or found.
            recover: Whether to repeat.
        """
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        groups: list[dict[str, Any]] = [
            {"params": model[0].parameters(), "weight_decay": 0.1},
            {"params": model[1].parameters()},
        ]
        optimizer = torch.optim.AdamW(groups, lr=0.1)
        if recover:
            recover_steps(optimizer)
        calls = dict.fromkeys(("groups", "hooks"), 0)
        begin: Any = optimizer._init_group

        def begin_group(*arguments: Any, **named: Any) -> Any:
            calls["groups"] += 1
            if calls["groups"] in failing:
                raise MemoryError("injected")
            return begin(*arguments, **named)

        def count(*_: Any) -> None:
            calls["hooks"] += 1

        optimizer._init_group = begin_group  # type: ignore[method-assign]
        optimizer.register_step_post_hook(count)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(2, 4)).pow(2).sum().backward()
            optimizer.step(None)  # as Accelerate calls it
        return [weight.detach().clone() for weight in model.parameters()], calls["hooks"]

    @pytest.mark.parametrize("failing", [(1,), (2,), (2, 3), (4, 7)])
    def test_a_group_that_wrote_nothing_is_repeated(self, failing: tuple[int, ...]) -> None:
        """The second one too, though the first is stepped already; no bit differs."""
        found, wanted = self.learn(*failing), self.learn(recover=False)

        assert (found[1], wanted[1]) == (3, 3)
        assert all(torch.equal(one, other) for one, other in zip(found[0], wanted[0], strict=True))

    def test_a_second_group_that_never_fits_leaves_a_half_step(self) -> None:
        """It says so: the first one cannot be undone."""
        with pytest.raises(HalfUpdated, match="between two groups"):
            self.learn(2, 3, 4)
