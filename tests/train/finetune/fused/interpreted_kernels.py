"""Run each Triton kernel in Triton's interpreter on the CPU, and compare it with plain torch.

`test_interpreted_kernels.py` starts this script with TRITON_INTERPRET=1. It prints the largest relative distance of
each kernel's results as JSON. All is in float32, since the interpreter rounds bfloat16 otherwise than a device does.
"""

import json
import math
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from holdwater.train.finetune.fused import plain_kernels, quantized_kernels, triton_kernels
from holdwater.train.finetune.fused.quantized import dequantize, quantize
from holdwater.train.finetune.fused.segment_attention_kernels import attend as attend_segments
from holdwater.train.finetune.fused.update_kernels import FlatUpdate
from holdwater.train.flat import FlatAdamW, FlatWeights

TOKENS = 70
"""More than one block of 64, and no multiple of it."""


def spans(*sizes: int) -> Tensor:
    """Where examples of some lengths begin and end. Shape (2, tokens)."""
    ends = torch.tensor(sizes).cumsum(0)
    both = torch.stack([ends - torch.tensor(sizes), ends])
    return both.repeat_interleave(torch.tensor(sizes), dim=1).int()


def norm(kernels: ModuleType) -> list[Tensor]:
    """Forward and backward, with a change of the stream and what an adapter's A matrix gave."""
    rows, weight, delta = torch.randn(TOKENS, 64), torch.randn(64), torch.randn(TOKENS, 64 + 12)
    grad, total, normed, again, into = (torch.randn(TOKENS, 64) for _ in range(5))
    rstd, small = torch.empty(TOKENS), torch.empty(TOKENS, 12)
    kernels.norm(rows, delta, weight, 1e-5, total, normed, rstd, small)
    kernels.norm_backward(grad, rows, weight, rstd, into, again, add=True)
    return [total, normed, rstd, small, into, again]


def norm_heads(kernels: ModuleType) -> list[Tensor]:
    """Forward and backward, with grouped queries."""
    rows, grad, gains = torch.randn(TOKENS, 8 * 32 + 5), torch.randn(TOKENS, 8 * 32), torch.randn(2, 32)
    out = torch.empty_like(grad)
    kernels.norm_heads(rows, (gains[0], gains[1]), (4, 2), 1e-6, out)
    kernels.norm_heads_backward(grad, rows, (gains[0], gains[1]), (4, 2), 1e-6)
    return [out, rows]


def rotate(kernels: ModuleType) -> list[Tensor]:
    """With a bias, with and without adapters; and backward."""
    angles, begins = torch.rand(TOKENS, 16), spans(5, TOKENS - 5)[0]
    tables, bias = torch.stack([angles.cos(), angles.sin()]), torch.randn(8 * 32)
    lora_b = ([torch.randn(4 * 32, 8), torch.randn(2 * 32, 8), torch.randn(2 * 32, 8)], 0.5)
    made = []
    for adapters in (None, lora_b):
        rows, into = torch.randn(TOKENS, 8 * 32 + 24), torch.empty(TOKENS, 8 * 32)
        grads = tuple(torch.randn(TOKENS, 4 * 32) for _ in range(3))
        kernels.rotate(rows, bias, (4, 2), tables, begins, adapters)
        kernels.rotate_backward(grads, (4, 2), tables, begins, into)
        made += [rows, into]
    return made


def gate(kernels: ModuleType) -> list[Tensor]:
    """With and without adapters; and backward."""
    made = []
    for lora_b in (None, ([torch.randn(96, 8), torch.randn(96, 8)], 0.5)):
        pairs, out, grad = torch.randn(TOKENS, 2 * 96 + 16), torch.empty(TOKENS, 96), torch.randn(TOKENS, 96)
        kernels.gate(pairs, out, lora_b)
        opened = pairs.clone()
        kernels.gate_backward(grad, pairs[:, : 2 * 96])
        made += [out, opened, grad, pairs]
    return made


def lora_b_backward(kernels: ModuleType) -> list[Tensor]:
    """Of three matrices, added to gradients that are there."""
    widths, rank = (96, 32, 32), 8
    grad, small = torch.randn(TOKENS, sum(widths) + 3 * rank), torch.randn(TOKENS, 3 * rank)
    lora_b = ([torch.randn(width, rank) for width in widths], 0.5)
    into, workspace = [torch.randn(width, rank) for width in widths], torch.empty(TOKENS, 512)
    kernels.lora_b_backward(grad, small, lora_b, into, workspace, chunk=256, add=True)
    return [grad, *into]


def cross_entropy(kernels: ModuleType) -> list[Tensor]:
    """With weights, and targets that are ignored."""
    logits, targets = torch.randn(TOKENS, 5000), torch.randint(0, 5000, (TOKENS,))
    weights, losses = torch.rand(TOKENS), torch.empty(TOKENS)
    targets[::7] = -100
    kernels.cross_entropy(logits, targets, weights, losses)
    return [logits, losses]


def attention(kernels: ModuleType) -> list[Tensor]:
    """Of four examples, forward and backward, with grouped queries."""
    where, heads = spans(3, 70, 1, 80), (4, 2)
    tokens = where.shape[1]
    rows, grad = torch.randn(tokens, 8 * 32), torch.randn(tokens, 4 * 32)
    out, *into = (torch.empty(tokens, 4 * 32) for _ in range(4))
    logsumexp, delta = torch.empty(4, tokens), torch.empty(4, tokens)
    kernels.attend(rows, heads, where[0], out, logsumexp)
    kernels.attend_backward(rows, heads, where, out, logsumexp, delta, grad, tuple(into))
    return [out, logsumexp, delta, *into]


