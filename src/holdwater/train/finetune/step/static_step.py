"""A step whose addresses never change: captured once as CUDA graphs, replayed from then on; run eagerly elsewhere.

A shape is met twice before it is replayed: the first time it runs eagerly, and that is the step itself, so nothing
has to be put back; the second time it is captured. Replaying makes no call to the allocator and runs no Python.
Source: PyTorch's notes on CUDA graphs, whole-step capture with static inputs.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from holdwater.oom.out_of_memory import is_out_of_memory
from holdwater.train.finetune.data.packing import Packed
from holdwater.train.finetune.fused.decoder import Inputs, Phase
from holdwater.train.finetune.fused.head import LearnedOrder, learned_first

log = logging.getLogger("holdwater")


class Part(NamedTuple):
    """One tensor of a micro-batch."""

    name: str
    dtype: torch.dtype
    elements: int
    """For as many tokens as a micro-batch has at most."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the parts of a micro-batch lie in one piece of memory, those of wide types first."""

    parts: tuple[Part, ...]

    def views(self, memory: Tensor) -> dict[str, Tensor]:
        """The parts.

        Args:
            memory: Shape (size,), uint8.
        """
        found, at = {}, 0
        for name, dtype, elements in sorted(self.parts, key=lambda part: -part.dtype.itemsize):
            size = elements * dtype.itemsize
            found[name] = memory[at : at + size].view(dtype)
            at += size
        return found

    @property
    def size(self) -> int:
        """Of all parts together, in bytes."""
        return sum(part.elements * part.dtype.itemsize for part in self.parts)


@dataclass(slots=True)
class _Lane:
    """Memory of the host from which a micro-batch is sent."""

    parts: dict[str, Tensor]
    memory: Tensor
    sent: Any
    """The event after which it can be written again; None where sending is done at once."""


@dataclass(slots=True)
class GraphRecording:
    """Functions that were captured, by what they depend on."""

    enabled: bool
    graphs: dict[object, Any] = field(default_factory=dict)
    """None stands for a shape that ran eagerly once."""
    pool: Any = None

    def is_new(self, key: object) -> bool:
        """Whether a function has not been captured, and could be."""
        return self.enabled and self.graphs.get(key) is None

    def run(self, key: object, function: Callable[[], None]) -> None:
        """Run a function whose addresses depend on a key alone.

        Args:
            key: Equal for calls that do the same to the same memory.
            function: Is run, captured, or replayed.

        Raises:
            RuntimeError: Memory ran out.
        """
        if not self.enabled or key not in self.graphs:
            function()
            self.graphs[key] = None
            return
        if self.graphs[key] is None:
            try:
                self.graphs[key] = self._captured(function)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                self.enabled = False
                log.warning("the step cannot be captured (%s): it runs eagerly", str(error).split("\n", 1)[0])
                function()
                return
        self.graphs[key].replay()

    def _captured(self, function: Callable[[], None]) -> Any:  # noqa: ANN401 - a graph
        """Capture a function, without running it."""
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # what the eager run took lies in another pool
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            function()
        self.pool = self.pool or graph.pool()
        return graph


class Propagator(Protocol):
    """Makes losses and gradients, always in the same memory: a fused decoder, or a model under autograd."""

    device: str
    """Where."""

    def phases(self, inputs: Inputs, *, add: bool) -> Sequence[Phase]:
        """What makes the gradients of a micro-batch, or adds them to those that are there, in order."""
        ...

    def loss(self, inputs: Inputs) -> Tensor:
        """The same loss, without gradients. Shape ()."""
        ...

    def refresh(self) -> None:
        """Take the trained weights as they are now."""
        ...


