"""What lies between the matrix products of a decoder, in plain torch: for the CPU, and for tests.

Every function writes into tensors that it is given. Rounding is Transformers' own: norms and softmax in float32,
results in the weights' type.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from holdwater.train.finetune.fused.plain_attention import attend, attend_backward
from holdwater.train.finetune.losses import IGNORED

__all__ = [
    "TOGETHER", "add_dropped", "adds_to_gates", "attend", "attend_backward", "chunk_of", "cross_entropy", "drop",
    "gate", "gate_backward", "lora_b_backward", "norm", "norm_backward", "norm_heads", "norm_heads_backward",
    "rotate", "rotate_backward",
]  # fmt: skip


TOGETHER = 0
"""Columns up to which `lora_b_backward` makes the gradients of B matrices too."""
LoraB = tuple[Sequence[Tensor], float]
"""The B matrices of adapters that read the same input, one for each layer, and their common scale."""


def norm(
    rows: Tensor,
    delta: Tensor | None,
    weight: Tensor,
    epsilon: float,
    total: Tensor,
    normed: Tensor,
    rstd: Tensor,
    small: Tensor | None = None,
) -> None:
    """Add a change to the residual stream, and normalise it by its root mean square.

    Args:
        rows: The residual stream. Shape (tokens, width).
        delta: What is added, then what an adapter's A matrix gave; None adds nothing. Shape (tokens,
            width + rank).
        weight: Of the norm. Shape (width,).
        epsilon: Added to the mean square.
        total: Gets the sum, where there is a change. Shape (tokens, width).
        normed: Gets the normalised rows. Shape (tokens, width).
        rstd: Gets the reciprocal root mean squares. Shape (tokens,).
        small: Gets what the A matrix gave; None where that is not needed. Shape (tokens, rank).
    """
    width = rows.shape[1]
    if small is not None and delta is not None:
        small.copy_(delta[:, width : width + small.shape[1]])
    if delta is not None:
        torch.add(rows, delta[:, :width], out=total)
        rows = total
    wide = rows.float()
    rstd.copy_(torch.rsqrt(wide.square().mean(-1) + epsilon))
    normed.copy_((wide * rstd[:, None]).to(rows.dtype) * weight)


def norm_backward(
    grad: Tensor, rows: Tensor, weight: Tensor, rstd: Tensor, into: Tensor, normed: Tensor, *, add: bool
) -> None:
    """Carry a gradient back through a norm, and make the normalised rows again.

    Args:
        grad: Of the normalised rows. Shape (tokens, width).
        rows: What was normalised. Shape (tokens, width).
        weight: Of the norm. Shape (width,).
        rstd: As the norm left it. Shape (tokens,).
        into: Gets the gradient of the rows. Shape (tokens, width).
        normed: Gets the normalised rows. Shape (tokens, width).
        add: Add to what `into` holds.
    """
    unit = rows.float() * rstd[:, None]
    scaled = grad.float() * weight.float()
    result = rstd[:, None] * (scaled - unit * (scaled * unit).mean(-1, keepdim=True))
    into.copy_(result + into.float() if add else result)
    normed.copy_(unit.to(rows.dtype) * weight)


def norm_heads(
    rows: Tensor, gains: tuple[Tensor, Tensor], heads: tuple[int, int], epsilon: float, out: Tensor
) -> None:
    """Normalise queries and keys, head by head; values are copied.

    Args:
        rows: Queries, keys and values side by side, and more. Shape (tokens, (heads + 2 * kv_heads) * head_width
            or more).
        gains: Weights of the norms of queries and keys. Shape (head_width,) each.
        heads: Of queries, and of keys.
        epsilon: Added to the mean square.
        out: Gets the result. Shape (tokens, (heads + 2 * kv_heads) * head_width).
    """
    width, begin = len(gains[0]), 0
    for gain, count in zip(gains, heads, strict=True):
        part = slice(begin, begin + count * width)
        wide = rows[:, part].reshape(len(rows), count, width).float()
        unit = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
        out[:, part] = (unit.to(rows.dtype) * gain).flatten(1)
        begin = part.stop
    out[:, begin:] = rows[:, begin : out.shape[1]]


def norm_heads_backward(
    grad: Tensor, rows: Tensor, gains: tuple[Tensor, Tensor], heads: tuple[int, int], epsilon: float
) -> None:
    """Carry gradients of queries and keys back through their norms.

    Args:
        grad: Of what `norm_heads` gave. Shape (tokens, (heads + 2 * kv_heads) * head_width).
        rows: As for `norm_heads`; they are replaced by their gradient.
        gains: As for `norm_heads`.
        heads: As for `norm_heads`.
        epsilon: As for `norm_heads`.
    """
    width, begin = len(gains[0]), 0
    for gain, count in zip(gains, heads, strict=True):
        part = slice(begin, begin + count * width)
        wide, grad_out = (one[:, part].reshape(len(rows), count, width).float() for one in (rows, grad))
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
        unit, scaled = wide * scale, grad_out * gain.float()
        rows[:, part] = (
            (scale * (scaled - unit * (scaled * unit).mean(-1, keepdim=True))).flatten(1).to(rows.dtype)
        )
        begin = part.stop
    rows[:, begin : grad.shape[1]] = grad[:, begin:]


def rotate(
    rows: Tensor,
    bias: Tensor | None,
    heads: tuple[int, int],
    tables: Tensor,
    begins: Tensor,
    lora_b: LoraB | None = None,
) -> None:
    """Add adapters and a bias to queries, keys and values; rotate queries and keys by their positions; in place.

    Args:
        rows: Queries, keys and values side by side, then what the adapters' A matrices gave. Shape (tokens,
            (heads + 2 * kv_heads) * head_width + ranks).
        bias: Shape (widths of outputs); None where the model has none.
        heads: Of queries, and of keys.
        tables: Cosines and sines by position. Shape (2, positions, head_width / 2).
        begins: Where the example of each token begins. Shape (tokens,).
        lora_b: The adapters' B matrices and their scale; None where nothing is to be added.
    """
    half = tables.shape[-1]
    widths = [heads[0] * 2 * half, heads[1] * 2 * half, heads[1] * 2 * half]
    if lora_b is not None:
        add_adapters(rows, widths, lora_b)
    if bias is not None:
        rows[:, : sum(widths)].add_(bias)
    rotated = rows[:, : sum(heads) * 2 * half].view(len(rows), sum(heads), 2, half)
    cosine, sine = _cos_sin(tables, begins)
    first, second = rotated[:, :, 0].float(), rotated[:, :, 1].float()
    rotated.copy_(torch.stack([first * cosine - second * sine, second * cosine + first * sine], dim=2))


def rotate_backward(
    grads: tuple[Tensor, Tensor, Tensor], heads: tuple[int, int], tables: Tensor, begins: Tensor, into: Tensor
) -> None:
    """Rotate the gradients of queries and keys back, and lay all three side by side.

    Args:
        grads: Of queries, keys and values, one for each head. Shape (tokens, heads * head_width) each.
        heads: Of queries, and of keys: each key adds up what the heads that read it have made.
        tables: As for `rotate`.
        begins: As for `rotate`.
        into: Gets them. Shape (tokens, (heads + 2 * kv_heads) * head_width).
    """
    tokens = len(into)
    queries, keys, values = (grad.view(tokens, heads[0], -1).float() for grad in grads)
    keys, values = (grad.view(tokens, heads[1], -1, grad.shape[-1]).sum(2) for grad in (keys, values))
    cosine, sine = _cos_sin(tables, begins)
    first, second = torch.cat([queries, keys], dim=1).chunk(2, dim=-1)
    rotated = torch.cat([first * cosine + second * sine, second * cosine - first * sine], dim=-1)
    into.copy_(torch.cat([rotated.flatten(1), values.flatten(1)], dim=1))


def add_adapters(rows: Tensor, widths: Sequence[int], lora_b: LoraB) -> None:
    """Add adapters to some layers' outputs that lie side by side, in place.

    Args:
        rows: The outputs, then what the A matrices gave. Shape (tokens, sum(widths) + len(widths) * rank).
        widths: Of the outputs.
        lora_b: The B matrices and their scale. Shape (width, rank) each.
    """
    matrices, scale = lora_b
    parts = torch.split(rows, [*widths, *(matrix.shape[1] for matrix in matrices)], dim=1)
    for out, small, matrix in zip(parts, parts[len(widths) :], matrices, strict=False):
        torch.addmm(out, small, matrix.t(), alpha=scale, out=out)


def _cos_sin(tables: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of each token. Shape (tokens, 1, head_width / 2)."""
    positions = torch.arange(len(begins), device=begins.device) - begins
    cosine, sine = (table[positions][:, None].float() for table in tables)
    return cosine, sine


