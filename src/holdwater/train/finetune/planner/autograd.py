"""What steps under autograd will take from a device, predicted from a trace on the meta device.

The trace is replayed as such a run goes on a CUDA device: weights are moved one by one, trained ones are laid out
again, a first step runs eagerly, its memory is given back, a second one is captured, which keeps memory of its
own, and an evaluation runs eagerly. In the middle of each step the library of matrix products takes a workspace
for each thread, which keeps the segment that it lies in from being given back.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from holdwater.errors import NothingFits
from holdwater.train.finetune.fused.decoder import Inputs, StepPlan
from holdwater.train.finetune.model.checkpointing import computes_again, keep_activations
from holdwater.train.finetune.model.lora import LoraLinear, is_adapted
from holdwater.train.finetune.planner import CachingAllocator, Peak
from holdwater.train.finetune.planner.fused import CONTEXT, WORKSPACE, Choice, nothing_fits, parts_of, told_rows
from holdwater.train.finetune.planner.meta_autocast import MetaAutocast, leave_positions
from holdwater.train.finetune.planner.meta_trace import Event, Trace, trace
from holdwater.train.finetune.planner.peak import margin_of
from holdwater.train.finetune.step.autograd import AutogradStep
from holdwater.train.finetune.step.quantized_linear import QuantizedLinear, quantize_linear_layers
from holdwater.train.flat import FlatAdamW, FlatWeights
from holdwater.units import Bytes

MARGIN = 0.04
"""Share of a plan that is kept free: plans from traces were at most 3.7 % short in `tuning_memory.json`."""


class Traces(NamedTuple):
    """What a micro-batch asks for, and what an evaluation does."""

    step: Trace
    evaluation: Trace


class AutogradPlanned:
    """A model on the meta device whose steps run under autograd."""

    def __init__(self, model: Any, *, length: int, bits: int | None) -> None:  # noqa: ANN401
        """Take a model, as `Planned` does."""
        self.length, self.bits = length, bits
        adapters = [one for one in model.modules() if isinstance(one, LoraLinear)]
        for weight in chain.from_iterable((one.lora_A, one.lora_B) for one in adapters):
            weight.data = weight.data.float()
        self.whole = not is_adapted(model)
        """Whether all weights are trained: they are in float32 then, and products are narrower."""
        if self.whole:
            leave_positions(model)
        self._quantize(model)
        layers = [one for one in model.modules() if isinstance(one, QuantizedLinear)]
        few = {id(one): one.nbytes for one in chain.from_iterable(layer.buffers() for layer in layers)}
        self._few = list(few.values())
        """Sizes of weights in few bits, which are made on the device."""
        moved = (one for one in chain(model.parameters(), model.buffers()) if id(one) not in few)
        self._moved = [(one.nbytes, min(one.dim(), 2) if one.requires_grad else 0) for one in moved]
        """Sizes of what is moved there; and 2 for trained matrices, 1 for trained vectors, 0 for the rest."""
        self.parameters = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        """That are trained."""
        self._model, self._weights = model, FlatWeights.of(model)
        self._optimizer = FlatAdamW(self._weights, weight_decay=0.0)
        self._vocabulary = int(model.config.get_text_config().vocab_size)
        self.layers = int(model.config.get_text_config().num_hidden_layers)
        """Of the model."""
        self._traced = cache(self._trace)

    def can_compute_again(self, rows: int) -> bool:
        """Whether layers may be computed again in the backward pass: they offer it, and draw no random numbers.

        Other numbers would be drawn then, for their state cannot be read while a step is captured.

        Args:
            rows: Of a micro-batch.
        """
        return bool(self._model.supports_gradient_checkpointing) and not self._traced(rows, False).step.draws  # noqa: FBT003

    def choose(self, *, rows: int, limit: Bytes | None, whole: bool = False) -> Choice:
        """As `choose_settings`: the largest micro-batch that fits; layers are computed again where none does.

        Args:
            rows: Of a micro-batch, as it was asked for; it may be cut into equal parts.
            limit: What the process may take; None sets no limit.
            whole: Whether all rows must be propagated at once.

        Raises:
            NothingFits: No way fits.
        """
        return choose_autograd(self, rows=rows, limit=limit, whole=whole)

    def peak(self, step: StepPlan) -> Peak:
        """Predict what a run takes.

        Args:
            step: How its steps are taken: in which micro-batches, and whether layers are computed again.
        """
        allocator, traces = CachingAllocator(), self._traced(step.rows, step.recomputed > 0)
        roles = self._lasting(allocator)
        workspaces = traces.step.workspaces
        replay(allocator, traces.step.events, workspaces)
        allocator.empty_cache()
        captured = CachingAllocator()
        at_peak = replay(captured, traces.step.events, workspaces)
        replay(allocator, traces.evaluation.events)  # in a workspace that is there
        reserved = max(allocator.peak, allocator.reserved + captured.reserved)
        logits = sum(event.size for event in at_peak if event.width == self._vocabulary)
        roles |= {
            "activations": Bytes(sum(event.size for event in at_peak) - logits),
            "logits": Bytes(logits),
            "workspace": Bytes(2 * len(workspaces) * WORKSPACE),
        }
        return Peak(roles, Bytes(reserved), CONTEXT, margin_of(reserved, MARGIN))

    def _lasting(self, allocator: CachingAllocator, *, gives_back: bool = True) -> dict[str, Bytes]:
        """Ask for what does not depend on the step; what it comes to, by what it is for.

        Args:
            allocator: Is asked.
            gives_back: Whether the run empties the allocator's cache once weights are laid out.
        """
        for size in self._few:
            allocator.allocate(size)
        blocks = [(allocator.allocate(size), kind) for size, kind in self._moved]
        weights, trained, gradients = self._weights, 0, 0
        laid_out = (
            (2, weights.decayed, weights.decayed_grad), (1, weights.undecayed, weights.undecayed_grad)
        )  # fmt: skip
        for kind, flat, grad in laid_out:
            trained += ask(allocator, [flat])
            gradients += ask(allocator, [grad])
            for block, one in blocks:
                if one == kind:  # it lies among the others now
                    allocator.free(block)
        if gives_back:
            allocator.empty_cache()
        frozen = sum(self._few) + sum(size for size, kind in self._moved if not kind)
        roles = {"weights": frozen + trained} if self.whole else {"weights": frozen, "adapters": trained}
        roles |= {"gradients": gradients, "optimizer": ask(allocator, self._optimizer.tensors().values())}
        return {role: Bytes(size) for role, size in roles.items()}

    def _trace(self, rows: int, again: bool) -> Traces:  # noqa: FBT001 - called by place, for the cache
        """Run a micro-batch and an evaluation where tensors have no memory."""
        if computes_again(self._model):
            keep_activations(self._model)
        own, inputs = self._propagator(rows, again=again), self.inputs(rows)
        known = [
            *self.known(), inputs.tokens, inputs.targets, inputs.weights, inputs.seed, inputs.spans,
        ]  # fmt: skip
        if inputs.pictures is not None:
            known += [inputs.pictures.pictured, inputs.pictures.axes, *inputs.pictures.features]
        self._model.train()
        step = trace(lambda: own.propagate(inputs, add=False), known)
        return Traces(step, trace(lambda: own.loss(inputs), known))

    def inputs(self, rows: int) -> Inputs:
        """The inputs of a micro-batch.

        Args:
            rows: Of the micro-batch.
        """
        return inputs_of(rows * self.length)

    def known(self) -> list[Tensor]:
        """What lasts, and is no part of a trace."""
        weights = self._weights
        return [
            *self._model.parameters(), *self._model.buffers(), weights.decayed, weights.undecayed, *weights.grads
        ]  # fmt: skip

    def _propagator(self, rows: int, *, again: bool) -> AutogradStep:  # noqa: ARG002 - rows are of others
        """What takes a micro-batch."""
        narrow = MetaAutocast if self.whole else None
        return AutogradStep(self._model, self._weights, length=self.length, narrow=narrow, again=again)

    def _quantize(self, model: Any) -> None:  # noqa: ANN401 - of Transformers
        """Put frozen weights in few bits."""
        if self.bits is not None:
            quantize_linear_layers(model, self.bits, "meta")


def inputs_of(tokens: int) -> Inputs:
    """The inputs of a micro-batch on the meta device.

    Args:
        tokens: Of the micro-batch.
    """

    def empty(dtype: torch.dtype, *size: int) -> Tensor:
        """An input."""
        return torch.empty(size, dtype=dtype, device="meta")

    return Inputs(
        empty(torch.int64, tokens), empty(torch.int64, tokens), empty(torch.float32, tokens),
        empty(torch.int64, 1), empty(torch.int32, 2, tokens),
    )  # fmt: skip


def ask(allocator: CachingAllocator, tensors: Iterable[Tensor]) -> int:
    """Ask for the memory of some tensors.

    Args:
        allocator: Is asked.
        tensors: All with memory of their own.

    Returns:
        What it comes to, in bytes.
    """
    sizes = [tensor.nbytes for tensor in tensors if tensor.nbytes]
    for size in sizes:
        allocator.allocate(size)
    return sum(sizes)


def replay(allocator: CachingAllocator, events: Iterable[Event], workspaces: Sequence[int] = ()) -> list[Event]:
    """Ask for what was traced, and give it back, but for workspaces.

    Args:
        allocator: Is asked.
        events: In their order.
        workspaces: Numbers of events before which one is taken.

    Returns:
        The events whose memory was there when most was.
    """
    blocks, live, most, at_peak = {}, dict[int, Event](), 0, list[Event]()
    size = 0
    for number, event in enumerate(events):
        if number in workspaces:
            allocator.allocate(WORKSPACE)
        if event.size:
            blocks[event.piece], live[event.piece] = allocator.allocate(event.size), event
            size += event.size
            if size > most:
                most, at_peak = size, []
        else:
            if not at_peak and size == most:
                at_peak = list(live.values())
            allocator.free(blocks.pop(event.piece))
            size -= live.pop(event.piece).size
    return at_peak or list(live.values())


def choose_autograd(planned: AutogradPlanned, *, rows: int, limit: Bytes | None, whole: bool = False) -> Choice:
    """As `choose_settings`: the largest micro-batch that fits; layers are computed again where none does."""
    parts = parts_of(rows, whole=whole)

    def fits(step: StepPlan) -> bool:
        """Whether such steps do."""
        return limit is None or planned.peak(step).needed <= limit

    for again in (False, True):
        if again and not planned.can_compute_again(parts[-1]):
            break
        steps = [StepPlan(rows=part, recomputed=planned.layers if again else 0) for part in parts]
        found = 0 if fits(steps[0]) else bisect_left(steps, 1, key=fits)
        if found < len(steps):
            return Choice(steps[found], planned.peak(steps[found]), _why(planned, steps[found], rows))
    again = planned.can_compute_again(parts[-1])
    least = planned.peak(StepPlan(rows=parts[-1], recomputed=planned.layers if again else 0))
    raise NothingFits(nothing_fits(limit or Bytes(0), least, bits=planned.bits, whole=planned.whole))


def _why(planned: AutogradPlanned, step: StepPlan, rows: int) -> str:
    """What was chosen, in words."""
    said = told_rows(step.rows, planned.length, rows)
    again = ", all layers computed again in the backward pass" if step.recomputed else ""
    return f"{said}{again}, under autograd"
