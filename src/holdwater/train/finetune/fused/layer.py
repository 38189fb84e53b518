"""One layer of a decoder with frozen weights: forward, and the backward pass to the adapters and to its input."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from holdwater.train.finetune.fused.buffers import AdapterRanks, StepBuffers
from holdwater.train.finetune.fused.frozen import WeightPlacement
from holdwater.train.finetune.fused.key_value_cache import KeyValueCache
from holdwater.train.finetune.fused.plain_kernels import LoraB
from holdwater.train.finetune.fused.products import ProductGroup
from holdwater.train.finetune.fused.shape import DecoderShape


@dataclass(slots=True)
class Pass:
    """What all layers of one micro-batch have in common."""

    shape: DecoderShape
    kernels: ModuleType
    buffers: StepBuffers
    spans: Tensor
    """Where the example of each token begins and ends. Shape (2, tokens), int32."""
    tables: Tensor
    """Cosines and sines. Shape (2, positions, head_width / 2)."""
    begins: Tensor
    """Each token reads the row of the tables at its place less this. Shape (tokens,), int32."""
    seed: Tensor
    """Of the dropout of this micro-batch. Shape (1,), int64."""
    add: bool
    """Add to gradients that are there."""
    learning: bool
    """Whether adapters have their dropout."""
    recomputed: int
    """Layers whose inside is computed again in the backward pass, from the first one on."""
    added: tuple[Tensor, ...] = ()
    """What is added to the residual stream behind each of the first layers. Shape (tokens, width) each."""
    cache: KeyValueCache | None = None
    """Takes keys and values of the prompt while it is empty; afterwards the pass is one token after these."""


class DecoderLayer:
    """A layer: attention and a gated network, each after a norm, added to the residual stream."""

    def __init__(self, module: Any, number: int, where: WeightPlacement, *, normed_heads: bool) -> None:  # noqa: ANN401
        """Take the weights of a layer of Transformers over; the layer itself keeps views of them.

        Args:
            module: The layer.
            number: From 0.
            where: The frozen weights are put.
            normed_heads: Whether each head of queries and keys is normalised.
        """
        attention, network = module.self_attn, module.mlp
        self.number = number
        self.queries = ProductGroup(
            f"{number}.queries", [attention.q_proj, attention.k_proj, attention.v_proj], where
        )
        self.output = ProductGroup(f"{number}.output", [attention.o_proj], where)
        self.gates = ProductGroup(f"{number}.gates", [network.gate_proj, network.up_proj], where)
        self.down = ProductGroup(f"{number}.down", [network.down_proj], where)
        self.first_norm = where.take(f"{number}.first_norm", module.input_layernorm.weight)
        self.second_norm = where.take(f"{number}.second_norm", module.post_attention_layernorm.weight)
        self.head_norms: tuple[Tensor, Tensor] | None = None
        """Weights of the norms of queries and keys, head by head; None where there are none."""
        if normed_heads:
            query, key = attention.q_norm.weight, attention.k_norm.weight
            self.head_norms = where.take(f"{number}.query_norm", query), where.take(f"{number}.key_norm", key)

    @property
    def groups(self) -> list[ProductGroup]:
        """The products, in the order of the forward pass."""
        return [self.queries, self.output, self.gates, self.down]

    @property
    def norms(self) -> list[Tensor]:
        """The weights of the norms."""
        return [self.first_norm, self.second_norm, *(self.head_norms or ())]

    @property
    def ranks(self) -> AdapterRanks:
        """AdapterRanks of the adapters."""
        return AdapterRanks(
            queries=self.queries.rank, output=self.output.rank, gates=self.gates.rank, down=self.down.rank
        )

    def forward(self, one: Pass, next_norm: Tensor) -> None:
        """Go from the stream before this layer to the one after it, and to its normalised rows.

        The normalised rows of the stream before must lie in the scratch.

        Args:
            one: The micro-batch.
            next_norm: Weight of the norm that comes after this layer.
        """
        self.forward_to_gates(one)
        buffers, kernels, kept = one.buffers, one.kernels, one.buffers.kept[self.number]
        scratch, inner = buffers.scratch, _view(buffers.scratch.inner, one.shape.inner)
        gates = kept.gates[:, : self.gates.width]
        fused = kernels.adds_to_gates(len(gates), self.gates.lora_b)
        kernels.gate(gates, inner, self._fused_lora_b(self.gates, gates, fused=fused))
        delta = scratch.delta[:, : self.down.width]
        self._apply(self.down, inner, delta, one)
        self.down.add_lora_b(delta)
        if self.number < len(one.added):
            narrow = delta[:, : one.shape.width]
            torch.add(narrow, one.added[self.number], out=narrow)
        kernels.norm(
            kept.middle, delta, next_norm, one.shape.epsilon,
            buffers.streams[self.number + 1], scratch.normed, buffers.scales[2 * self.number + 2],
            kept.small_down[:, : self.down.rank] if self.down.rank else None,
        )  # fmt: skip
        if one.cache is not None and not one.cache.tokens:
            one.cache.keep(self.number, self._rotated(one))  # in the stream before this layer, which has been read

    def forward_to_gates(self, one: Pass) -> None:
        """The part of `forward` that the backward pass may need once more."""
        buffers, kernels, shape = one.buffers, one.kernels, one.shape
        kept, scratch = buffers.kept[self.number], buffers.scratch
        rows, heads = kept.queries[:, : self.queries.width], (shape.heads, shape.kv_heads)
        self._apply(self.queries, scratch.normed, rows, one)
        lora_b = self._fused_lora_b(self.queries, rows, fused=self.head_norms is None)
        if self.head_norms is None:
            kernels.rotate(rows, self.queries.bias, heads, one.tables, one.begins, lora_b)
        rotated = self._rotated(one)
        if one.cache is not None and one.cache.tokens:
            one.cache.attend(self.number, rotated, kept.attended)
        else:
            kernels.attend(rotated, heads, one.spans[0], kept.attended, kept.logsumexp.view(shape.heads, -1))
        delta = scratch.delta[:, : self.output.width]
        self._apply(self.output, kept.attended, delta, one)
        self.output.add_lora_b(delta)
        kernels.norm(
            buffers.streams[self.number], delta, self.second_norm, shape.epsilon,
            kept.middle, scratch.normed, buffers.scales[2 * self.number + 1],
            kept.small_output[:, : self.output.rank] if self.output.rank else None,
        )  # fmt: skip
        self._apply(self.gates, scratch.normed, kept.gates[:, : self.gates.width], one)

    def backward(self, one: Pass) -> None:
        """Carry the gradient of the residual stream, which lies in the scratch, back through this layer.

        Args:
            one: The micro-batch.
        """
        if self.number < one.recomputed:
            self.make_normed(one)
            self.forward_to_gates(one)
            self.gates.add_lora_b(one.buffers.kept[self.number].gates[:, : self.gates.width])
        self._backward_network(one)
        self._backward_attention(one)

    def make_normed(self, one: Pass) -> None:
        """Normalise the stream before this layer."""
        buffers, scales = one.buffers, one.buffers.scales[2 * self.number]
        stream = buffers.streams[self.number]
        normed = buffers.scratch.normed
        one.kernels.norm(stream, None, self.first_norm, one.shape.epsilon, stream, normed, scales)

    def _backward_network(self, one: Pass) -> None:
        """The backward pass through the gated network and the norm before it."""
        buffers, kernels, kept = one.buffers, one.kernels, one.buffers.kept[self.number]
        scratch, inner = buffers.scratch, _view(buffers.scratch.inner, one.shape.inner)
        grad = scratch.grad[:, : self.down.width]
        self._lora_b_backward(self.down, grad, kept.small_down, one)
        self._rows_backward(self.down, grad, inner, one)
        gates = kept.gates[:, : self.gates.width]
        kernels.gate_backward(inner, gates[:, : self.gates.outer])
        self._lora_a_backward(self.down, grad, inner, one)
        self._lora_b_backward(self.gates, gates, gates[:, self.gates.outer :], one)
        self._rows_backward(self.gates, gates, scratch.grad_normed, one)
        kernels.norm_backward(
            scratch.grad_normed, kept.middle, self.second_norm, buffers.scales[2 * self.number + 1],
            scratch.grad[:, : one.shape.width], scratch.normed, add=True,
        )  # fmt: skip
        self._lora_a_backward(self.gates, gates, scratch.normed, one)

    def _backward_attention(self, one: Pass) -> None:
        """The backward pass through attention and the norm before it; no gradient of the first input."""
        buffers, kernels, shape, kept = one.buffers, one.kernels, one.shape, one.buffers.kept[self.number]
        scratch, heads = buffers.scratch, (shape.heads, shape.kv_heads)
        grad = scratch.grad[:, : self.output.width]
        self._lora_b_backward(self.output, grad, kept.small_output, one)
        grad_out, *grads = _views(scratch.inner, shape.query_width, 4)
        self._rows_backward(self.output, grad, grad_out, one)
        self._lora_a_backward(self.output, grad, kept.attended, one)
        queries = kept.queries[:, : self.queries.width]
        rotated = self._rotated(one)
        logsumexp, delta = (rows.view(shape.heads, -1) for rows in (kept.logsumexp, scratch.attention_delta))
        kernels.attend_backward(rotated, heads, one.spans, kept.attended, logsumexp, delta, grad_out, grads)
        kernels.rotate_backward(grads, heads, one.tables, one.begins, rotated)
        if self.head_norms is not None:
            kernels.norm_heads_backward(rotated, queries, self.head_norms, heads, shape.epsilon)
        self._lora_b_backward(self.queries, queries, queries[:, self.queries.outer :], one)
        if self.number == 0:
            self.make_normed(one)
        else:
            self._rows_backward(self.queries, queries, scratch.grad_normed, one)
            kernels.norm_backward(
                scratch.grad_normed, buffers.streams[self.number], self.first_norm,
                buffers.scales[2 * self.number], scratch.grad[:, : shape.width], scratch.normed, add=True,
            )  # fmt: skip
        self._lora_a_backward(self.queries, queries, scratch.normed, one)

    def _rotated(self, one: Pass) -> Tensor:
        """Queries, keys and values as attention takes them; with normalised heads they are made again."""
        rows, scratch = one.buffers.kept[self.number].queries, one.buffers.scratch.rotated
        if self.head_norms is None or scratch is None:
            return rows[:, : self.queries.outer]
        heads = (one.shape.heads, one.shape.kv_heads)
        one.kernels.norm_heads(rows, self.head_norms, heads, one.shape.epsilon, scratch)
        one.kernels.rotate(scratch, None, heads, one.tables, one.begins)
        return scratch

    @staticmethod
    def _fused_lora_b(group: ProductGroup, out: Tensor, *, fused: bool = True) -> LoraB | None:
        """The B matrices, for a kernel that adds them as well; None where they were added here."""
        if fused and group.lora_b is not None:
            return group.lora_b
        group.add_lora_b(out)
        return None

    def _apply(self, group: ProductGroup, rows: Tensor, out: Tensor, one: Pass) -> None:
        """Apply a group but for its B matrices, with dropout before its adapters if there is some."""
        group.forward(rows, out, self._drop(group, rows, one))

    def _rows_backward(self, group: ProductGroup, grad: Tensor, into: Tensor, one: Pass) -> None:
        """Carry a gradient back to the input of a group."""
        adapter_grad = one.buffers.scratch.adapter_grad
        if adapter_grad is None or not group.dropout or not group.rank:
            group.backward_rows(grad, into)
            return
        group.backward_rows(grad, into, adapters=False)
        adapter_rows = _view(adapter_grad, group.inner)
        group.backward_small(grad, adapter_rows)
        one.kernels.add_dropped(adapter_rows, group.dropout, one.seed, self._salt(group), into)

    @staticmethod
    def _lora_b_backward(group: ProductGroup, grad: Tensor, small: Tensor, one: Pass) -> None:
        """Make the gradients of a group's B matrices, and of what its A matrices gave."""
        kernels, lora_b = one.kernels, group.lora_b
        workspace = one.buffers.scratch.grad_normed  # waits for its next use
        chunk = kernels.chunk_of(grad, lora_b, workspace)
        together = chunk is not None and group.outer <= kernels.TOGETHER
        if not together:
            group.backward_lora_b(grad, small, add=one.add)
        if chunk is None:
            group.fold(grad)
            return
        into = group.lora_b_gradients() if together else ()
        kernels.lora_b_backward(grad, small, lora_b, into, workspace, chunk=chunk, add=one.add)

    def _lora_a_backward(self, group: ProductGroup, grad: Tensor, rows: Tensor, one: Pass) -> None:
        """Make the gradient of a group's A matrices."""
        if group.rank:
            dropped = self._drop(group, rows, one)
            group.backward_lora_a(grad, rows if dropped is None else dropped, add=one.add)

    def _drop(self, group: ProductGroup, rows: Tensor, one: Pass) -> Tensor | None:
        """The rows after dropout; None where there is none."""
        if not one.learning or one.buffers.scratch.dropped is None or not group.dropout or not group.rank:
            return None
        dropped = _view(one.buffers.scratch.dropped, group.inner)
        one.kernels.drop(rows, group.dropout, one.seed, self._salt(group), dropped)
        return dropped

    def _salt(self, group: ProductGroup) -> int:
        """A number that gives each group its own dropout."""
        return 4 * self.number + self.groups.index(group)


def _view(buffer: Tensor, width: int) -> Tensor:
    """The beginning of a buffer as rows of another width. Shape (tokens, width)."""
    return buffer.flatten()[: len(buffer) * width].view(len(buffer), width)


def _views(buffer: Tensor, width: int, count: int) -> list[Tensor]:
    """Parts of a buffer, one after another. Shape (tokens, width) each."""
    size = len(buffer) * width
    flat = buffer.flatten()
    return [flat[number * size : (number + 1) * size].view(len(buffer), width) for number in range(count)]
