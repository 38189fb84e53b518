"""Whether a model's logits are the product of its last hidden states with its head, and nothing more.

The model itself is tried: between a body that gives known hidden states and a small head, `forward` makes only
what is special to the model, such as a cap or a factor, wherever the configuration has that.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_found: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def has_plain_head(model: Any) -> bool:  # noqa: ANN401 - of Transformers
    """Whether logits are that product, so that they need not be made all at once.

    Args:
        model: On any device.
    """
    if model not in _found:
        with torch.random.fork_rng(devices=[]):  # the run's random numbers stay as they were
            _found[model] = _is_plain(model)
    return _found[model]


def _is_plain(model: Any) -> bool:  # noqa: ANN401
    """Try it on a few numbers."""
    head, body = model.get_output_embeddings(), getattr(model, model.base_model_prefix or "-", None)
    if getattr(head, "weight", None) is None or getattr(head, "bias", None) is not None or body is None:
        return False
    hidden = torch.linspace(-9, 9, 12).view(1, 3, 4)  # gives logits of some hundred, which any cap shows
    small = nn.Linear(4, 8, bias=False)
    small.weight.data = torch.linspace(9, -7, 32).view(8, 4)
    wanted = hidden @ small.weight.T
    with torch.no_grad(), _replaced(model, body, _Body(hidden)), _replaced(model, head, small):
        try:
            found = model(input_ids=torch.zeros(1, 3, dtype=torch.long)).logits
        except Exception:  # noqa: BLE001 - whatever its code needs that is not there: more than a product
            return False
    return found.shape == wanted.shape and bool(torch.allclose(found.float(), wanted, rtol=1e-2))


class _Body(nn.Module):
    """Gives the same hidden states whatever it is asked."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self._hidden = hidden

    @property
    def decoder(self) -> "_Body":
        """Some models call this part of their body."""
        return self

    def forward(self, *_: object, **__: object) -> "_Output":
        """What a model makes of it."""
        return _Output(self._hidden)


class _Output:
    """What a body gives: hidden states, and nothing else that may be asked for."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getattr__(self, name: str) -> None:
        """Nothing."""

    def __getitem__(self, at: int | slice) -> Tensor | tuple[()]:
        """The hidden states come first."""
        return self.last_hidden_state if at == 0 else ()


@contextmanager
def _replaced(model: nn.Module, part: nn.Module, other: nn.Module) -> Iterator[None]:
    """Put a module in the place of another for a while."""
    name = next(name for name, module in model.named_modules() if module is part)
    parent, _, child = name.rpartition(".")
    owner = model.get_submodule(parent)
    setattr(owner, child, other)
    try:
        yield
    finally:
        setattr(owner, child, part)
