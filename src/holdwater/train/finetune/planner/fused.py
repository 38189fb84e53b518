"""What fused steps will take from a device: the planner builds the real run on the meta device.

The model, its adapters, the optimizer and every buffer are built there by the code that builds them for the run;
their sizes are what the run will ask for. What the kernels of libraries
take for themselves is added as it was measured.
"""

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from holdwater.errors import NothingFits
from holdwater.train.finetune.fused.decoder import Decoder, StepPlan
from holdwater.train.finetune.fused.frozen import WeightPlacement
from holdwater.train.finetune.losses import CHUNK
from holdwater.train.finetune.planner import Peak, PeakPart, predict
from holdwater.train.flat import FlatAdamW, FlatWeights
from holdwater.units import Bytes, format_size

WORKSPACE = 32 << 20
"""What cuBLAS takes for each order of work on a Hopper device, in bytes; measured with torch 2.11."""
SERVER_CONTEXT = Bytes(520_000_000)
"""What a process that computes nothing takes on a device outside of what torch reserves; measured on an H200."""
CONTEXT = Bytes(802_000_000)
"""The same of a process that has captured its steps: the most in 18 configurations of `tuning_memory.json`."""
MARGIN = 0.02
"""Share of a plan that is kept free: plans of fused steps were at most 1.6 % short in `tuning_memory.json`."""
UPDATED, ENTRY = 4096, 24
"""Weights that a program of the update takes, and the bytes that say which."""


