"""What users attach to objects of libraries, and no `state_dict` holds: hooks, functions of schedules, attributes.

Also settings of the whole process that a loop may change.
"""

import functools
import os
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules import module as modules
from torch.optim import optimizer as optimizers
from torch.optim.lr_scheduler import LRScheduler

from holdwater.resume import mlx_states
from holdwater.resume.introspection import attributes_of, is_users
from holdwater.signal_errors import not_the_scripts

HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
"""Functions of a tensor, called with its gradient."""
OPTIMIZER_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
GLOBAL_HOOKS = (
    (modules, "_global_forward_hooks"),
    (modules, "_global_forward_pre_hooks"),
    (modules, "_global_backward_hooks"),
    (modules, "_global_backward_pre_hooks"),
    (optimizers, "_global_optimizer_pre_hooks"),
    (optimizers, "_global_optimizer_post_hooks"),
)
OPTIMIZER_PARTS = frozenset(vars(torch.optim.Optimizer([torch.zeros(1)], {}))) | {
    *("step", "_opt_called", "_step_count", "_step_supports_amp_scaling"),
}
"""What every optimizer has, and what schedules and scalers add to it."""
FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)


def is_of_the_users(hook: object) -> bool:
    """Whether a hook may be the user's: all but the functions of installed packages.

    Args:
        hook: A function, or an object that is called.
    """
    return type(hook) is not types.FunctionType or is_users(hook)


def on_tensor(tensor: Tensor) -> Iterator[tuple[str, object]]:
    """The attributes and hooks of a tensor.

    Args:
        tensor: Any.
    """
    for name, part in attributes_of(tensor).items():
        if not name.startswith("_dynamo"):  # marks of torch's compiler
            yield f".{name}", part
    for group in HOOKS:
        hooks = torch._C.TensorBase.__dict__[group].__get__(tensor)  # noqa: SLF001 - no public name
        yield from ((f".{group}{suffix}", hook) for suffix, hook in _numbered(hooks))


def _numbered(hooks: Mapping[Any, object] | None) -> Iterator[tuple[str, object]]:
    """The user's hooks, by their places."""
    places = enumerate((hooks or {}).values())
    return ((f"[{place}]", hook) for place, hook in places if is_of_the_users(hook))


def on_registered(things: Mapping[str, object]) -> dict[str, object]:
    """What is attached to registered objects, by paths.

    Args:
        things: The registered objects, by name.
    """
    found: dict[str, object] = {}
    for name, thing in things.items():
        if isinstance(thing, torch.nn.Module):
            found[name] = thing  # its parameters and buffers are kept, its attributes and hooks are not
            for path, part in thing.named_parameters():
                found |= {f"{name}.{path}{suffix}": one for suffix, one in on_tensor(part)}
        elif isinstance(thing, torch.optim.Optimizer):
            found |= {f"{name}{suffix}": one for suffix, one in _on_optimizer(thing)}
        elif mlx_states.is_module(thing):
            found |= {f"{name}{suffix}": one for suffix, one in mlx_states.left_out(thing)}
        elif isinstance(thing, LRScheduler):
            found |= {f"{name}{suffix}": one for suffix, one in _on_schedule(thing)}
    return found


def _on_optimizer(thing: torch.optim.Optimizer) -> Iterator[tuple[str, object]]:
    """Hooks of an optimizer and of its parameters, and the attributes of one that is not torch's."""
    parts = attributes_of(thing)
    for group in OPTIMIZER_HOOKS:
        yield from ((f".{group}{suffix}", hook) for suffix, hook in _numbered(parts.get(group)))  # type: ignore[arg-type]
    if not type(thing).__module__.startswith("torch.") and not has_state_of_its_own(thing):
        yield from ((f".{name}", part) for name, part in parts.items() if name not in OPTIMIZER_PARTS)
    for number, group_of in enumerate(thing.param_groups):
        for index, part in enumerate(group_of["params"]):
            yield from ((f".param_groups[{number}][{index}]{suffix}", one) for suffix, one in on_tensor(part))


def has_state_of_its_own(thing: object) -> bool:
    """Whether the user has written the method that returns an optimizer's state.

    Args:
        thing: Anything.
    """
    own = (
        isinstance(thing, torch.optim.Optimizer) and type(thing).state_dict is not torch.optim.Optimizer.state_dict
    )
    return own and is_users(type(thing))


def _on_schedule(thing: LRScheduler) -> Iterator[tuple[str, object]]:
    """The functions of a schedule, which its state leaves out, and those of the schedules in it."""
    for name, part in attributes_of(thing).items():
        several = part if type(part) in {list, tuple} else [part]
        for number, one in enumerate(several):  # type: ignore[arg-type, var-annotated]
            path = f".{name}[{number}]" if several is part else f".{name}"
            if isinstance(one, LRScheduler):
                yield from ((path + suffix, inner) for suffix, inner in _on_schedule(one))
            elif type(one) in FUNCTIONS and is_of_the_users(one):
                yield path, one


def global_hooks() -> dict[str, object]:
    """The user's hooks of all modules and of all optimizers."""
    return {
        f"{group}{suffix}": hook
        for owner, group in GLOBAL_HOOKS
        for suffix, hook in _numbered(getattr(owner, group, None))
    }


def settings() -> dict[str, object]:
    """Settings of the process from which results or what is printed follow, by how they are read."""
    found: dict[str, object] = {
        "os.getcwd()": _folder(),
        "numpy.geterr()": repr(np.geterr()),
        "numpy.get_printoptions()": repr(np.get_printoptions()),
        "torch.get_default_dtype()": repr(torch.get_default_dtype()),
        "torch.is_grad_enabled()": torch.is_grad_enabled(),
        "torch.set_printoptions()": repr(vars(torch._tensor_str.PRINT_OPTS)),  # noqa: SLF001 - no public name
    }
    if "decimal" in sys.modules:
        context = sys.modules["decimal"].getcontext()
        found["decimal.getcontext()"] = (context.prec, context.rounding)
    return {name: found[name] for name in sorted(found)}


def _folder() -> str | None:
    """The working folder; None if it has been removed."""
    try:
        return os.getcwd()  # noqa: PTH109 - a text is compared
    except not_the_scripts(OSError):
        return None
