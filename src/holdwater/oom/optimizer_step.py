"""Repeat an optimizer's step that ran out of memory before it had written anything.

The first step of most optimizers allocates their state, which is the largest allocation of many runs. Optimizers
of torch go through their groups of weights one by one, so each group is stepped by itself, and repeated if memory
ran out before any of its weights was changed. A group that was interrupted while it was written is not repeated:
only a checkpoint is intact then.
"""

import logging
from collections.abc import Callable
from types import MethodType
from typing import Any, TypeVar

import torch
from torch.optim import optimizer as torch_optimizer

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
        """Step, group by group where that is the same."""
        given = [one for one in (*arguments, *named.values()) if one is not None]  # Accelerate hands over `None`
        if given or not _goes_by_groups(self):
            return _repeated(self, lambda: own(self, *arguments, **named))
        return _step_by_groups(self, own)

    optimizer.step = MethodType(step, optimizer)  # type: ignore[method-assign]
    optimizer._holdwater_recovers = True  # type: ignore[attr-defined] # noqa: SLF001 - ours
    return optimizer


def _goes_by_groups(optimizer: torch.optim.Optimizer) -> bool:
    """Whether to step the groups one by one is the same: torch's own optimizers, without hooks before the step."""
    hooked = optimizer._optimizer_step_pre_hooks or torch_optimizer._global_optimizer_pre_hooks  # noqa: SLF001 - torch has no public names
    own = type(optimizer).__module__.startswith("torch.optim.") and hasattr(type(optimizer).step, "__wrapped__")
    return own and not hooked and len(optimizer.param_groups) > 1


def _step_by_groups(optimizer: Any, own: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - as the optimizer's own
    """Step each group by itself; hooks behind the step are called once, with the last.

    Raises:
        HalfUpdated: Memory ran out after a group was stepped, and releasing did not help.
    """
    groups: list[Any] = optimizer.param_groups
    without_hooks: Callable[[Any], Any] = own.__wrapped__  # type: ignore[attr-defined]
    result = None
    for number, group in enumerate(groups):
        step = own if group is groups[-1] else without_hooks
        optimizer.param_groups = [group]
        try:
            result = _repeated(optimizer, lambda step=step: step(optimizer))  # type: ignore[misc]
        except not_the_scripts(Exception) as error:
            if number == 0 or not is_out_of_memory(error):
                raise
            raise HalfUpdated(f"memory ran out between two groups of weights ({first_line(error)})") from error
        finally:
            optimizer.param_groups = groups
    return result


def _repeated(optimizer: torch.optim.Optimizer, step: Callable[[], Any]) -> Any:  # noqa: ANN401 - as above
    """Step; again if memory ran out before anything was written."""
    before = _written(optimizer)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return step()
        except not_the_scripts(Exception) as error:
            if not is_out_of_memory(error) or (attempt == ATTEMPTS and _unchanged(optimizer, before)):
                raise
            failure = first_line(error)
        _prepare_again(optimizer, before, failure)
    return None


def _prepare_again(optimizer: torch.optim.Optimizer, before: dict[int, int], failure: str) -> None:
    """Release unused memory.

    Raises:
        HalfUpdated: Something was written before memory ran out.
    """
    if not _unchanged(optimizer, before):
        raise HalfUpdated(f"memory ran out while the weights were being changed ({failure})")
    log.warning("memory ran out in the optimizer (%s); memory was released, and its step is repeated", failure)
    release()


def _written(optimizer: torch.optim.Optimizer) -> dict[int, int]:
    """How often each weight and each tensor of its state was written to, by its identity."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    states = [optimizer.state[weight] for weight in weights if weight in optimizer.state]
    kept = [part for state in states for part in state.values() if isinstance(part, torch.Tensor)]
    return {id(tensor): tensor._version for tensor in weights + kept}  # noqa: SLF001 - it has no public name


def _unchanged(optimizer: torch.optim.Optimizer, before: dict[int, int]) -> bool:
    """Whether nothing was written since; tensors of the state that are new must be as they were made."""
    return all(version == before.get(key, 0) for key, version in _written(optimizer).items())
