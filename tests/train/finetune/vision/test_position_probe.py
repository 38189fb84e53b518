"""Which pictures may share a pass, found out with towers that stand in for a device's kernels."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from holdwater.train.finetune.vision.budgets import Rule
from holdwater.train.finetune.vision.position_probe import find_rule
from holdwater.train.finetune.vision.static_tower import Inputs

BUDGETS = (8, 20, 64)


class StandIn:
    """A tower whose features are its pixels, and perhaps a little of the budget or of the position."""

    def __init__(self, *, budget: float = 0, position: float = 0, most: int = 32) -> None:
        self.budget, self.position, self.most = budget, position, most
        self.seen: set[tuple[int, int]] = set()

    def size(self, inputs: Inputs) -> int | None:
        """Its pixels."""
        return len(inputs["pixels"])

    def example(self, places: int, seed: int) -> Inputs:
        """Noise, of an even number of places; one picture cannot have fewer than two."""
        noise = torch.randn(max(2, places // 2 * 2), 1, generator=torch.Generator().manual_seed(seed))
        return {"pixels": noise}

    def run(self, pictures: Sequence[Inputs], budget: int) -> list[tuple[Tensor, ...]]:
        """One pass."""
        assert len(pictures) <= self.most
        assert sum(len(one["pixels"]) for one in pictures) <= budget
        self.seen.add((len(pictures), budget))
        found: list[tuple[Tensor, ...]] = []
        at = 0
        for one in pictures:
            found.append((one["pixels"] + self.budget * budget + self.position * at,))
            at += len(one["pixels"])
        return found


class TestRule:
    """The freest one under which bits do not differ."""

    def test_any_where_bits_never_differ(self) -> None:
        """Each budget is tried with several pictures."""
        tower = StandIn()

        assert find_rule(tower.run, tower, BUDGETS) is Rule.ANY
        assert {budget for count, budget in tower.seen if count > 1} == set(BUDGETS)

    def test_home_where_budgets_differ(self) -> None:
        """But not positions."""
        tower = StandIn(budget=1e-3)

        assert find_rule(tower.run, tower, BUDGETS) is Rule.HOME

    @pytest.mark.parametrize("budget", [0.0, 1e-3])
    def test_alone_where_positions_differ(self, budget: float) -> None:
        """Whatever budgets do."""
        tower = StandIn(budget=budget, position=1e-3)

        assert find_rule(tower.run, tower, BUDGETS) is Rule.ALONE

    def test_one_budget_is_enough(self) -> None:
        """There is nothing to compare it with."""
        tower = StandIn(budget=1e-3)

        assert find_rule(tower.run, tower, (16,)) is Rule.ANY

    def test_a_budget_of_one_picture(self) -> None:
        """Nothing shares it."""
        tower = StandIn(position=1e-3)

        assert find_rule(tower.run, tower, (2,)) is Rule.ANY

    def test_no_more_pictures_than_a_pass_takes(self) -> None:
        """Which the tower that stands in checks."""
        tower = StandIn(most=3)

        assert find_rule(tower.run, tower, BUDGETS) is Rule.ANY
