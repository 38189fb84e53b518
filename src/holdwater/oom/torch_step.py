"""Optimizer steps that recover from out-of-memory, for any plain PyTorch training loop.

step = torch_step(model, optimizer, lambda model, batch: model(batch[0]).pow(2).mean(), micro_batch=8)
for batch in loader:
    loss = step.take([batch])
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from holdwater.oom.recovering_step import RecoveringStep, Restorable, StepFunctions
from holdwater.random_states import RandomStates

_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class ModuleBuffers:
    """A model's buffers, such as the running statistics of batch norms."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def take(self) -> list[Tensor]:
        """Copy them."""
        return [buffer.detach().clone() for buffer in self._model.buffers()]

    @torch.no_grad()
    def put(self, state: list[Tensor]) -> None:
        """Restore them in place."""
        for buffer, kept in zip(self._model.buffers(), state, strict=True):
            buffer.copy_(kept)


class ScalerState:
    """A loss scaler's factor and its counters."""

    def __init__(self, scaler: torch.amp.GradScaler) -> None:
        self._scaler = scaler

    def take(self) -> dict[str, Any]:
        """Copy it."""
        return dict(self._scaler.state_dict())

    def put(self, state: dict[str, Any]) -> None:
        """Restore it."""
        if state:
            self._scaler.load_state_dict(state)


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a step of a plain PyTorch loop."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[nn.Module, Any], Tensor]
    clip: float | None
    scaler: torch.amp.GradScaler | None

    def propagate(self, batch: Any, share: float) -> float:  # noqa: ANN401 - tensors, however they are kept
        """Add a part's gradient; return its mean loss."""
        mean = self.loss(self.model, batch)
        total = mean * share
        (total if self.scaler is None else self.scaler.scale(total)).backward()  # type: ignore[no-untyped-call]
        return float(mean.detach())

    def update(self) -> None:
        """Change the weights."""
        if self.scaler is not None and self.clip is not None:
            self.scaler.unscale_(self.optimizer)
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()


def torch_step(  # noqa: PLR0913 - the parts of a training step, by name
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[nn.Module, Any], Tensor],
    *,
    micro_batch: int,
    clip: float | None = None,
    scaler: torch.amp.GradScaler | None = None,
    weigh: Callable[[Any], float] | None = None,
    factor: float = 0.5,
) -> RecoveringStep[Any]:
    """Make a step function that recovers from out-of-memory.

    Args:
        model: The model that is trained.
        optimizer: Its optimizer.
        loss: The mean loss of a batch, from the model and the batch. Shape ().
        micro_batch: The most samples that are propagated at once.
        clip: The largest norm of the gradient; None does not clip.
        scaler: Scales the loss of mixed precision; None does not.
        weigh: A batch's weight in the mean, such as its target tokens; None counts samples.
        factor: Factor by which the micro-batch shrinks when memory runs out.

    Returns:
        Its `take(window)` takes a step on a list of batches: tensors, or tuples, lists or mappings of tensors
        whose first dimension counts samples.

    Raises:
        ConfigError: The factor does not make a micro-batch smaller.
    """
    parts = _Parts(model, optimizer, loss, clip, scaler)
    kept: list[Restorable] = [RandomStates(), ModuleBuffers(model)]
    kept += [] if scaler is None else [ScalerState(scaler)]
    functions: StepFunctions[Any] = StepFunctions(
        propagate=parts.propagate,
        rows=rows_of,
        cut=cut,
        weigh=weigh or (lambda batch: float(rows_of(batch))),
        clear=lambda: optimizer.zero_grad(set_to_none=True),
        update=parts.update,
        weights=model.parameters,
        kept=kept,
        inexact=why_inexact(model),
    )
    return RecoveringStep(functions, micro_batch=micro_batch, factor=factor)


def rows_of(batch: Any) -> int:  # noqa: ANN401 - tensors, however they are kept
    """Samples in a batch: the length of its first tensor."""
    if isinstance(batch, Tensor):
        return len(batch)
    parts = batch.values() if isinstance(batch, Mapping) else batch
    return rows_of(next(part for part in parts if part is not None and not isinstance(part, str | int | float)))


def cut(batch: Any, begin: int, end: int) -> Any:  # noqa: ANN401 - as above
    """The samples from one number to another."""
    if isinstance(batch, Mapping):
        return {name: cut(part, begin, end) for name, part in batch.items()}
    if isinstance(batch, Tensor):
        return batch[begin:end] if batch.dim() else batch
    if isinstance(batch, list | tuple):
        if batch and not isinstance(batch[0], Tensor | list | tuple | Mapping):
            return batch[begin:end]  # a list of samples other than tensors
        parts = [cut(part, begin, end) for part in batch]
        return batch._make(parts) if hasattr(batch, "_make") else type(batch)(parts)
    return batch


def why_inexact(model: nn.Module) -> str:
    """Why parts of a batch do not add up to the whole; empty if they do.

    Args:
        model: The model that is trained.
    """
    found = {
        "dropout draws different numbers for smaller parts": any(
            isinstance(module, _DROPOUT) and module.p > 0 for module in model.modules()
        ),
        "batch norms see smaller batches": any(
            isinstance(module, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001 - their base class
            for module in model.modules()
        ),
    }
    return " and ".join(reason for reason, is_so in found.items() if is_so)
