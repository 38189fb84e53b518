"""What captured parts of a run on pictures take: passes of the tower, and fused steps of the language model."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from holdwater.train.finetune.fused.decoder import StepPlan
from holdwater.train.finetune.planner import CachingAllocator, Peak
from holdwater.train.finetune.planner.fused import CONTEXT, Planned, sizes_of
from holdwater.train.finetune.planner.meta_trace import trace
from holdwater.train.finetune.planner.peak import margin_of
from holdwater.train.finetune.vision.captured_tower import captured_layout, size_of_layout
from holdwater.train.finetune.vision.loading import part_of
from holdwater.train.finetune.vision.planning.tower import (
    CapturedTowerPlan,
    OnMeta,
    PictureTrace,
    TowerPlan,
    masks_select_all,
)
from holdwater.train.finetune.vision.static_tower import StaticTower
from holdwater.train.finetune.vision.tower_setup import Sampled, budgets_for, micro_batches, static_tower_of
from holdwater.units import Bytes

MARGIN = 0.03
"""Share of a plan that is kept free."""


def plan_captured_tower(model: Any, sampled: Sequence[Sampled], *, tokens: int) -> CapturedTowerPlan | None:  # noqa: ANN401
    """Trace the passes of a tower as `capture_tower` makes them; None where none is captured.

    Args:
        model: On the meta device, in the type that it is trained in.
        sampled: Examples of the run.
        tokens: Of a micro-batch.
    """
    tower = static_tower_of(model, "meta")
    steps = [] if tower is None else micro_batches(tower, sampled, tokens=tokens)
    if tower is None or not steps:
        return None
    budgets = budgets_for(tower, steps)
    passes = [_trace_pass(model, tower, budget) for budget in reversed(budgets)]
    room = size_of_layout(captured_layout(tower, budgets[-1]))
    return CapturedTowerPlan(passes, buffers=[room, *passes[0].features])


def _trace_pass(model: Any, tower: StaticTower, budget: int) -> PictureTrace:  # noqa: ANN401 - of Transformers
    """Trace one pass."""
    parts = {
        name: torch.empty(spec.shape, dtype=spec.dtype, device="meta")
        for name, spec in tower.layout(budget).items()
    }
    made: list[int] = []

    @torch.no_grad()
    def run() -> None:
        """The whole pass."""
        with OnMeta(), tower.ready():
            made.extend(one.nbytes for one in tower.forward(parts, budget))

    with masks_select_all():
        found = trace(run, [*model.parameters(), *model.buffers(), *tower.tensors(), *parts.values()])
    return PictureTrace(found, tuple(made))


class FusedSteps:
    """Fused steps of a language model under pictures, beside its frozen tower."""

    def __init__(self, model: Any, *, length: int, bits: int | None) -> None:  # noqa: ANN401 - of Transformers
        """Take a model.

        Args:
            model: With adapters of the language model, on the meta device, in bfloat16; as `plan_captured_tower`
                has left it, and not used afterwards.
            length: Tokens of a row.
            bits: Of a frozen weight of the language model; None for its own.
        """
        named = [*model.named_parameters(), *model.named_buffers()]
        self._beside = {
            part: [one for name, one in named if part_of(name) == part] for part in ("tower", "projector")
        }
        self.planned = Planned(model, length=length, bits=bits)

    def peak(self, step: StepPlan, tower: CapturedTowerPlan | TowerPlan, buffers: Iterable[Tensor]) -> Peak:
        """Predict what a run takes.

        Args:
            step: How its steps are taken.
            tower: Its passes, captured or not.
            buffers: Of features.
        """
        allocator, roles = CachingAllocator(), dict[str, int]()

        def ask(role: str, sizes: Iterable[int]) -> None:
            """Ask for some pieces of memory."""
            for size in sizes:
                allocator.allocate(size)
                roles[role] = roles.get(role, 0) + size

        for part in self.planned.parts(step):
            ask(part.role, part.sizes)
        ask("vision tower", sizes_of(self._beside["tower"]))
        ask("projector", sizes_of(self._beside["projector"]))
        ask("feature buffers", sizes_of(buffers))
        if isinstance(tower, CapturedTowerPlan):
            ask("tower activations", tower.buffers)
        passes = tower.passes if isinstance(tower, CapturedTowerPlan) else tower.peak + tower.held(step.rows)
        roles["tower activations"] = roles.get("tower activations", 0) + passes
        reserved = allocator.peak + passes
        return Peak(
            {role: Bytes(size) for role, size in roles.items()}, Bytes(reserved), CONTEXT,
            margin_of(reserved, MARGIN),
        )  # fmt: skip