def adds_to_gates(tokens: int, lora_b: LoraB | None) -> bool:
    """Whether `gate` is to add the adapters.

    Args:
        tokens: In a micro-batch.
        lora_b: As for `gate`.
    """
    del tokens
    return lora_b is not None


def chunk_of(grad: Tensor, lora_b: LoraB | None, workspace: Tensor) -> int | None:
    """None: plain products make the gradients of adapters; `lora_b_backward` is there for tests.

    Args:
        grad: As for `lora_b_backward`.
        lora_b: As for `lora_b_backward`.
        workspace: As for `lora_b_backward`.
    """
    del grad, lora_b, workspace
    return None


def lora_b_backward(
    grad: Tensor, small: Tensor, lora_b: LoraB, into: Sequence[Tensor], workspace: Tensor, *, chunk: int, add: bool
) -> None:
    """Make the gradients of B matrices, and of what the A matrices gave.

    Args:
        grad: Of the outputs; its last columns get the result. Shape (tokens, sum(widths) + count * rank).
        small: What the A matrices gave; may be the last columns of `grad`. Shape (tokens, count * rank).
        lora_b: The B matrices and their scale. Shape (width, rank) each.
        into: Get the gradients of the B matrices; empty where these are made elsewhere. Shape (width, rank)
            each.
        workspace: Not needed here.
        chunk: Not needed here.
        add: Add to gradients that are there.
    """
    del workspace, chunk
    matrices, scale = lora_b
    column, rank_column = 0, sum(len(matrix) for matrix in matrices)
    for number, matrix in enumerate(matrices):
        width, rank = matrix.shape
        outputs = grad[:, column : column + width]
        if into:
            made = scale * outputs.t() @ small[:, number * rank : (number + 1) * rank]
            into[number].copy_(into[number] + made if add else made)
        grad[:, rank_column : rank_column + rank] = scale * outputs @ matrix
        column, rank_column = column + width, rank_column + rank


