"""The loss and the adapters' gradients of a decoder, fused: no autograd graph, no memory allocated in a step.

The results are those of autograd up to rounding (tests compare them).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from holdwater.train.finetune.fused.buffers import Needs, StepBuffers, largest_ranks, make_buffers, one_row
from holdwater.train.finetune.fused.frozen import Frozen, WeightPlacement
from holdwater.train.finetune.fused.head import LearnedOrder, Targets, add_losses, clear
from holdwater.train.finetune.fused.kernels import kernels_for
from holdwater.train.finetune.fused.key_value_cache import KeyValueCache
from holdwater.train.finetune.fused.layer import DecoderLayer, Pass
from holdwater.train.finetune.fused.offload import RING, Offload
from holdwater.train.finetune.fused.rotary import RotaryTables
from holdwater.train.finetune.fused.shape import DecoderShape, body_of
from holdwater.train.finetune.losses import CHUNK


@dataclass(frozen=True, slots=True)
class PictureInputs:
    """What a micro-batch with pictures has besides, on the device."""

    pictured: Tensor
    """Which tokens stand for parts of pictures. Shape (tokens, 1), bool."""
    axes: Tensor
    """Rotary positions in three dimensions. Shape (3, tokens), int64."""
    features: tuple[Tensor, ...]
    """At the places of these tokens: what takes the place of their embeddings, then what is added behind each
    early layer, zero at all other places. Shape (tokens, width) each."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a micro-batch is made of, on the device."""

    tokens: Tensor
    """Shape (tokens,), int64."""
    targets: Tensor
    """The next token, or `IGNORED`. Shape (tokens,), int64."""
    weights: Tensor
    """What each token counts in the loss of the step. Shape (tokens,), float32."""
    seed: Tensor
    """Of the dropout. Shape (1,), int64."""
    spans: Tensor
    """Where the example of each token begins and ends. Shape (2, tokens), int32."""
    pictures: PictureInputs | None = None
    """None for a model without pictures."""
    order: LearnedOrder | None = None
    """In which tokens come to the head; None lets all come, one after another."""


class Phase(NamedTuple):
    """A part of a micro-batch, in memory that is the same each time."""

    name: object
    run: Callable[[], Tensor | None]
    """The last one returns the loss of the micro-batch. Shape ()."""
    is_needed: bool = True
    """Whether this micro-batch needs it; otherwise it changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """How a step is taken."""

    rows: int
    """Of a micro-batch."""
    recomputed: int = 0
    """Layers whose inside is computed again in the backward pass, from the first one on."""
    chunk: int = CHUNK
    """Tokens whose logits exist at once."""
    offloaded: bool = False
    """Whether states of the residual stream wait in the host's memory."""