def tower_attention() -> float:
    """Of segments of many lengths, empty ones too, with heads of powers of 2 and others."""
    found = []
    for width, sizes in ((32, (40, 64, 3)), (72, (130, 0, 1, 66)), (80, (200, 129)), (88, (64, 64))):
        query, key, value = torch.randn(sum(sizes), 3 * 2 * width).view(-1, 3, 2, width).unbind(1)
        borders = torch.tensor((0, *sizes, 0, 0)).cumsum(0).int()
        made = attend_segments((query, key, value), (borders, max(sizes)), width**-0.5)
        begin = 0
        for size in sizes:
            own = slice(begin, begin + size)
            scores = torch.einsum("qhd,khd->hqk", query[own], key[own]) * width**-0.5
            wanted = torch.einsum("hqk,khd->qhd", scores.softmax(-1), value[own])
            found += [distance(made[begin : begin + size], wanted)] if size else []
            begin += size
    return max(found)


def dropout() -> float:
    """What is kept is scaled, the same for the same seed: the random numbers are others than torch's."""
    rows, seed = torch.randn(TOKENS, 64), torch.tensor([5])
    one, added = torch.empty_like(rows), torch.zeros_like(rows)
    triton_kernels.drop(rows, 0.25, seed, 3, one)
    triton_kernels.add_dropped(rows, 0.25, seed, 3, added)
    share = (one == 0).float().mean().item()
    return max(
        distance(one, torch.where(one == 0, 0, rows / 0.75)), distance(added, one), abs(share - 0.25) - 0.03
    )


def dequantized() -> float:
    """In 4 and in 8 bits."""
    found = []
    for bits in (4, 8):
        small = quantize(torch.randn(33, 64), bits, "cpu")
        one, other = torch.empty(33, 64), torch.empty(33, 64)
        dequantize(small, one)
        quantized_kernels.dequantize(small, other)
        found.append(distance(other, one))
    return max(found)


def update() -> float:
    """AdamW with clipping; copies follow in bfloat16, to that type's rounding."""
    ends = []
    for fused in (False, True):
        torch.manual_seed(0)
        model: Any = torch.nn.Linear(64, 80, bias=False)
        weights = FlatWeights.of(model)
        weights.decayed_grad.normal_()
        optimizer, copy = FlatAdamW(weights, weight_decay=0.1), torch.empty(80, 64, dtype=torch.bfloat16)
        if fused:
            FlatUpdate(weights, optimizer, [(copy, model.weight.data)])(
                torch.tensor(0.01), torch.tensor(2.0), largest_norm=0.5
            )
            if distance(copy, weights.decayed.view_as(copy)) > 0.01:
                return torch.inf
        else:
            optimizer.step(learning_rate=0.01, largest_norm=0.5)
        ends.append(torch.cat([weights.decayed, optimizer.first[0], optimizer.second[0] * 1000]))
    return distance(ends[1], ends[0])


def skipped_update() -> float:
    """AdamW that skips: nothing changes where the loss is not finite, else all as without."""
    ends = [updated_once(skips=skips, loss=loss) for skips, loss in ((False, 2.0), (True, 2.0), (True, torch.inf))]
    torch.manual_seed(0)
    first = torch.nn.Linear(64, 80, bias=False).weight.detach().flatten()
    unchanged = torch.equal(ends[2], torch.cat([first, torch.zeros(2 * first.numel() + 1)]))
    return distance(ends[1], ends[0]) if unchanged else torch.inf


def updated_once(*, skips: bool, loss: float) -> Tensor:
    """Weights, moments and the number of updates after one."""
    torch.manual_seed(0)
    model: Any = torch.nn.Linear(64, 80, bias=False)
    weights = FlatWeights.of(model)
    weights.decayed_grad.normal_()
    optimizer = FlatAdamW(weights, weight_decay=0.1, skips=skips)
    copies = [(torch.empty(80, 64, dtype=torch.bfloat16), model.weight.data)]
    FlatUpdate(weights, optimizer, copies)(torch.tensor(0.01), torch.tensor(loss), largest_norm=0.5)
    return torch.cat([weights.decayed, optimizer.first[0], optimizer.second[0] * 1000, optimizer.steps[None]])


def distance(found: Tensor, wanted: Tensor) -> float:
    """The relative distance of two tensors; infinite where one holds no numbers."""
    far = float((found.double() - wanted.double()).norm() / wanted.double().norm())
    return torch.inf if math.isnan(far) else far


def against_plain(function: Callable[[ModuleType], list[Tensor]]) -> float:
    """The largest distance of what the Triton kernels make of the same random numbers."""
    made = []
    for kernels in (plain_kernels, triton_kernels):
        torch.manual_seed(0)
        made.append(function(kernels))
    return max(distance(found, wanted) for wanted, found in zip(*made, strict=True))


if __name__ == "__main__":
    compared = (norm, norm_heads, rotate, gate, lora_b_backward, cross_entropy, attention)
    found = {function.__name__: against_plain(function) for function in compared}
    torch.manual_seed(0)
    found |= {
        "tower_attention": tower_attention(),
        "dropout": dropout(),
        "dequantized": dequantized(),
        "update": update(),
        "skipped": skipped_update(),
    }
    sys.stdout.write(json.dumps(found) + "\n")
