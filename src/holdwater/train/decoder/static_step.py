"""A step whose addresses never change: captured once as CUDA graphs, replayed from then on; run eagerly elsewhere.

A shape is met twice before it is replayed: the first time it runs eagerly, and that is the step itself, so nothing
has to be put back; the second time it is captured. Replaying makes no call to the allocator and runs no Python.
Source: PyTorch's notes on CUDA graphs, whole-step capture with static inputs.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from holdwater.train.decoder.attention import Places
from holdwater.train.decoder.decoder import Decoder, Inputs
from holdwater.train.tuning.packing import Packed

SLOTS = (1, 8, 64)
"""Examples in a row, rounded up to one of these, in the mean over a micro-batch; beyond, to a token each."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the parts of a micro-batch lie in one piece of memory, in bytes."""

    tokens: int
    slots: int

    def views(self, memory: Tensor) -> dict[str, Tensor]:
        """The parts.

        Args:
            memory: Shape (size,), uint8.
        """
        kinds = (
            ("tokens", torch.int64, self.tokens), ("targets", torch.int64, self.tokens), ("seed", torch.int64, 1),
            ("weights", torch.float32, self.tokens), ("positions", torch.int32, self.tokens),
            ("bounds", torch.int32, self.slots + 1),
        )  # fmt: skip
        found, at = {}, 0
        for name, kind, count in kinds:
            size = count * kind.itemsize
            found[name] = memory[at : at + size].view(kind)
            at += size
        return found

    @property
    def size(self) -> int:
        """Of all parts together, in bytes."""
        return self.tokens * (8 + 8 + 4 + 4) + 8 + (self.slots + 1) * 4


@dataclass(slots=True)
class _Lane:
    """Memory of the host from which a micro-batch is sent."""

    parts: dict[str, Tensor]
    memory: Tensor
    sent: Any = None
    """The event after which it can be written again."""


@dataclass(slots=True)
class Recording:
    """Functions that were captured, by what they depend on."""

    enabled: bool
    graphs: dict[object, Any] = field(default_factory=dict)
    """None stands for a shape that ran eagerly once."""
    pool: Any = None

    def run(self, key: object, function: Callable[[], None]) -> None:
        """Run a function whose addresses depend on a key alone.

        Args:
            key: Equal for calls that do the same to the same memory.
            function: Is run, captured, or replayed.
        """
        if not self.enabled or key not in self.graphs:
            function()
            self.graphs[key] = None
            return
        if self.graphs[key] is None:
            self.graphs[key] = self._captured(function)
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


class StaticStep:
    """Takes the steps of a decoder."""

    def __init__(self, decoder: Decoder, update: Callable[[Tensor], None], *, tokens: int, length: int) -> None:
        """Make room for the inputs.

        Args:
            decoder: After `prepare`.
            update: Changes the trained weights, given the learning rate. Shape (), float32.
            tokens: In a micro-batch, at most.
            length: Of an example, at most.
        """
        device = decoder.device
        self._decoder, self._update, self._length = decoder, update, length
        self._layout = _Layout(tokens, tokens)
        self._memory = torch.zeros(self._layout.size, dtype=torch.uint8, device=device)
        self._parts = self._layout.views(self._memory)
        on_cuda = torch.device(device).type == "cuda"
        hosts = [torch.zeros(self._layout.size, dtype=torch.uint8, pin_memory=on_cuda) for _ in range(2)]
        self._lanes = [_Lane(self._layout.views(host), host) for host in hosts]
        self._rate = torch.zeros((), device=device)
        self._loss = torch.zeros((), device=device)
        self.recording = Recording(enabled=on_cuda)
        self._fresh = True

    def clear(self) -> None:
        """Forget all gradients: the next micro-batch writes them anew."""
        self._fresh = True

    def propagate(self, batch: Packed, share: float, *, seed: int) -> None:
        """Make the gradients of a micro-batch, or add them to those of the step so far.

        Args:
            batch: Rows in the host's memory.
            share: What their mean loss counts in that of the step.
            seed: Of their dropout.
        """
        count = batch.tokens.numel()
        slots = self._send(batch, share / batch.weight, seed)
        inputs = self._inputs(count, slots)
        add, self._fresh = not self._fresh, False

        def run() -> None:
            """The whole micro-batch."""
            loss = self._decoder.propagate(inputs, add=add)
            self._loss.add_(loss) if add else self._loss.copy_(loss)

        self.recording.run((count, slots, add), run)

    def update(self, rate: float) -> None:
        """Change the weights.

        Args:
            rate: The learning rate of this step.
        """
        self._rate.fill_(rate)

        def run() -> None:
            """The whole update."""
            self._update(self._rate)
            self._decoder.refresh()

        self.recording.run("update", run)

    def loss(self) -> float:
        """The mean loss of the step, in nats; waits for the device."""
        return self._loss.item()

    @torch.no_grad()
    def evaluate(self, batch: Packed) -> float:
        """The weighted sum of cross-entropies of some rows in nats, without gradients."""
        slots = self._send(batch, 1.0, 0)
        return self._decoder.loss(self._inputs(batch.tokens.numel(), slots)).item()

    def _send(self, batch: Packed, factor: float, seed: int) -> int:
        """Send a micro-batch to the device; return the slots for examples that it needs."""
        lane = self._lanes[0]
        self._lanes.reverse()
        if lane.sent is not None:
            lane.sent.synchronize()
        count, parts = batch.tokens.numel(), lane.parts
        for name in ("tokens", "targets", "positions"):
            parts[name][:count].copy_(getattr(batch, name).flatten())
        torch.mul(batch.weights.flatten(), factor, out=parts["weights"][:count])
        parts["seed"].fill_(seed)
        bounds = batch.bounds()
        parts["bounds"].fill_(count)
        parts["bounds"][: len(bounds)].copy_(bounds)
        self._memory.copy_(lane.memory, non_blocking=True)
        if self.recording.enabled:
            lane.sent = torch.cuda.Event()
            lane.sent.record()
        rows = len(batch.tokens)
        return next((rows * slot for slot in SLOTS if len(bounds) - 1 <= rows * slot), count)

    def _inputs(self, count: int, slots: int) -> Inputs:
        """The micro-batch on the device."""
        parts = self._parts
        places = Places(parts["positions"][:count], parts["bounds"][: slots + 1], min(self._length, count))
        return Inputs(parts["tokens"][:count], parts["targets"][:count], parts["weights"][:count], parts["seed"], places)
