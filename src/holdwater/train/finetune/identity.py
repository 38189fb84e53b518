"""What a model holds, what identifies it, and seeds for draws of random numbers."""

import hashlib
from typing import Any

import torch


def mixed(*numbers: int) -> int:
    """One number of 62 bits made of several, another one for each of their sequences."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest(), "little") >> 2


def name_of(model: Any) -> str:  # noqa: ANN401 - a model of Transformers
    """Identifies a model: its kind, and the beginning of each of its weights."""
    sums = [weight.detach().flatten()[:1024].sum(dtype=torch.float64).item() for weight in model.parameters()]
    return f"{type(model).__name__} {hashlib.sha256(repr(sums).encode()).hexdigest()[:16]}"


def own_tensors(model: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401 - a model of Transformers
    """All weights of a model by name; those that two layers share once."""
    return {name: weight.data for name, weight in model.named_parameters()}
