"""Features of several pictures at once: a frozen vision tower, captured as a CUDA graph for each of a few budgets.

The pictures of a micro-batch are packed into fills of a few fixed sizes. A fill is written to pinned memory of the
host, sent by one copy, and made by replaying the graph of its budget; nothing is allocated, and nothing waits for
the device. On the CPU the same passes run eagerly. A picture larger than every budget is left to the caller.

Features must depend on the picture alone: a resumed run may find other features kept than one that was not
interrupted, and would pack what is missing differently. So `find_rule` compares bits once at the start: of the
same picture alone, at several positions, and in every budget. What it finds decides which pictures may share a
fill (`budgets.Rule`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from holdwater.train.finetune.step.static_step import GraphRecording
from holdwater.train.finetune.vision.budgets import Filled, Rule, fill, worth_having
from holdwater.train.finetune.vision.position_probe import find_rule
from holdwater.train.finetune.vision.static_tower import Inputs, Parts, StaticTower, TensorSpec

STAGINGS = 3
"""Fills that the host writes before it waits for the first one to be sent."""
PER_PASS = 256
"""What a pass costs besides its patches, in patches: small kernels do not keep a device busy."""
ALIGNED = 256
"""Bytes to which parts are aligned."""
INDEX = "places"
"""The part that says where features go."""


@dataclass(slots=True)
class _Staging:
    """Memory of the host from which a fill is sent."""

    memory: Tensor
    parts: dict[int, Parts]
    """By budget: views of the memory."""
    sent: Any
    """The event after which it can be written again; None where sending is done at once."""


class CapturedTower:
    """Makes the features of pictures, several in a pass, in memory that never moves."""

    def __init__(
        self,
        tower: StaticTower,
        budgets: Sequence[int],
        *,
        device: str,
        dtype: torch.dtype,
        steps: Sequence[Sequence[int]] = (),
    ) -> None:
        """Allocate all memory, capture a pass for each budget, and find out what may share a pass.

        Args:
            tower: Frozen, on its device.
            budgets: Places of a pass, ascending; one or more.
            device: Where the tower is.
            dtype: Of features, as they are needed.
            steps: Places of the pictures of some micro-batches: once it is known what may share a pass, budgets
                that are not worth having for them are left out. Without any, all are kept.
        """
        self._tower, self.budgets, self._dtype = tower, tuple(budgets), dtype
        on_cuda = torch.device(device).type == "cuda"
        layouts = {budget: captured_layout(tower, budget) for budget in self.budgets}
        self._sizes = {budget: size_of_layout(layout) for budget, layout in layouts.items()}
        room = max(self._sizes.values())
        self._memory = torch.zeros(room, dtype=torch.uint8, device=device)
        self._parts = {budget: _views(self._memory, layout) for budget, layout in layouts.items()}
        self._stagings: list[_Staging] = []
        for _ in range(STAGINGS):
            host = torch.zeros(room, dtype=torch.uint8, pin_memory=on_cuda)
            sent = torch.cuda.Event() if on_cuda else None  # type: ignore[no-untyped-call]
            views = {budget: _views(host, layout) for budget, layout in layouts.items()}
            self._stagings.append(_Staging(host, views, sent))
        self._made: tuple[Tensor, ...] = ()
        self.recording = GraphRecording(enabled=on_cuda)
        self.rule = self._start()
        if self.rule is Rule.HOME and steps:
            self.budgets = worth_having(
                self.budgets, steps, rule=self.rule, most=tower.most, per_pass=PER_PASS / tower.patches
            )
        self.taken, self.places = 0, 0
        """Places that held a part of a picture so far, and all places of the same passes."""

    @property
    def remark(self) -> str:
        """How much of the passes was padding, for people; empty before the first one."""
        if not self.places:
            return ""
        share = 100 * (1 - self.taken / self.places)
        return f", {share:.1f} % of the vision tower's passes was padding"

    def __str__(self) -> str:
        """How pictures are packed, for people."""
        how = {
            Rule.ANY: "any pictures share a pass",
            Rule.HOME: "pictures of about the same size share a pass",
            Rule.ALONE: "each picture has a pass of its own",
        }[self.rule]
        return f"passes of {', '.join(f'{one:,}' for one in self.budgets)} {self._tower.unit}; {how}"

    @torch.no_grad()
    def scatter(
        self,
        pictures: Sequence[Inputs],
        places: Sequence[Tensor],
        buffers: Sequence[Tensor],
        keep: Callable[[int, tuple[Tensor, ...]], None] | None = None,
    ) -> list[int]:
        """Put the features of pictures in their places.

        Args:
            pictures: In order.
            places: Of the features of each, as rows of the buffers, in the host's memory.
                Shapes (features,), int64.
            buffers: For each kind of features one; the last row takes what belongs nowhere. Shapes (rows, width).
            keep: Is given the number of a picture and its features, which the next pass overwrites.

        Returns:
            The numbers of pictures that need a pass of their own: they are not done.
        """
        nowhere = len(buffers[0]) - 1
        left: list[int] = []
        for one in self._fills(pictures):
            if one.budget is None:
                left += one.pictures
                continue
            self._send(one.budget, [pictures[number] for number in one.pictures],
                       [places[number] for number in one.pictures], nowhere)  # fmt: skip
            made = self._run(one.budget)
            for buffer, features in zip(buffers, made, strict=True):
                buffer.index_copy_(0, self._parts[one.budget][INDEX], features)
            if keep is not None:
                for number, own in zip(one.pictures, self._of_each(one, pictures, made), strict=True):
                    keep(number, own)
        return left

    def _fills(self, pictures: Sequence[Inputs]) -> list[Filled]:
        """Which go together; counts places."""
        alone = self.budgets[-1] + 1
        counts = [alone if (size := self._tower.size(one)) is None else size for one in pictures]
        fills = fill(counts, self.budgets, rule=self.rule, most=self._tower.most)
        self.taken += sum(one.patches for one in fills if one.budget is not None)
        self.places += sum(one.budget or 0 for one in fills)
        return fills

    def _of_each(
        self, one: Filled, pictures: Sequence[Inputs], made: Sequence[Tensor]
    ) -> list[tuple[Tensor, ...]]:
        """The features of each picture of a fill."""
        counts = [self._tower.features(self._tower.size(pictures[number]) or 0) for number in one.pictures]
        split = [torch.split(part[: sum(counts)], counts) for part in made]
        return list(zip(*split, strict=True))

    def _send(self, budget: int, pictures: Sequence[Inputs], places: Sequence[Tensor], nowhere: int) -> None:
        """Send a fill to the device."""
        staging = self._stagings.pop(0)
        self._stagings.append(staging)
        if staging.sent is not None:
            staging.sent.synchronize()
        parts = staging.parts[budget]
        self._tower.write(parts, pictures, budget)
        at = 0
        for one in places:
            parts[INDEX][at : at + len(one)].copy_(one)
            at += len(one)
        parts[INDEX][at:].fill_(nowhere)
        size = self._sizes[budget]
        self._memory[:size].copy_(staging.memory[:size], non_blocking=True)
        if staging.sent is not None:
            staging.sent.record()

    def _run(self, budget: int) -> list[Tensor]:
        """Make the features of what was sent; they stay until the next pass."""
        self.recording.run(budget, partial(self._pass, budget))
        return [one[: self._tower.features(budget)] for one in self._made]

    def _pass(self, budget: int) -> None:
        """One pass of the tower, into memory that stays."""
        parts = {name: part for name, part in self._parts[budget].items() if name != INDEX}
        with self._tower.ready():
            made = self._tower.forward(parts, budget)
        if not self._made:  # the largest budget comes first
            self._made = tuple(torch.empty_like(one, dtype=self._dtype) for one in made)
        for kept, one in zip(self._made, made, strict=True):
            kept[: len(one)].copy_(one)

    @torch.no_grad()
    def _start(self) -> Rule:
        """Take all passes eagerly, then capture each; then compare bits.

        In this order memory that the eager passes have left is given back before the graphs take theirs.
        """
        for _ in range(2):
            for budget in reversed(self.budgets):
                self._send(budget, [self._tower.example(self._tower.step, 0)], [], 0)
                self._run(budget)
        return find_rule(self._probe, self._tower, self.budgets)

    def _probe(self, pictures: Sequence[Inputs], budget: int) -> list[tuple[Tensor, ...]]:
        """Copies of the features of pictures that go through a budget together."""
        self._send(budget, pictures, [], 0)
        made = self._run(budget)
        one = Filled(tuple(range(len(pictures))), 0, budget)
        return [tuple(part.clone() for part in own) for own in self._of_each(one, pictures, made)]


def captured_layout(tower: StaticTower, budget: int) -> dict[str, TensorSpec]:
    """What a pass reads, and where its features go.

    Args:
        tower: Of a model.
        budget: Places of the pass.
    """
    return tower.layout(budget) | {INDEX: TensorSpec((tower.features(budget),), torch.int64)}


def size_of_layout(layout: dict[str, TensorSpec]) -> int:
    """Bytes of all parts together.

    Args:
        layout: Of a pass.
    """
    return sum(_aligned(part.size) for part in layout.values())


def _views(memory: Tensor, layout: dict[str, TensorSpec]) -> Parts:
    """The parts in one piece of memory. Shape (size,), uint8."""
    found, at = {}, 0
    for name, part in layout.items():
        found[name] = memory[at : at + part.size].view(part.dtype).view(part.shape)
        at += _aligned(part.size)
    return found


def _aligned(size: int) -> int:
    """The next multiple."""
    return -(-size // ALIGNED) * ALIGNED
