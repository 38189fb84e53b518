"""Attention within packed examples in plain torch, all probabilities at once: for small models, and for tests."""

import torch
from torch import Tensor


def attend(rows: Tensor, heads: tuple[int, int], begins: Tensor, out: Tensor, logsumexp: Tensor) -> None:
    """Let each token look at itself and at the earlier ones of its example.

    Args:
        rows: Queries, keys and values side by side. Shape (tokens, (heads + 2 * kv_heads) * head_width).
        heads: Of queries, and of keys.
        begins: Where the example of each token begins. Shape (tokens,).
        out: Gets the result. Shape (tokens, heads * head_width).
        logsumexp: Gets the logarithms, to base 2, of the sums under the softmax. Shape (heads, tokens).
    """
    queries, keys, values = _parts(rows, heads)
    scores = _scores(queries, keys, begins)
    logsumexp.copy_(scores.logsumexp(-1) / torch.log(torch.tensor(2.0)))
    out.copy_(torch.einsum("hqk,khd->qhd", scores.softmax(-1), values).flatten(1))


def attend_backward(  # noqa: PLR0913, PLR0917 - as the kernel it stands in for
    rows: Tensor,
    heads: tuple[int, int],
    spans: Tensor,
    out: Tensor,
    logsumexp: Tensor,  # noqa: ARG001 - the kernel needs them
    delta: Tensor,
    grad: Tensor,
    into: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Make the gradients of queries, keys and values.

    Args:
        rows: As for `attend`.
        heads: As for `attend`.
        spans: Where the example of each token begins and ends. Shape (2, tokens).
        out: As `attend` left it. Shape (tokens, heads * head_width).
        logsumexp: As `attend` left them. Shape (heads, tokens).
        delta: Scratch. Shape (heads, tokens), float32.
        grad: Of the result. Shape as `out`.
        into: Get the gradients; those of keys and values once for each head that reads them. Shape as `out`.
    """
    queries, keys, values = _parts(rows, heads)
    probs = _scores(queries, keys, spans[0]).softmax(-1)
    grad_out, given = grad.float().view_as(queries), out.float().view_as(queries)
    delta.copy_((grad_out * given).sum(-1).T)
    of_scores = probs * (torch.einsum("qhd,khd->hqk", grad_out, values) - delta[..., None])
    of_scores *= queries.shape[-1] ** -0.5
    into[0].copy_(torch.einsum("hqk,khd->qhd", of_scores, keys).flatten(1))
    into[1].copy_(torch.einsum("hqk,qhd->khd", of_scores, queries).flatten(1))
    into[2].copy_(torch.einsum("hqk,qhd->khd", probs, grad_out).flatten(1))


def _parts(rows: Tensor, heads: tuple[int, int]) -> list[Tensor]:
    """Queries, keys and values, one of each for each head. Shape (tokens, heads, head_width) each."""
    width = rows.shape[1] // (heads[0] + 2 * heads[1])
    sizes = [heads[0] * width, heads[1] * width, heads[1] * width]
    queries, *others = (part.reshape(len(rows), -1, width).float() for part in torch.split(rows, sizes, dim=1))
    return [queries, *(part.repeat_interleave(heads[0] // heads[1], dim=1) for part in others)]


def _scores(queries: Tensor, keys: Tensor, begins: Tensor) -> Tensor:
    """What is under the softmax. Shape (heads, tokens, tokens)."""
    order = torch.arange(len(queries), device=queries.device)
    seen = (order[None, :] <= order[:, None]) & (order[None, :] >= begins[:, None])
    scores = torch.einsum("qhd,khd->hqk", queries, keys) * queries.shape[-1] ** -0.5
    masked: Tensor = scores.masked_fill(~seen, -torch.inf)
    return masked
