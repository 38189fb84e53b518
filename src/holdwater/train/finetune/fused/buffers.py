"""Every buffer that a fused step uses, made once: nothing is allocated while a step runs."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from holdwater.train.finetune.fused.offload import RING
from holdwater.train.finetune.fused.shape import DecoderShape
from holdwater.train.finetune.losses import CHUNK


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRanks:
    """Ranks of all adapters together that read the same input, the largest among the layers; 0 without any."""

    queries: int
    output: int
    gates: int
    down: int

    @property
    def narrow(self) -> int:
        """Of those whose output is as wide as the residual stream."""
        return max(self.output, self.down)


@dataclass(frozen=True, slots=True)
class KeptActivations:
    """What one layer's backward pass needs. Shapes: (tokens, …)."""

    queries: Tensor
    """Queries, keys and values, rotated by their positions unless heads are normalised; then what the adapters'
    A matrices gave."""
    attended: Tensor
    """What attention gave."""
    logsumexp: Tensor
    """Logarithms of the sums under its softmax, in float32. Shape (tokens, heads)."""
    middle: Tensor
    """The residual stream between attention and network."""
    gates: Tensor
    """Gates, then values, then what the adapters' A matrices gave."""
    small_output: Tensor
    """What the A matrix of the output's adapter gave."""
    small_down: Tensor
    """What the A matrix of the last adapter gave."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """What is used again from layer to layer. Shapes: (tokens, …)."""

    normed: Tensor
    """Normalised rows. Width: the residual stream's."""
    delta: Tensor
    """What a part of a layer adds to the residual stream; then what its adapter's A matrix gave."""
    grad: Tensor
    """The gradient of the residual stream; then that of what an adapter's A matrix gave."""
    grad_normed: Tensor
    """The gradient of normalised rows. Width: the residual stream's."""
    inner: Tensor
    """What the gates let through, and its gradient; gradients around attention. Width: the widest of these."""
    attention_delta: Tensor
    """A sum for each token and head, in float32. Shape (tokens, heads)."""
    dropped: Tensor | None
    """Rows after dropout, as wide as the widest input; None without dropout."""
    adapter_grad: Tensor | None
    """The gradient of the input through adapters with dropout; None without dropout."""
    rotated: Tensor | None
    """Queries and keys with normalised heads, rotated, and values; and their gradient. None where heads are not
    normalised."""


@dataclass(frozen=True, slots=True)
class HeadRows:
    """What some tokens that are learned from take to the head and back. Shapes: (chunk, …)."""

    normed: Tensor
    """Their normalised rows. Width: the residual stream's."""
    grad: Tensor
    """The gradient of these. Width: the residual stream's."""
    targets: Tensor
    """The next token of each, int64. Shape (chunk,)."""
    weights: Tensor
    """What each counts, float32. Shape (chunk,)."""


@dataclass(frozen=True, slots=True)
class StepBuffers:
    """All of them."""

    streams: list[Tensor]
    """The residual stream before each layer, and after the last; three in turn where the rest waits in the host's
    memory. Shape (tokens, width) each."""
    scales: Tensor
    """Reciprocal root mean squares, two a layer and one for the last norm. Shape (2 * layers + 1, tokens)."""
    kept: list[KeptActivations]
    """Of each layer; layers that are computed again share one."""
    scratch: Scratch
    logits: Tensor
    """Of some tokens. Shape (chunk, vocabulary)."""
    head_rows: HeadRows
    """Of these tokens."""
    losses: Tensor
    """In the order in which tokens come to the head. Shape (tokens,)."""

    def cut(self, tokens: int) -> "StepBuffers":
        """The same buffers for fewer tokens.

        Args:
            tokens: At most as many as they were made for.
        """
        return StepBuffers(
            [stream[:tokens] for stream in self.streams],
            self.scales[:, :tokens],
            [_cut(one, tokens) for one in self.kept],
            _cut(self.scratch, tokens),
            self.logits,
            self.head_rows,
            self.losses[:tokens],
        )


def one_row(buffers: StepBuffers) -> StepBuffers:
    """The buffers of one token, with a residual stream of its own: that of the step holds keys and values.

    Args:
        buffers: Of one token.
    """
    pair = [torch.empty_like(buffers.streams[0]) for _ in range(2)]
    return replace(buffers, streams=[pair[number % 2] for number in range(len(buffers.streams))])


