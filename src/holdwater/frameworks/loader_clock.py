"""Count epochs, first visits of rows and evaluations of a PyTorch program that runs already, for a while.

`holdwater run` hooks torch when it is imported, and for good; a guard inside a program hooks it when the guard is
entered, and puts back what it has replaced.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from holdwater.frameworks.observed_script import attach
from holdwater.observe.agent.session import Session

WATCHED = (
    "torch.utils.data.dataloader",
    "torch.utils.data.sampler",
    "torch.utils.data.distributed",
    "torch.utils.data._utils.fetch",
    "torch.nn.modules.module",
    "torch._dynamo.utils",
)
"""What is hooked: loaders, evaluations and the compiler. The guard itself counts steps."""


@contextmanager
def loaders_watched(session: Session) -> Iterator[None]:
    """Hook what is loaded of torch, and undo it afterwards.

    Args:
        session: Counts what is seen.
    """
    hooks = attach(session, None)
    modules = [module for name in WATCHED if isinstance(module := sys.modules.get(name), ModuleType)]
    before = [(owner, dict(vars(owner))) for module in modules for owner in (module, *_classes(module))]
    try:
        for module in modules:
            hooks[module.__name__](module)
        replaced = [(owner, old, _changed(owner, old)) for owner, old in before]
        yield
        for owner, old, new in replaced:
            _put_back(owner, old, new)
    except BaseException:
        for owner, old in before:
            _put_back(owner, old, _changed(owner, old))
        raise


def _classes(module: ModuleType) -> list[type]:
    """The classes that a module defines."""
    return [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__]


def _changed(owner: Any, old: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - a module or a class
    """What a module or a class holds that it did not hold before."""
    return {name: value for name, value in vars(owner).items() if old.get(name, old) is not value}


def _put_back(owner: Any, old: dict[str, Any], new: dict[str, Any]) -> None:  # noqa: ANN401 - as above
    """Put back what was replaced, unless the program has replaced it since."""
    for name, value in new.items():
        if vars(owner).get(name) is not value:
            continue
        if name in old:
            setattr(owner, name, old[name])
        else:
            delattr(owner, name)