class StaticStep:
    """Takes the steps of a model whose memory never moves; two of the backends are made of it."""

    sends_batches: ClassVar[bool] = True
    seeds_dropout: bool = True

    def __init__(
        self,
        model: Propagator,
        update: Callable[[Tensor, Tensor], None],
        *,
        rows: int,
        length: int,
        more: Sequence[Part] = (),
    ) -> None:
        """Allocate the memory of the inputs.

        Args:
            model: Ready to be used.
            update: Changes the trained weights, given learning rate and loss of the step. Shapes (), float32.
            rows: Of a micro-batch, at most.
            length: Of a row, in tokens.
            more: What a micro-batch has besides; `fill` puts it in its place.
        """
        device = model.device
        self._model, self._update, self._length = model, update, length
        tokens = rows * length
        self._layout = _Layout((
            Part("tokens", torch.int64, tokens),
            Part("targets", torch.int64, tokens),
            Part("order", torch.int64, tokens),
            Part("seed", torch.int64, 1),
            Part("weights", torch.float32, tokens),
            Part("spans", torch.int32, 2 * tokens),
            *more,
        ))
        self._memory = torch.zeros(self._layout.size, dtype=torch.uint8, device=device)
        self.parts = self._layout.views(self._memory)
        """Of the micro-batch on the device."""
        on_cuda = torch.device(device).type == "cuda"
        events = [torch.cuda.Event() for _ in range(3)] if on_cuda else [None] * 3  # type: ignore[no-untyped-call]
        hosts = [torch.zeros(self._layout.size, dtype=torch.uint8, pin_memory=on_cuda) for _ in range(2)]
        self._lanes = [
            _Lane(self._layout.views(host), host, sent) for host, sent in zip(hosts, events[1:], strict=True)
        ]
        self._rate = torch.zeros((), device=device)
        self._loss = torch.zeros((), device=device)
        self._host_loss = torch.zeros((), pin_memory=on_cuda)
        self._loss_copied: Any = events[0]
        """The event after which the host has the loss; None where copies are made at once."""
        self.recording = GraphRecording(enabled=on_cuda)
        self.micro_batches = 0
        """Of the step so far."""
        self._learned = 0
        """Tokens that are learned from, of the micro-batch that was sent last."""

    def clear(self) -> None:
        """Forget all gradients: the next micro-batch overwrites them."""
        self.micro_batches = 0

    def refresh(self) -> None:
        """Take the trained weights as they are now."""
        self._model.refresh()

    def stage(self, batch: Packed) -> None:
        """Nothing to do: tokens are sent in no time."""

    def propagate(self, batch: Packed, share: float, *, seed: int) -> None:
        """Make the gradients of a micro-batch, or add them to those of the step so far.

        Args:
            batch: Rows in the host's memory.
            share: What their mean loss counts in that of the step.
            seed: Of their dropout.
        """
        count = batch.tokens.numel()
        self.send(batch, share / batch.weight, seed)
        add = self.micro_batches > 0
        self.micro_batches += 1
        for phase in self._model.phases(self.inputs(count), add=add):
            key = count, add, phase.name
            if phase.is_needed or self.recording.is_new(key):  # all are captured at once, not when one is met late
                self.recording.run(key, partial(self._run, phase, add=add))

    def _run(self, phase: Phase, *, add: bool) -> None:
        """A part of a micro-batch; the last one has its loss."""
        loss = phase.run()
        if loss is not None:
            self._loss.add_(loss) if add else self._loss.copy_(loss)

    def update(self, rate: float) -> None:
        """Change the weights.

        Args:
            rate: The learning rate of this step.
        """
        self._host_loss.copy_(self._loss, non_blocking=True)
        if self._loss_copied is not None:
            self._loss_copied.record()
        self._rate.fill_(rate)

        def run() -> None:
            """The whole update."""
            self._update(self._rate, self._loss)

        self.recording.run("update", run)

    def loss(self) -> float:
        """The mean loss of the step, in nats; waits until the device has made it, not for the update."""
        if self._loss_copied is not None:
            self._loss_copied.synchronize()
        return self._host_loss.item()

    @torch.no_grad()
    def evaluate(self, batch: Packed) -> float:
        """The weighted sum of cross-entropies of some rows in nats, without gradients."""
        self.send(batch, 1.0, 0)
        return self._model.loss(self.inputs(batch.tokens.numel())).item()

    def send(self, batch: Packed, factor: float, seed: int) -> None:
        """Send a micro-batch to the device."""
        lane = self._lanes[0]
        self._lanes.reverse()
        if lane.sent is not None:
            lane.sent.synchronize()
        self.fill(lane.parts, batch, factor, seed)
        self._memory.copy_(lane.memory, non_blocking=True)
        if lane.sent is not None:
            lane.sent.record()

    def fill(self, parts: dict[str, Tensor], batch: Packed, factor: float, seed: int) -> None:
        """Put a micro-batch into the memory from which it is sent.

        Args:
            parts: Of that memory.
            batch: Rows in the host's memory.
            factor: By which the weights of their tokens are multiplied.
            seed: Of their dropout.
        """
        count = batch.tokens.numel()
        for name in ("tokens", "targets"):
            parts[name][:count].copy_(getattr(batch, name).flatten())
        torch.mul(batch.weights.flatten(), factor, out=parts["weights"][:count])
        order, self._learned = learned_first(parts["targets"][:count])
        parts["order"][:count].copy_(order)
        parts["seed"].fill_(seed)
        parts["spans"].view(2, -1)[:, :count].copy_(batch.spans)

    def inputs(self, count: int) -> Inputs:
        """The micro-batch on the device."""
        parts = self.parts
        spans = parts["spans"].view(2, -1)[:, :count]
        return Inputs(
            parts["tokens"][:count], parts["targets"][:count], parts["weights"][:count], parts["seed"], spans,
            order=LearnedOrder(parts["order"][:count], self._learned),
        )  # fmt: skip