def _cut(record: Any, tokens: int) -> Any:  # noqa: ANN401 - one of the records above
    """The first tokens of each tensor of a record."""
    parts = (getattr(record, field.name) for field in fields(record))
    return type(record)(*(None if part is None else part[:tokens] for part in parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What the sizes of the buffers follow from."""

    shape: DecoderShape
    ranks: AdapterRanks
    tokens: int
    """In a micro-batch, at most."""
    recomputed: int = 0
    """Layers whose inside is computed again in the backward pass, the first ones: they share buffers."""
    chunk: int = CHUNK
    """Tokens whose logits exist at once."""
    dropout: bool = False
    """Whether adapters have dropout."""
    offloaded: bool = False
    """Whether states of the residual stream wait in the host's memory."""


def make_buffers(needs: Needs, like: Tensor) -> StepBuffers:
    """Make the buffers of a step.

    Args:
        needs: What their sizes follow from.
        like: A weight, for type and device.
    """
    shape, ranks, tokens, recomputed = needs.shape, needs.ranks, needs.tokens, needs.recomputed

    def make(*size: int) -> Tensor:
        """Make one buffer."""
        return torch.empty(size, dtype=like.dtype, device=like.device)

    def make_float32(*size: int) -> Tensor:
        """Make one in float32."""
        return torch.empty(size, dtype=torch.float32, device=like.device)

    chunk = min(needs.chunk, tokens)
    streams = [make(tokens, shape.width) for _ in range(RING if needs.offloaded else shape.layers + 1)]
    rows = make_float32(2 * shape.layers + 2, tokens)
    widest = max(shape.width, shape.inner, 4 * shape.query_width)
    shared = _shared(_keep(needs, like), recomputed, make(recomputed, tokens, ranks.down)) if recomputed else []
    return StepBuffers(
        streams=[streams[number % len(streams)] for number in range(shape.layers + 1)],
        scales=rows[:-1],
        kept=shared + [_keep(needs, like) for _ in range(shape.layers - recomputed)],
        scratch=Scratch(
            normed=make(tokens, shape.width),
            delta=make(tokens, shape.width + ranks.narrow),
            grad=make(tokens, shape.width + ranks.narrow),
            grad_normed=make(tokens, shape.width),
            inner=make(tokens, widest),
            attention_delta=make_float32(tokens, shape.heads),
            dropped=make(tokens, widest) if needs.dropout else None,
            adapter_grad=make(tokens, widest) if needs.dropout else None,
            rotated=make(tokens, shape.attention_width) if shape.normed_heads else None,
        ),
        logits=make(chunk, shape.vocabulary),
        head_rows=_head_rows(chunk, shape.width, like),
        losses=rows[-1],
    )


def _keep(needs: Needs, like: Tensor) -> KeptActivations:
    """Make what one layer keeps."""
    shape, ranks, tokens = needs.shape, needs.ranks, needs.tokens
    widths = (
        *(shape.attention_width + ranks.queries, shape.query_width, shape.width),
        *(2 * shape.inner + ranks.gates, ranks.output, ranks.down),
    )
    queries, attended, middle, gates, small_output, small_down = (
        torch.empty(tokens, width, dtype=like.dtype, device=like.device) for width in widths
    )
    logsumexp = torch.empty(tokens, shape.heads, dtype=torch.float32, device=like.device)
    return KeptActivations(queries, attended, logsumexp, middle, gates, small_output, small_down)


def _head_rows(count: int, width: int, like: Tensor) -> HeadRows:
    """Make the rows of some tokens that are learned from."""
    normed, grad = (torch.empty(count, width, dtype=like.dtype, device=like.device) for _ in range(2))
    targets = torch.empty(count, dtype=torch.int64, device=like.device)
    return HeadRows(normed, grad, targets, torch.empty(count, dtype=torch.float32, device=like.device))


def _shared(one: KeptActivations, count: int, small_down: Tensor) -> list[KeptActivations]:
    """The same buffers for some layers, but for what the last product has left: it is not computed again."""
    return [replace(one, small_down=small_down[number]) for number in range(count)]


def largest_ranks(layers: Sequence[AdapterRanks]) -> AdapterRanks:
    """The largest ranks among some layers."""
    return AdapterRanks(**{
        name: max(getattr(one, name) for one in layers) for name in ("queries", "output", "gates", "down")
    })
