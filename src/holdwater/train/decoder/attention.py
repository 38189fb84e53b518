"""Attention within each example of some packed rows, forward and backward, without a graph.

On a CUDA device PyTorch's own flash attention does it, told to add up in a fixed order. Source: Dao (2023),
"FlashAttention-2", arXiv 2307.08691. Elsewhere it is written out, for small models.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_ops = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Places:
    """Which tokens belong together."""

    positions: Tensor
    """The place of each token in its example. Shape (tokens,), int32."""
    bounds: Tensor
    """Where each example begins, and the last ends; the rest repeat the end. Shape (slots + 1,), int32."""
    longest: int
    """Tokens in an example, at most."""


@dataclass(frozen=True, slots=True)
class Attended:
    """What attention gave, and what its way back needs."""

    out: Tensor
    """Shape (tokens, heads, head_width)."""
    norms: Tensor
    """Logarithms of the sums under the softmax."""
    rest: tuple[Any, ...] = ()
    """The kernel's own."""


def attend(queries: Tensor, keys: Tensor, values: Tensor, places: Places) -> Attended:
    """Let each token look at itself and at the earlier ones of its example.

    Args:
        queries: Shape (tokens, heads, head_width).
        keys: Shape (tokens, kv_heads, head_width).
        values: Shape (tokens, kv_heads, head_width).
        places: Which tokens belong together.
    """
    if not queries.is_cuda:
        return _attend_plainly(queries, keys, values, places)
    longest = places.longest
    found = _ops._flash_attention_forward(  # noqa: SLF001 - its only name
        queries, keys, values, places.bounds, places.bounds, longest, longest, 0.0, True, False  # noqa: FBT003
    )
    return Attended(found[0], found[1], (found[2], found[3]))


def attend_backward(
    grad: Tensor, inputs: tuple[Tensor, Tensor, Tensor], attended: Attended, places: Places
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of queries, keys and values.

    Args:
        grad: Of the output. Shape (tokens, heads, head_width).
        inputs: Queries, keys and values, as `attend` was given them.
        attended: What it returned.
        places: Which tokens belong together.
    """
    if not grad.is_cuda:
        return _attend_plainly_backward(grad, inputs, attended, places)
    longest = places.longest
    with _in_a_fixed_order():
        queries, keys, values = _ops._flash_attention_backward(  # noqa: SLF001 - its only name
            grad, *inputs, attended.out, attended.norms, places.bounds, places.bounds, longest, longest, 0.0, True,
            *attended.rest,
        )  # fmt: skip
    return queries, keys, values


@contextmanager
def _in_a_fixed_order() -> Iterator[None]:
    """Let kernels add up in an order that never changes."""
    before = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = False  # it would write every new tensor twice
    torch.use_deterministic_algorithms(mode=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=before)
        torch.utils.deterministic.fill_uninitialized_memory = filled


def _chances(queries: Tensor, keys: Tensor, places: Places) -> tuple[Tensor, Tensor, Tensor]:
    """What each token makes of the others: chances, logarithms of their sums, and the keys of each head."""
    heads, tokens = queries.shape[1], queries.shape[0]
    spread = keys.repeat_interleave(heads // keys.shape[1], dim=1)
    order = torch.arange(tokens, device=queries.device)
    example = torch.bucketize(order, places.bounds.long(), right=True)
    seen = (example[:, None] == example[None, :]) & (order[:, None] >= order[None, :])
    scores = torch.einsum("qhd,khd->hqk", queries.float(), spread.float()) * queries.shape[-1] ** -0.5
    scores = scores.masked_fill(~seen, -torch.inf)
    return scores.softmax(-1), scores.logsumexp(-1), spread


def _attend_plainly(queries: Tensor, keys: Tensor, values: Tensor, places: Places) -> Attended:
    """As `attend`, with all chances at once."""
    chances, norms, _ = _chances(queries, keys, places)
    spread = values.repeat_interleave(queries.shape[1] // values.shape[1], dim=1)
    return Attended(torch.einsum("hqk,khd->qhd", chances, spread.float()).to(queries.dtype), norms)


def _attend_plainly_backward(
    grad: Tensor, inputs: tuple[Tensor, Tensor, Tensor], attended: Attended, places: Places
) -> tuple[Tensor, Tensor, Tensor]:
    """As `attend_backward`, with all chances at once."""
    queries, keys, values = inputs
    chances, _, spread = _chances(queries, keys, places)
    groups = (values.shape[1], queries.shape[1] // values.shape[1])
    above = grad.float()
    each_value = torch.einsum("hqk,qhd->khd", chances, above)
    of_chances = torch.einsum("qhd,khd->hqk", above, values.repeat_interleave(groups[1], dim=1).float())
    level = (above * attended.out.float()).sum(-1).T[..., None]
    of_scores = chances * (of_chances - level) * queries.shape[-1] ** -0.5
    of_queries = torch.einsum("hqk,khd->qhd", of_scores, spread.float())
    each_key = torch.einsum("hqk,qhd->khd", of_scores, queries.float())
    joined = (each.unflatten(1, groups).sum(2) for each in (each_key, each_value))
    of_keys, of_values = (each.to(keys.dtype) for each in joined)
    return of_queries.to(queries.dtype), of_keys, of_values