class Planned:
    """A model on the meta device whose steps are fused."""

    def __init__(self, model: Any, *, length: int, bits: int | None) -> None:  # noqa: ANN401
        """Take a model with adapters, in bfloat16, without memory; tokens in a row; bits of a frozen weight."""
        self.length = length
        """Tokens in a row."""
        self.bits = bits
        """Of a frozen weight; None for its own."""
        self._decoder = Decoder(model, WeightPlacement("meta", bits))
        for adapter in self._decoder.trained:
            adapter.data = adapter.data.float()
        weights = FlatWeights.of(model, self._decoder.trained)
        self._weights, self._optimizer = weights, FlatAdamW(weights, weight_decay=0.0)
        self.layers = len(self._decoder.layers)
        """Of the model."""
        self.parameters = sum(one.numel() for one in self._decoder.trained)
        """That are trained."""

    def peak(self, step: StepPlan) -> Peak:
        """Predict what a run takes.

        Args:
            step: How its steps are taken.
        """
        return predict(self.parts(step), context=CONTEXT, margin=MARGIN)

    def parts(self, step: StepPlan) -> list[PeakPart]:
        """What a run asks for, in the order in which it does.

        Args:
            step: How its steps are taken.
        """
        self._decoder.prepare(self.length, step)
        return [*self._lasting(), *self._of_step(step.rows * self.length)]

    def _lasting(self) -> Iterator[PeakPart]:
        """What does not depend on the step."""
        groups = [group for layer in self._decoder.layers for group in layer.groups]
        for group in groups:
            yield PeakPart("weights", tuple(sizes_of(group.frozen.tensors())))
            yield PeakPart("adapters", tuple(sizes_of(group.lora_b_of_runs())))
        yield PeakPart("weights", tuple(sizes_of(self._decoder.others())))
        yield PeakPart("adapters", (self._weights.decayed.nbytes,))
        yield PeakPart("gradients", (self._weights.decayed_grad.nbytes,))

    def _of_step(self, tokens: int) -> Iterator[PeakPart]:
        """What a step takes."""
        buffers = self._decoder.buffers
        others = (tensor for tensor in _tensors(buffers) if tensor is not buffers.logits)
        yield PeakPart("activations", tuple(sizes_of(others)))
        yield PeakPart("logits", (buffers.logits.nbytes,))
        moments = [tensor.nbytes for tensor in self._optimizer.tensors().values()]
        yield PeakPart("optimizer", tuple(size for size in moments if size))
        blocks = -(-self._weights.decayed.numel() // UPDATED)
        yield PeakPart("workspace", (blocks * ENTRY, 32 * tokens, WORKSPACE, WORKSPACE))


def _tensors(record: Any) -> Iterator[Tensor]:  # noqa: ANN401 - a record of tensors, lists and records
    """All tensors of a record that have memory of their own."""
    if isinstance(record, Tensor):
        yield record
    elif isinstance(record, list):
        for one in record:
            yield from _tensors(one)
    elif record is not None:
        for each in fields(record):
            yield from _tensors(getattr(record, each.name))


def sizes_of(tensors: Iterable[Tensor]) -> Iterator[int]:
    """Bytes of each piece of memory that lies behind some tensors, each counted once.

    Args:
        tensors: Of any device.
    """
    seen: dict[int, int] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        seen.setdefault(storage._cdata, storage.nbytes())  # noqa: SLF001 - its only name
    yield from seen.values()


@dataclass(frozen=True, slots=True)
class Choice:
    """How steps are taken, what that takes, and why."""

    step: StepPlan
    peak: Peak
    why: str


CHUNKS = (CHUNK, CHUNK // 4)
"""Tokens whose logits may exist at once."""
AGAIN = 0.36
"""What computing all layers again adds to the time of a step: all products but the last, forward only."""
AWAY = 0.05
"""What sending the residual stream to the host and back adds while other work runs; not measured yet."""
STARTING = 45
"""Tokens that a micro-batch could compute in the time that starting its kernels takes; measured on an H200."""


def parts_of(rows: int, *, whole: bool) -> list[int]:
    """Micro-batches that a batch may be cut into, the largest first.

    Args:
        rows: Of the batch.
        whole: Whether it must stay in one piece.
    """
    return [rows] if whole else [part for part in range(rows, 0, -1) if rows % part == 0]


class FusedPlan(Protocol):
    """A model whose steps are fused."""

    length: int
    """Tokens in a row."""
    bits: int | None
    """Of a frozen weight; None for its own."""
    layers: int
    """Of the model."""

    def peak(self, step: StepPlan) -> Peak:
        """Predict what a run takes."""
        ...


def choose(planned: FusedPlan, *, rows: int, limit: Bytes | None, whole: bool = False) -> Choice:
    """As `choose_settings`, for fused steps."""
    parts = parts_of(rows, whole=whole)
    sketches = [
        StepPlan(rows=part, chunk=chunk, offloaded=away)
        for part, chunk, away in itertools.product(parts, CHUNKS, (False, True))
    ]
    ways = [way for sketch in sketches if (way := _least(planned, sketch, limit)) is not None]
    if not ways:
        least = StepPlan(rows=parts[-1], recomputed=planned.layers, chunk=CHUNKS[-1], offloaded=True)
        raise NothingFits(nothing_fits(limit or Bytes(0), planned.peak(least), bits=planned.bits))
    step = min(ways, key=partial(_cost, planned))
    return Choice(step, planned.peak(step), _why(planned, step, rows))


def nothing_fits(limit: Bytes, least: Peak, *, bits: int | None, whole: bool = False) -> str:
    """What to say where nothing fits.

    Args:
        limit: What the process may take.
        least: What it would, at the least.
        bits: Of a frozen weight; None for its own.
        whole: Whether all weights are trained.
    """
    fewer = "" if bits == 4 else "--quantize 4, "
    less = "adapters (--lora-rank 16)" if whole else f"{fewer}a smaller --lora-rank"
    return (
        f"max_memory is {format_size(limit)}, but the least that a step takes is {format_size(least.needed)}, "
        f"{format_size(least.context)} of it the driver's context and {format_size(least.margin)} a margin; "
        f"use {less}, a smaller --train-seq-length, or more memory"
    )


def _least(planned: FusedPlan, sketch: StepPlan, limit: Bytes | None) -> StepPlan | None:
    """The same way with the fewest layers computed again that fits; None where none does."""

    def fits(recomputed: int) -> bool:
        """Whether so many layers are enough."""
        return limit is None or planned.peak(replace(sketch, recomputed=recomputed)).needed <= limit

    counts = range(planned.layers + 1)
    found = bisect_left(counts, 1, key=fits)
    return replace(sketch, recomputed=found) if found < len(counts) else None


def _cost(planned: FusedPlan, step: StepPlan) -> tuple[float, int]:
    """What a step takes in time, in no unit; the larger chunk where that is the same."""
    tokens = step.rows * planned.length
    again, away = AGAIN * step.recomputed / planned.layers, AWAY if step.offloaded else 0.0
    return (1 + again + away) * (1 + STARTING / tokens), -step.chunk


def told_rows(part: int, length: int, rows: int) -> str:
    """A micro-batch, for people.

    Args:
        part: Its rows.
        length: Of a row, in tokens.
        rows: As many were asked for.
    """
    fewer = f" ({rows // part} for each that was asked for)" if part < rows else ""
    return f"micro-batches of {part} × {length} tokens{fewer}"


def _why(planned: FusedPlan, step: StepPlan, rows: int) -> str:
    """What was chosen, in words."""
    said = [told_rows(step.rows, planned.length, rows)]
    said.append(
        f"{step.recomputed} of {planned.layers} layers computed again in the backward pass"
        if step.recomputed
        else "nothing computed again in the backward pass"
    )
    if step.offloaded:
        said.append("the residual stream waiting in the host's memory")
    said.append(f"logits of {min(step.chunk, step.rows * planned.length)} tokens at once")
    return ", ".join(said)
