"""A profiler of torch that is on keeps each operation's events until it ends: who holds it."""

import sys
from collections.abc import Iterator
from typing import Any

from holdwater.attribution.gain import Gain
from holdwater.attribution.kinds import class_of, is_a, name_of
from holdwater.attribution.links import PathPart
from holdwater.attribution.named import local_names
from holdwater.attribution.user_code import users_modules
from holdwater.attribution.weights import Weight

PROFILERS = (
    ("torch.profiler.profiler", "profile"),
    ("torch.profiler.profiler", "_KinetoProfile"),
    ("torch.autograd.profiler", "profile"),
)
"""Classes by module and name."""


def running_profiler() -> Gain | None:
    """A profiler that is on, under the name by which the user's code holds it; its events cannot be measured."""
    if not getattr(sys.modules.get("torch.autograd.profiler"), "_is_profiler_enabled", False):
        return None
    kinds = tuple(class_of(*name) for name in PROFILERS)
    for value, part in _names():
        if is_a(value, kinds):
            return Gain("value", name_of(type(value)), 1, Weight(), path=(part,), naming=part)
    return None


def _names() -> Iterator[tuple[Any, PathPart]]:
    """Variables of running functions and of the user's modules, with the attributes of neither."""
    for _, _, value, part in local_names():
        yield value, part
    for module in users_modules():
        for name, value in list(module.names.items()):
            yield value, PathPart("global", name, module.name, module.file)
