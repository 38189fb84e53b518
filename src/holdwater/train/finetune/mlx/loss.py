"""Cross-entropy of MLX models, some tokens at a time: the logits of a long row never exist at once.

Only tokens that are learned have logits at all.
The gradient of the hidden states is made in the forward pass, together with the loss, so a product with the
head's weights is not repeated in the backward pass. The head itself gets no gradient: it is frozen.
"""

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
from mlx.nn.losses import cross_entropy

CHUNK = 256
"""Tokens whose logits exist at once; 256 by a vocabulary of 128,256 in float32 are 131 MB."""

Head = Callable[[mx.array], mx.array]
"""Makes logits of hidden states."""


def split_head(model: Any) -> Head | None:  # noqa: ANN401 - a model of mlx_lm
    """The output head of a model, if its logits are exactly `head(model.model(tokens))`.

    Args:
        model: With its weights.

    Returns:
        None where the model does anything else to its logits, such as scaling them or capping them.
    """
    body = getattr(model, "model", None)
    table = getattr(body, "embed_tokens", None)
    head = model.lm_head if "lm_head" in model else getattr(table, "as_linear", None)
    if body is None or head is None:
        return None
    tokens = mx.arange(4)[None]
    try:
        same = mx.array_equal(model(tokens), head(body(tokens)))
    except (TypeError, ValueError, AttributeError):
        return None
    return head if same.item() else None


def loss_sum(
    model: Any,  # noqa: ANN401 - a model of mlx_lm
    head: Head | None,
    tokens: mx.array,
    learned: Sequence[mx.array],
    *,
    learns: bool,
) -> mx.array:
    """The sum over tokens of weight times cross-entropy, in nats.

    Args:
        model: Of the rows.
        head: Of the model; None makes all logits at once by the model's own code.
        tokens: Of some rows. Shape (rows, length).
        learned: Places, targets and weights of the tokens that are learned. Shape (count,) each.
        learns: Whether a gradient is wanted.

    Returns:
        In float32. Shape ().
    """
    places, targets, weights = learned
    if head is None:
        return _cross_entropy(model(tokens).flatten(0, 1)[places], targets, weights)
    summed = _with_gradient(head) if learns else _without_gradient(head)
    return summed(model.model(tokens).flatten(0, 1)[places], targets, weights)


def _cross_entropy(logits: mx.array, targets: mx.array, weights: mx.array) -> mx.array:
    """The weighted sum. Shapes: (count, vocabulary), (count,), (count,)."""
    return (cross_entropy(logits.astype(mx.float32), targets) * weights).sum()


def _parts(tokens: int) -> list[slice]:
    """Where the chunks lie."""
    return [slice(begin, begin + CHUNK) for begin in range(0, tokens, CHUNK)]


def _without_gradient(head: Head) -> Callable[[mx.array, mx.array, mx.array], mx.array]:
    """The sum over chunks, each after the one before."""

    def summed(hidden: mx.array, targets: mx.array, weights: mx.array) -> mx.array:
        """Add the chunks up."""
        total = mx.array(0.0)
        for part in _parts(len(hidden)):
            (chunk,) = mx.depends([hidden[part]], [total])
            total = total + _cross_entropy(head(chunk), targets[part], weights[part])
        return total

    return summed


def _with_gradient(head: Head) -> Callable[[mx.array, mx.array, mx.array], mx.array]:
    """The same sum, whose gradient with respect to the hidden states is made at once."""

    def both(hidden: mx.array, targets: mx.array, weights: mx.array) -> tuple[mx.array, mx.array]:
        """The sum and its gradient; a chunk waits for the one before, so that their logits do not coexist."""
        total, gradients = mx.array(0.0), [mx.zeros((0, hidden.shape[-1]), hidden.dtype)]
        for part in _parts(len(hidden)):
            (chunk,) = mx.depends([hidden[part]], [total, gradients[-1]])

            def of_chunk(chunk: mx.array, part: slice = part) -> mx.array:
                """The sum over a chunk."""
                return _cross_entropy(head(chunk), targets[part], weights[part])

            (loss,), (gradient,) = mx.vjp(of_chunk, [chunk], [mx.array(1.0)])
            total = total + loss
            gradients.append(gradient)
        return total, mx.concatenate(gradients)

    summed: Any = mx.custom_function(both)

    def scale(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, ...]:  # noqa: ANN401
        """Hand on the gradient that is there already."""
        _, targets, weights = primals
        return outputs[1] * cotangents[0], mx.zeros_like(targets), mx.zeros_like(weights)

    summed.vjp(scale)
    return lambda hidden, targets, weights: summed(hidden, targets, weights)[0]
