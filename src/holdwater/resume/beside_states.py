"""What no `state_dict` holds and a fresh process needs: gradients under way, frozen parameters, modes."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def beside_states(things: Mapping[str, object]) -> dict[str, Any]:
    """What registered modules and optimizers hold in addition to their states.

    Args:
        things: The registered objects, by name.

    Returns:
        The gradients by parameter, and what modules were set to.
    """
    parameters = dict(_parameters(things))
    return {
        "gradients": {name: part.grad.detach() for name, part in parameters.items() if part.grad is not None},
        "frozen": [name for name, part in parameters.items() if not part.requires_grad],
        "evaluating": [name for name, module in _modules(things) if not module.training],
    }


def restore_beside_states(things: Mapping[str, object], stored: Mapping[str, Any]) -> None:
    """Restore it.

    Args:
        things: The registered objects, by name.
        stored: What `beside_states` returned, in this process or another.
    """
    frozen, evaluating = set(stored["frozen"]), set(stored["evaluating"])
    for name, part in _parameters(things):
        part.requires_grad_(name not in frozen)
        gradient = stored["gradients"].get(name)
        part.grad = None if gradient is None else gradient.to(part.device)
    for name, module in _modules(things):
        module.training = name not in evaluating


def _modules(things: Mapping[str, object]) -> Iterator[tuple[str, torch.nn.Module]]:
    """All modules, by name."""
    for thing_name, thing in sorted(things.items()):
        if isinstance(thing, torch.nn.Module):
            yield from ((f"{thing_name}/{name}", module) for name, module in thing.named_modules())


def _parameters(things: Mapping[str, object]) -> Iterator[tuple[str, Tensor]]:
    """All leaf parameters of modules, and those that only an optimizer holds, by name."""
    seen: set[int] = set()
    for thing_name, thing in sorted(things.items(), key=lambda item: (not _is_module(item[1]), item[0])):
        for name, part in _parts(thing):
            if id(part) not in seen and part.is_leaf:
                seen.add(id(part))
                yield f"{thing_name}/{name}", part


def _is_module(thing: object) -> bool:
    """Whether it is a module: its parameters have names of their own."""
    return isinstance(thing, torch.nn.Module)


def _parts(thing: object) -> Iterator[tuple[str, Tensor]]:
    """The parameters of a module or of an optimizer, by name."""
    if isinstance(thing, torch.nn.Module):
        yield from thing.named_parameters()
    elif isinstance(thing, torch.optim.Optimizer):
        for number, group in enumerate(thing.param_groups):
            yield from ((f"{number}.{index}", part) for index, part in enumerate(group["params"]))