def gate(pairs: Tensor, out: Tensor, lora_b: LoraB | None = None) -> None:
    """Add adapters to gates and values, in place, and multiply SiLU of the gates by the values.

    Args:
        pairs: Gates, values, then what the adapters' A matrices gave. Shape (tokens, 2 * inner + ranks).
        out: Gets the products. Shape (tokens, inner).
        lora_b: The adapters' B matrices and their scale; None where nothing is to be added.
    """
    inner = out.shape[1]
    if lora_b is not None:
        add_adapters(pairs, [inner, inner], lora_b)
    gates, values = pairs[:, :inner], pairs[:, inner : 2 * inner]
    out.copy_(torch.nn.functional.silu(gates.float()).to(out.dtype) * values)


def gate_backward(grad: Tensor, pairs: Tensor) -> None:
    """Carry a gradient back through the gates, in place; what comes in is replaced by the products.

    Args:
        grad: Of the products; holds the products afterwards. Shape (tokens, inner).
        pairs: Gates, then values; hold their gradients afterwards. Shape (tokens, 2 * inner).
    """
    gates, values = (part.float() for part in pairs.chunk(2, dim=-1))
    grad_out, sigmoid = grad.float(), torch.sigmoid(gates)
    opened = (gates * sigmoid).to(grad.dtype)
    of_gates = grad_out * values * sigmoid * (1 + gates * (1 - sigmoid))
    both = torch.cat([of_gates, grad_out * opened.float()], dim=-1)
    grad.copy_(opened * values.to(grad.dtype))
    pairs.copy_(both)


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor, losses: Tensor) -> None:
    """Weighted cross-entropies; the logits are replaced by their gradient.

    Args:
        logits: Shape (tokens, vocabulary).
        targets: The next token, or `IGNORED`. Shape (tokens,).
        weights: What each token counts. Shape (tokens,).
        losses: Gets weight times cross-entropy, in nats. Shape (tokens,).
    """
    wide = logits.float()
    counts = torch.where(targets == IGNORED, 0.0, weights)
    index = targets.clamp(min=0)[:, None]
    lse = torch.logsumexp(wide, dim=-1)
    losses.copy_((lse - wide.gather(1, index)[:, 0]) * counts)
    probs = torch.exp(wide - lse[:, None])
    probs.scatter_add_(1, index, torch.full_like(index, -1, dtype=probs.dtype))
    logits.copy_(probs * counts[:, None])


def drop(rows: Tensor, share: float, seed: Tensor, salt: int, out: Tensor) -> None:
    """Set a share of the values to zero and scale the rest up; the same seed and salt drop the same ones.

    Args:
        rows: Shape (tokens, width).
        share: Of the values.
        seed: Of the step. Shape (1,), int64.
        salt: Tells places of a step from one another.
        out: Gets the rest; may be `rows`. Shape (tokens, width).
    """
    generator = torch.Generator().manual_seed((int(seed.item()) * 1_000_003 + salt) % (1 << 62))
    keep = torch.rand(rows.shape, generator=generator) >= share
    out.copy_(torch.where(keep, rows / (1 - share), 0.0))


def add_dropped(rows: Tensor, share: float, seed: Tensor, salt: int, into: Tensor) -> None:
    """Add what `drop` leaves of some rows to others. Arguments as there."""
    dropped = torch.empty_like(rows)
    drop(rows, share, seed, salt, dropped)
    into.add_(dropped)
