"""Repeat an optimizer's step that ran out of memory before it had written anything.

The first step of most optimizers allocates their state, which is the largest allocation of many runs. It comes
before any weight is changed, so releasing unused memory and stepping again is exact. A step that was interrupted
while it wrote is not repeated: only a checkpoint is intact then.
"""

import logging
from types import MethodType
from typing import Any, TypeVar

import torch

from holdwater.oom.out_of_memory import is_out_of_memory, release
from holdwater.oom.recovering_step import HalfUpdated, first_line
from holdwater.signal_errors import not_the_scripts

log = logging.getLogger("holdwater")
ATTEMPTS = 3
"""How often a step is tried."""

Some = TypeVar("Some", bound=torch.optim.Optimizer)


def recover_steps(optimizer: Some) -> Some:
    """Let an optimizer repeat steps that ran out of memory; a second call changes nothing.

    Args:
        optimizer: Of torch, before a scheduler or a scaler has taken hold of its step.

    Returns:
        The same one.
    """
    if getattr(optimizer, "_holdwater_recovers", False):
        return optimizer
    own = type(optimizer).step

    def step(self: Any, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - as the optimizer's own
        """Step; again if memory ran out before anything was written."""
        before = _written(self)
        for attempt in range(1, ATTEMPTS + 1):
            failure = ""
            try:
                return own(self, *arguments, **named)
            except not_the_scripts(Exception) as error:
                if not is_out_of_memory(error):
                    raise
                if attempt == ATTEMPTS and _unchanged(self, before):
                    raise
                failure = first_line(error)
            _prepare_again(self, before, failure)
        return None

    optimizer.step = MethodType(step, optimizer)  # type: ignore[method-assign]
    optimizer._holdwater_recovers = True  # type: ignore[attr-defined] # noqa: SLF001 - ours
    return optimizer


def _prepare_again(optimizer: torch.optim.Optimizer, before: dict[int, int], failure: str) -> None:
    """Release unused memory.

    Raises:
        HalfUpdated: Something was written before memory ran out.
    """
    if not _unchanged(optimizer, before):
        raise HalfUpdated(f"memory ran out while the weights were being changed ({failure})")
    log.warning("memory ran out in the optimizer (%s); memory was released, and its step is repeated", failure)
    release()


def _tensors(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The weights, and the tensors of the state."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    kept = [
        part for state in optimizer.state.values() for part in state.values() if isinstance(part, torch.Tensor)
    ]
    return weights + kept


def _written(optimizer: torch.optim.Optimizer) -> dict[int, int]:
    """How often each tensor was written to, by its identity."""
    return {id(tensor): tensor._version for tensor in _tensors(optimizer)}  # noqa: SLF001 - it has no public name


def _unchanged(optimizer: torch.optim.Optimizer, before: dict[int, int]) -> bool:
    """Whether nothing was written since; tensors of the state that are new must be as they were made."""
    return all(version == before.get(key, 0) for key, version in _written(optimizer).items())
