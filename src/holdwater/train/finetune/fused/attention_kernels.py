"""Attention within packed examples as Triton kernels, forward and backward, summed in an order that never changes.

Tokens of all rows lie one after another; each sees the earlier ones of its own example. A program takes a block of
tokens and goes from where the first one's example begins to the block itself, so no list of examples is needed.
Source: Dao (2023), "FlashAttention-2", arXiv 2307.08691; here the gradient of the queries has programs of its own,
so nothing is added up by several at once.
"""

import triton
import triton.language as tl
from torch import Tensor

LOG2E = 1.4426950408889634


BLOCK = 64
"""Tokens of a program, and tokens that it looks at at once: the fastest of twelve tilings on an H200."""


@triton.jit
def _look(
    state,
    query,
    keys,
    values,
    stride,
    start,
    at,
    begin,
    scale,
    tokens,
    MASKED: tl.constexpr,
    BN: tl.constexpr,
    D: tl.constexpr,
):
    acc, most, total = state
    other = start + tl.arange(0, BN)
    column = tl.arange(0, D)
    place = other[:, None].to(tl.int64) * stride + column[None, :]
    if MASKED:
        key = tl.load(keys + place, (other < tokens)[:, None], 0.0)
        value = tl.load(values + place, (other < tokens)[:, None], 0.0)
    else:
        key = tl.load(keys + place)
        value = tl.load(values + place)
    score = tl.dot(query, tl.trans(key)) * scale
    if MASKED:
        seen = (other[None, :] <= at[:, None]) & (other[None, :] >= begin[:, None])
        score = tl.where(seen, score, -float("inf"))
    higher = tl.maximum(most, tl.max(score, 1))
    if MASKED:
        safe = tl.where(higher == -float("inf"), 0.0, higher)
    else:
        safe = higher
    prob = tl.exp2(score - safe[:, None])
    fade = tl.exp2(most - safe)
    acc = tl.dot(prob.to(value.dtype), value, acc * fade[:, None])
    return acc, higher, total * fade + tl.sum(prob, 1)