class Decoder:
    """A causal language model with adapters, as `why_not` accepts it; it may be one under pictures."""

    def __init__(self, model: Any, where: WeightPlacement) -> None:  # noqa: ANN401 - of Transformers
        """Take a model's weights over; the model itself keeps views of them.

        Args:
            model: With adapters; without memory where the weight client knows its weights. In few bits it cannot
                be used itself.
            where: The frozen weights are put.
        """
        config = model.config.get_text_config()
        self.shape = DecoderShape.of(config)
        self.device = where.device
        body = body_of(model)
        normed = self.shape.normed_heads
        self.layers = [
            DecoderLayer(layer, number, where, normed_heads=normed) for number, layer in enumerate(body.layers)
        ]
        embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        self._embedding = where.take("embedding", embedding)
        self._head = self._embedding if head is embedding else where.take("head", head)
        self._last_norm = where.take("last_norm", body.norm.weight)
        bits = where.bits
        self._workspace = _workspace_for([group.frozen for layer in self.layers for group in layer.groups], bits)
        rotary = body.rotary_emb  # rebuilt where it has no memory: it follows from the configuration
        on_meta = any(one.is_meta for one in rotary.buffers()) and where.device != "meta"
        self._rotary = (type(rotary)(config) if on_meta else rotary).to(where.device)
        self._tables: RotaryTables | None = None
        self._buffers: StepBuffers | None = None
        self._recomputed, self._chunk = 0, CHUNK
        self._offload: Offload | None = None
        self._one: Pass | None = None
        """The micro-batch whose forward pass came last."""

    @property
    def trained(self) -> list[nn.Parameter]:
        """What is trained, in the order in which it must be laid out."""
        groups = [group for layer in self.layers for group in layer.groups]
        return [
            weight
            for group in groups
            for weight in [one.lora_A for one in group.adapted] + [one.lora_B for one in group.adapted]
        ]

    def others(self) -> list[Tensor]:
        """Tensors outside of the layers' products: embeddings, norms, the workspace for dequantized weights."""
        norms = [norm for layer in self.layers for norm in layer.norms]
        workspace = [] if self._workspace is None else [self._workspace]
        return [*workspace, *norms, self._embedding, self._head, self._last_norm]

    @property
    def buffers(self) -> StepBuffers:
        """Those of `prepare`."""
        assert self._buffers is not None, "prepare() comes first"  # noqa: S101 - a mistake of ours
        return self._buffers

    def bind(self) -> None:
        """Take the places of the gradients, once they are laid out, and the weights as they are now."""
        for layer in self.layers:
            for group in layer.groups:
                group.bind()
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take the trained weights as they are now."""
        copies, masters = zip(*self.copies(), strict=True)
        torch._foreach_copy_(copies, masters)

    def copies(self) -> list[tuple[Tensor, Tensor]]:
        """Each copy of trained weights that the products read, and what it is a copy of."""
        return [copy for layer in self.layers for group in layer.groups for copy in group.copies()]

    def prepare(self, length: int, step: StepPlan) -> None:
        """Make all buffers.

        Args:
            length: Of an example, at most.
            step: How steps are taken.
        """
        self._tables = RotaryTables(self._rotary, self._embedding, length=length, tokens=step.rows * length)
        self._recomputed, self._chunk = step.recomputed, step.chunk
        needs = Needs(
            shape=self.shape,
            ranks=largest_ranks([layer.ranks for layer in self.layers]),
            tokens=step.rows * length,
            recomputed=step.recomputed,
            chunk=step.chunk,
            offloaded=step.offloaded,
            dropout=any(group.dropout for layer in self.layers for group in layer.groups),
        )
        self._buffers = make_buffers(needs, self._embedding)
        waiting = self.shape.layers + 1 - RING
        self._offload = Offload(waiting, self._buffers.streams[0]) if step.offloaded and waiting > 0 else None

    def propagate(self, inputs: Inputs, *, add: bool) -> Tensor:
        """Make the gradients of a micro-batch.

        Args:
            inputs: At most as many tokens as `prepare` made buffers for.
            add: Add to gradients that are there; else they are written over.

        Returns:
            The weighted sum of cross-entropies, in nats. Shape ().
        """
        results = [phase.run() for phase in self.phases(inputs, add=add) if phase.is_needed]
        assert results[-1] is not None  # noqa: S101 - the last phase has the loss
        return results[-1]

    def phases(self, inputs: Inputs, *, add: bool) -> list[Phase]:
        """The parts of `propagate`, each of which runs the same kernels in the same memory each time.

        Args:
            inputs: As for `propagate`.
            add: As for `propagate`.
        """
        targets = Targets(inputs.targets, inputs.weights, inputs.order)
        heads = [
            Phase(("head", part.start), partial(self._head_pass, targets, part), is_needed=is_needed)
            for part, is_needed in targets.chunks(self._chunk)
        ]
        forward = partial(self._forward_pass, inputs, add=add)
        return [Phase("forward", forward), *heads, Phase("backward", self._backward_pass)]

    @torch.no_grad()
    def _forward_pass(self, inputs: Inputs, *, add: bool) -> None:
        """From tokens to the rows that come to the head."""
        self._one = one = self._pass(inputs, add=add, learning=True)
        self._forward(one, inputs)
        if inputs.order is not None:
            clear(one.buffers)

    @torch.no_grad()
    def _head_pass(self, targets: Targets, part: slice) -> None:
        """The losses of some tokens, and the gradients of their rows."""
        add_losses(self._current, self._head, targets, part, backward=True)

    @torch.no_grad()
    def _backward_pass(self) -> Tensor:
        """From the gradients of rows to those of all adapters. Returns the loss, of shape ()."""
        one = self._current
        scratch = one.buffers.scratch
        one.kernels.norm_backward(
            scratch.grad_normed, one.buffers.streams[-1], self._last_norm, one.buffers.scales[-1],
            scratch.grad[:, : self.shape.width], scratch.normed, add=False,
        )  # fmt: skip
        for layer in reversed(self.layers):
            if self._offload is not None:
                self._offload.fetch(layer.number - 2, one.buffers.streams[layer.number - 2])
                self._offload.wait(layer.number)
            layer.backward(one)
        return one.buffers.losses.sum()

    @property
    def _current(self) -> Pass:
        """The micro-batch whose forward pass came last."""
        assert self._one is not None, "a forward pass comes first"  # noqa: S101 - a mistake of ours
        return self._one

    @torch.no_grad()
    def loss(self, inputs: Inputs) -> Tensor:
        """The weighted sum of cross-entropies in nats, without gradients. Shape ()."""
        one = self._pass(inputs, add=False, learning=False)
        self._forward(one, inputs)
        targets = Targets(inputs.targets, inputs.weights, inputs.order)
        one.buffers.losses.zero_()
        for part, is_needed in targets.chunks(self._chunk):
            if is_needed:
                add_losses(one, self._head, targets, part, backward=False)
        return one.buffers.losses.sum()

    @torch.no_grad()
    def next_token(self, inputs: Inputs, cache: KeyValueCache | None = None) -> Tensor:
        """The likeliest token after the last one. Shape ().

        Args:
            inputs: The prompt; one token if the cache holds those before it.
            cache: Takes keys and values, in memory of the residual stream.
        """
        one = self._pass(inputs, add=False, learning=False)
        if cache is not None:
            one.cache = cache
            if cache.tokens:
                one.buffers = one_row(one.buffers)
        self._forward(one, inputs)
        if cache is not None:
            cache.tokens += len(inputs.tokens)
        return torch.mv(self._head, one.buffers.scratch.normed[-1]).argmax()

    def generate(self, prompt: Inputs, count: int) -> list[int] | None:
        """Continue a prompt with the likeliest token each time, keeping keys and values.

        Args:
            prompt: One example.
            count: Tokens to add, at least 1; with the prompt no more than a row has.

        Returns:
            The added tokens; None where there is no memory to keep keys and values in.
        """
        cache = KeyValueCache.of(self.buffers, self.shape)
        if cache is None:
            return None
        first = len(prompt.tokens)
        added = [self.next_token(prompt, cache)]
        begins = -torch.arange(first, first + count, device=self.device, dtype=prompt.spans.dtype)
        for number in range(count - 1):  # a token at place p begins its example at -p
            spans = torch.stack([begins[number : number + 1], torch.ones_like(begins[:1])])
            pictures = None if prompt.pictures is None else _text_after(prompt.pictures, number + 1)
            one = Inputs(added[-1][None], prompt.targets[:1], prompt.weights[:1], prompt.seed, spans, pictures)
            added.append(self.next_token(one, cache))
        return [int(token) for token in torch.stack(added).tolist()]

    def _pass(self, inputs: Inputs, *, add: bool, learning: bool) -> Pass:
        """What the layers need to know."""
        assert self._tables is not None, "prepare() comes first"  # noqa: S101 - a mistake of ours
        axes = None if inputs.pictures is None else inputs.pictures.axes
        tables, begins = self._tables.of(axes, inputs.spans[0])
        return Pass(
            self.shape,
            kernels_for(inputs.tokens),
            self.buffers.cut(len(inputs.tokens)),
            inputs.spans,
            tables,
            begins,
            inputs.seed,
            add,
            learning,
            self._recomputed,
        )

    def _forward(self, one: Pass, inputs: Inputs) -> None:
        """From tokens to the normalised rows after the last layer."""
        first, pictures = one.buffers.streams[0], inputs.pictures
        torch.index_select(self._embedding, 0, inputs.tokens, out=first)
        if pictures is not None:
            torch.where(pictures.pictured, pictures.features[0], first, out=first)
            one.added = pictures.features[1:]
        self.layers[0].make_normed(one)
        norms = [layer.first_norm for layer in self.layers[1:]] + [self._last_norm]
        for layer, norm in zip(self.layers, norms, strict=True):
            if self._offload is not None:
                self._offload.wait(layer.number - 2)
            layer.forward(one, norm)
            if self._offload is not None:
                self._offload.send(layer.number, one.buffers.streams[layer.number])


def _text_after(prompt: PictureInputs, count: int) -> PictureInputs:
    """The inputs of the token of text that follows a prompt after some others."""
    return PictureInputs(
        torch.zeros_like(prompt.pictured[:1]),
        (prompt.axes[:, -1:].amax(0) + count).expand(3, 1).contiguous(),
        tuple(one[:1] for one in prompt.features[:1]),
    )


def _workspace_for(frozen: Sequence[Frozen], bits: int | None) -> Tensor | None:
    """Memory in which each of some quantized matrices can be dequantized, one at a time."""
    if bits is None:
        return None
    workspace = frozen[0].lora_a.new_empty(max(one.size for one in frozen))
    for one in frozen:
        one.use_workspace(workspace)
    return workspace