@triton.jit
def _attend(
    rows,
    stride,
    out,
    logsumexp,
    begins,
    tokens,
    heads,
    kv_heads,
    scale,
    D: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    first = (tl.num_programs(0) - 1 - tl.program_id(0)) * BM
    head = tl.program_id(1)
    at = first + tl.arange(0, BM)
    column = tl.arange(0, D)
    there = at < tokens
    begin = tl.load(begins + at, there, tokens)
    query = tl.load(rows + at[:, None].to(tl.int64) * stride + head * D + column[None, :], there[:, None], 0.0)
    keys = rows + (heads + head // (heads // kv_heads)) * D
    values = keys + kv_heads * D
    low = tl.load(begins + first) // BN * BN
    clear = tl.cdiv(tl.load(begins + tl.minimum(first + BM, tokens) - 1), BN) * BN
    diagonal = first // BN * BN
    whole = clear <= diagonal
    clear = tl.where(whole, clear, low)
    diagonal = tl.where(whole, diagonal, low)
    state = (
        tl.zeros((BM, D), tl.float32), tl.full((BM,), -float("inf"), tl.float32), tl.zeros((BM,), tl.float32)
    )  # fmt: skip
    for start in range(low, clear, BN):
        state = _look(state, query, keys, values, stride, start, at, begin, scale, tokens, True, BN, D)
    for start in range(clear, diagonal, BN):
        state = _look(state, query, keys, values, stride, start, at, begin, scale, tokens, False, BN, D)
    for start in range(diagonal, first + BM, BN):
        state = _look(state, query, keys, values, stride, start, at, begin, scale, tokens, True, BN, D)
    acc, most, total = state
    tl.store(logsumexp + head * tokens + at, most + tl.log2(total), there)
    place = (at[:, None].to(tl.int64) * heads + head) * D + column[None, :]
    tl.store(out + place, (acc / total[:, None]).to(query.dtype), there[:, None])


def attend(rows: Tensor, heads: tuple[int, int], begins: Tensor, out: Tensor, logsumexp: Tensor) -> None:
    """Let each token look at itself and at the earlier ones of its example.

    Args:
        rows: Queries, keys and values side by side. Shape (tokens, (heads + 2 * kv_heads) * head_width).
        heads: Of queries, and of keys.
        begins: Where the example of each token begins. Shape (tokens,), int32.
        out: Gets the result. Shape (tokens, heads * head_width).
        logsumexp: Gets the logarithms, to base 2, of the sums under the softmax. Shape (heads, tokens).
    """
    tokens, width = len(rows), out.shape[1] // heads[0]
    _attend[(triton.cdiv(tokens, BLOCK), heads[0])](
        rows, rows.stride(0), out, logsumexp, begins, tokens, heads[0], heads[1], width**-0.5 * LOG2E,
        D=width, BM=BLOCK, BN=BLOCK, num_warps=4, num_stages=3,
    )  # fmt: skip


@triton.jit
def _delta(out, grad, delta, tokens, heads, D: tl.constexpr, HEADS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    head, column = tl.arange(0, HEADS)[:, None], tl.arange(0, D)[None, :]
    place = row * heads * D + head * D + column
    product = tl.load(out + place, head < heads, 0.0).to(tl.float32)
    product *= tl.load(grad + place, head < heads, 0.0).to(tl.float32)
    head = tl.arange(0, HEADS)
    tl.store(delta + head * tokens + row, tl.sum(product, 1), head < heads)


@triton.jit
def _to_keys(
    state, key, value, queries, grads, stride, logsumexp, delta, begins, start, other, tokens, heads, scale,
    MASKED: tl.constexpr, BM: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    of_key, of_value = state
    at = start + tl.arange(0, BM)
    column = tl.arange(0, D)
    row = at[:, None].to(tl.int64)
    if MASKED:
        there = at < tokens
        query = tl.load(queries + row * stride + column[None, :], there[:, None], 0.0)
        grad = tl.load(grads + row * heads * D + column[None, :], there[:, None], 0.0)
        lse = tl.load(logsumexp + at, there, 0.0)
        row_delta = tl.load(delta + at, there, 0.0)
        begin = tl.load(begins + at, there, tokens)
    else:
        query = tl.load(queries + row * stride + column[None, :])
        grad = tl.load(grads + row * heads * D + column[None, :])
        lse = tl.load(logsumexp + at)
        row_delta = tl.load(delta + at)
        begin = at
    prob = tl.exp2(tl.dot(key, tl.trans(query)) * scale - lse[None, :])
    if MASKED:
        seen = (other[:, None] <= at[None, :]) & (other[:, None] >= begin[None, :]) & (at < tokens)[None, :]
        prob = tl.where(seen, prob, 0.0)
    of_value = tl.dot(prob.to(grad.dtype), grad, of_value)
    of_prob = tl.dot(value, tl.trans(grad))
    of_score = prob * (of_prob - row_delta[None, :])
    of_key = tl.dot(of_score.to(query.dtype), query, of_key)
    return of_key, of_value


@triton.jit
def _to_queries(
    of_query, query, grad, lse, row_delta, keys, values, stride, start, at, begin, tokens, scale,
    MASKED: tl.constexpr, BN: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    other = start + tl.arange(0, BN)
    column = tl.arange(0, D)
    place = other[:, None].to(tl.int64) * stride + column[None, :]
    if MASKED:
        key = tl.load(keys + place, (other < tokens)[:, None], 0.0)
        value = tl.load(values + place, (other < tokens)[:, None], 0.0)
    else:
        key = tl.load(keys + place)
        value = tl.load(values + place)
    prob = tl.exp2(tl.dot(query, tl.trans(key)) * scale - lse[:, None])
    if MASKED:
        seen = (other[None, :] <= at[:, None]) & (other[None, :] >= begin[:, None])
        prob = tl.where(seen, prob, 0.0)
    of_score = prob * (tl.dot(grad, tl.trans(value)) - row_delta[:, None])
    return tl.dot(of_score.to(key.dtype), key, of_query)


@triton.jit
def _keys_program(
    rows, stride, grads, logsumexp, delta, begins, ends, of_keys, of_values, block, head, tokens, heads, kv_heads,
    scale, D: tl.constexpr, BN: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    first = block * BN
    other = first + tl.arange(0, BN)
    column = tl.arange(0, D)
    there = (other < tokens)[:, None]
    keys = rows + (heads + head // (heads // kv_heads)) * D
    place = other[:, None].to(tl.int64) * stride + column[None, :]
    key = tl.load(keys + place, there, 0.0)
    value = tl.load(keys + kv_heads * D + place, there, 0.0)
    queries, grads = rows + head * D, grads + head * D
    logsumexp, delta = logsumexp + head * tokens, delta + head * tokens
    low = first // BM * BM
    clear = tl.cdiv(first + BN, BM) * BM
    full = tl.load(ends + first) // BM * BM
    end = tl.load(ends + tl.minimum(first + BN, tokens) - 1)
    whole = clear <= full
    clear = tl.where(whole, clear, low)
    full = tl.where(whole, full, low)
    state = (tl.zeros((BN, D), tl.float32), tl.zeros((BN, D), tl.float32))
    for start in range(low, clear, BM):
        state = _to_keys(
            state, key, value, queries, grads, stride, logsumexp, delta, begins, start, other, tokens, heads,
            scale, True, BM, D,
        )  # fmt: skip
    for start in range(clear, full, BM):
        state = _to_keys(
            state, key, value, queries, grads, stride, logsumexp, delta, begins, start, other, tokens, heads,
            scale, False, BM, D,
        )  # fmt: skip
    for start in range(full, end, BM):
        state = _to_keys(
            state, key, value, queries, grads, stride, logsumexp, delta, begins, start, other, tokens, heads,
            scale, True, BM, D,
        )  # fmt: skip
    of_key, of_value = state
    into = (other[:, None].to(tl.int64) * heads + head) * D + column[None, :]
    tl.store(of_keys + into, (of_key * (scale / 1.4426950408889634)).to(key.dtype), there)
    tl.store(of_values + into, of_value.to(key.dtype), there)


@triton.jit
def _queries_program(
    rows, stride, grads, logsumexp, delta, begins, of_queries, block, head, tokens, heads, kv_heads, scale,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    first = block * BM
    at = first + tl.arange(0, BM)
    column = tl.arange(0, D)
    there = at < tokens
    row = at[:, None].to(tl.int64)
    begin = tl.load(begins + at, there, tokens)
    query = tl.load(rows + row * stride + head * D + column[None, :], there[:, None], 0.0)
    grad = tl.load(grads + (row * heads + head) * D + column[None, :], there[:, None], 0.0)
    lse = tl.load(logsumexp + head * tokens + at, there, 0.0)
    row_delta = tl.load(delta + head * tokens + at, there, 0.0)
    keys = rows + (heads + head // (heads // kv_heads)) * D
    values = keys + kv_heads * D
    low = tl.load(begins + first) // BN * BN
    clear = tl.cdiv(tl.load(begins + tl.minimum(first + BM, tokens) - 1), BN) * BN
    diagonal = first // BN * BN
    whole = clear <= diagonal
    clear = tl.where(whole, clear, low)
    diagonal = tl.where(whole, diagonal, low)
    of_query = tl.zeros((BM, D), tl.float32)
    for start in range(low, clear, BN):
        of_query = _to_queries(
            of_query, query, grad, lse, row_delta, keys, values, stride, start, at, begin, tokens, scale,
            True, BN, D,
        )  # fmt: skip
    for start in range(clear, diagonal, BN):
        of_query = _to_queries(
            of_query, query, grad, lse, row_delta, keys, values, stride, start, at, begin, tokens, scale,
            False, BN, D,
        )  # fmt: skip
    for start in range(diagonal, first + BM, BN):
        of_query = _to_queries(
            of_query, query, grad, lse, row_delta, keys, values, stride, start, at, begin, tokens, scale,
            True, BN, D,
        )  # fmt: skip
    place = (row * heads + head) * D + column[None, :]
    tl.store(of_queries + place, (of_query * (scale / 1.4426950408889634)).to(query.dtype), there[:, None])


@triton.jit
def _attend_backward(
    rows, stride, grads, logsumexp, delta, begins, ends, of_queries, of_keys, of_values, tokens, heads, kv_heads,
    scale, D: tl.constexpr, OWN: tl.constexpr, OTHER: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    block = tl.program_id(0)
    if tl.program_id(2) == 0:
        _keys_program(
            rows, stride, grads, logsumexp, delta, begins, ends, of_keys, of_values, block, head, tokens, heads,
            kv_heads, scale, D, OWN, OTHER,
        )  # fmt: skip
    else:
        _queries_program(
            rows, stride, grads, logsumexp, delta, begins, of_queries, tl.num_programs(0) - 1 - block, head,
            tokens, heads, kv_heads, scale, D, OWN, OTHER,
        )  # fmt: skip


def attend_backward(
    rows: Tensor, heads: tuple[int, int], spans: Tensor, out: Tensor, logsumexp: Tensor, delta: Tensor,
    grad: Tensor, into: tuple[Tensor, Tensor, Tensor],
) -> None:  # fmt: skip
    """Make the gradients of queries, keys and values.

    Args:
        rows: As for `attend`.
        heads: As for `attend`.
        spans: Where the example of each token begins and ends. Shape (2, tokens), int32.
        out: As `attend` left it. Shape (tokens, heads * head_width).
        logsumexp: As `attend` left them. Shape (heads, tokens).
        delta: Scratch. Shape (heads, tokens), float32.
        grad: Of the result. Shape as `out`.
        into: Get the gradients; those of keys and values once for each head that reads them. Shape as `out`.
    """
    tokens, width = len(rows), out.shape[1] // heads[0]
    _delta[(tokens,)](
        out, grad, delta, tokens, heads[0], D=width, HEADS=triton.next_power_of_2(heads[0]), num_warps=4
    )
    _attend_backward[(triton.cdiv(tokens, BLOCK), heads[0], 2)](
        rows, rows.stride(0), grad, logsumexp, delta, spans[0], spans[1], *into, tokens, heads[0], heads[1],
        width**-0.5 * LOG2E, D=width, OWN=BLOCK, OTHER=BLOCK, num_warps=4, num_stages=2,
    )  # fmt: skip
