"""Find what a fresh process would need and nobody has registered: variables that the loop has changed.

When the loop begins, everything that the script still reads is recorded; before a process is replaced, it is
compared. A variable that is set anew in each step, before it is read, is not needed.
"""

import gc
import inspect
import os
import sys
import time
import types
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from holdwater.resume import mlx_states
from holdwater.resume.attached import global_hooks, has_state_of_its_own, on_registered, settings
from holdwater.resume.covered import contents, has_own_state, is_covered
from holdwater.resume.fingerprint import Fingerprint, Leaves, inputs_of, spawned_by
from holdwater.resume.introspection import attributes_of, is_users_file
from holdwater.resume.live_variables import (
    gathers,
    global_names,
    live_names,
    loop_index,
    texts_in,
    without_added_to,
)
from holdwater.resume.state_codec import state_of

RESTARTING = (
    "enumerate", "zip", "islice", "chain", "zip_longest", "count", "tee", "cycle", "pairwise", "batched", "map",
)  # fmt: skip
"""What else may count or draw alongside our loop, and begins anew in a fresh process."""


class Unregistered:
    """What the script needs in addition to its registered states, as it was when the loop began."""

    def __init__(self, things: Mapping[str, object], unneeded: set[str], beside: list[object]) -> None:
        """Record it.

        Args:
            things: The registered objects, by name.
            unneeded: Variables that a fresh process may begin without.
            beside: Objects that are kept with a registered one.
        """
        self._things, self._unneeded, self._beside = things, unneeded, beside
        self._own = {name: one for name, one in things.items() if has_own_state(one) or has_state_of_its_own(one)}
        """The registered objects of the user's classes: a state of his making may leave something out."""
        self._clocks, self._environment, self._settings = _clocks(), list(os.environ), settings().keys()
        frames = _users_frames()
        self._in_loop = self._take(frames, leaves_loop=False)
        self._after_loop = self._take(frames, leaves_loop=True)
        self._structures = {name: structure(thing) for name, thing in things.items()}

    @property
    def leaves(self) -> Leaves:
        """What was recorded when the loop began, without what is registered or not needed."""
        left_out = {*self._own, *self._unneeded}
        return {
            path: leaf
            for path, leaf in self._in_loop.items()
            if not any(_leads_to(name, path) for name in left_out)
        }

    @property
    def inputs(self) -> dict[str, int]:
        """The data that the script has made before its loop, as checksums."""
        return inputs_of(self.leaves)

    def _owner(self, path: str) -> str | None:
        """The registered object of a user's class to which a part belongs."""
        return next((name for name in self._own if _leads_to(name, path)), None)

    def changed(self, loop: object = None, *, leaves_loop: bool = False) -> str | None:
        """Why a fresh process could not continue exactly; None if it can.

        Args:
            loop: The generator that the script iterates over.
            leaves_loop: Whether the loop has ended; otherwise another step follows.
        """
        for name, thing in self._things.items():
            if structure(thing) != self._structures[name]:
                return f"{name} has {_new_parts(thing)} than when the loop began"
        frames = _users_frames()
        counted = None if leaves_loop or not frames else _counts_beside(loop, frames[0]) or _gathered()
        if counted is not None:
            return counted
        before = self._after_loop if leaves_loop else self._in_loop
        return self._first_change(before, self._take(frames, leaves_loop=leaves_loop))

    def _first_change(self, before: Leaves, now: Leaves) -> str | None:
        """Why the first part that has changed is missing in a fresh process; None if nothing is."""
        windows = list(zip(self._clocks, _clocks(), strict=True))
        kept: dict[str, set[object]] = {}
        for path in (*now, *before):
            old, new = before.get(path, _ABSENT), now.get(path, _ABSENT)
            if old is new or (type(old) is type(new) and old == new):
                continue
            if isinstance(new, float) and any(begin <= new <= end for begin, end in windows):
                continue  # a reading of a clock
            if any(_leads_to(name, path) for name in self._unneeded):
                continue
            owner = self._owner(path)
            if owner is None:
                return set_in_loop(path) if path in self._settings else needs(path, self._things)
            if owner not in kept:
                kept[owner] = contents(_of_the_users_making(state_of(self._own[owner], owner)))
            if new is not _ABSENT and not is_covered(new, kept[owner]):
                return left_out(path, owner)
        return None

    def _take(self, frames: list[FrameType], *, leaves_loop: bool) -> Leaves:
        """Record all variables that are still needed, and the registered objects of the user's classes."""
        whole = [thing for name, thing in self._things.items() if name not in self._own]
        excluded = [part for thing in (*whole, *self._beside) for part in kept_with(thing)]
        for thing in self._own.values():
            if isinstance(thing, torch.optim.Optimizer):  # what torch keeps of it
                excluded += [thing.state, thing.param_groups, thing.defaults]
        roots = _roots(frames, leaves_loop=leaves_loop)
        others = {
            f"the variable {name}" if self._own.get(name, value) is not value else name: value
            for name, value in roots.items()
        }
        others = on_registered(self._things) | others | global_hooks() | settings()
        others["os.environ"] = {name: os.environ.get(name) for name in self._variables(frames)}
        return Fingerprint(excluded).take(self._own | others)

    def _variables(self, frames: list[FrameType]) -> list[str]:
        """Names of the environment: those that were there, and new ones that the user's code names.

        Others are set by imports.
        """
        new = [name for name in os.environ if name not in self._environment]
        if not new:
            return self._environment
        functions = [function for module, _ in _users_modules() for function in _functions_of(module)]
        codes = {frame.f_code for frame in frames} | {function.__code__ for function in functions}
        named = frozenset[str]().union(*map(texts_in, codes))
        return [*self._environment, *(name for name in new if name in named)]


_ABSENT = object()


def _new_parts(thing: object) -> str:
    """What of a registered object must be as it was when the loop began, and is not."""
    return "spawned more generators" if isinstance(thing, np.random.Generator) else "other parameters"


def set_in_loop(path: str) -> str:
    """Why the script is not started again: its loop has changed a setting of the process.

    Args:
        path: How the setting is read.
    """
    return (
        f"{path} has changed since the loop began, and a fresh process would begin with what was set before it; "
        f"set it before the loop, or write holdwater.resumable({path!r}, None) if results do not follow from it"
    )


def _of_the_users_making(state: object) -> object:
    """A state without what every optimizer's holds: numbers in it are equal to others by chance."""
    if isinstance(state, dict) and {"state", "param_groups"} <= state.keys():
        return {name: part for name, part in state.items() if name not in {"state", "param_groups"}}
    return state


def needs(path: str, registered: Mapping[str, object]) -> str:
    """Why the script is not started again: a part of it is not registered.

    Args:
        path: Of the part.
        registered: The registered objects, by name; an object may carry what its state does not hold.
    """
    root = path.partition(".")[0].partition("[")[0]
    root = path if root in registered else root
    return (
        f"{path} has changed since the loop began, and is not registered; register it with "
        f"holdwater.resumable (a number in a dictionary), or write holdwater.resumable({root!r}, None) if a fresh "
        "process may begin without it"
    )


def left_out(path: str, name: str) -> str:
    """Why the script is not started again: the state of a registered object does not hold a part of it.

    Args:
        path: Of the part.
        name: Of the object.
    """
    return (
        f"{path} has changed since the loop began, and is not in what the state_dict of {name} returns; add it "
        f"there, or write holdwater.resumable({path!r}, None) if a fresh process may begin without it"
    )


def _leads_to(name: str, path: str) -> bool:
    """Whether a path is that of a variable or of a part of it."""
    return path == name or path.startswith((f"{name}.", f"{name}["))


def structure(thing: object) -> object:
    """What must be the same to load a state: the parameters of a module, the groups of an optimizer.

    Args:
        thing: A registered object.
    """
    if isinstance(thing, torch.nn.Module):
        return [(name, tuple(part.shape)) for name, part in thing.named_parameters() if _has_shape(part)]
    if isinstance(thing, torch.optim.Optimizer):
        return [len(group["params"]) for group in thing.param_groups]
    if isinstance(thing, np.random.Generator):
        return spawned_by(thing.bit_generator)
    if mlx_states.is_module(thing):
        return [(name, tuple(array.shape)) for name, array in mlx_states.parameters(thing)]
    return None


def _has_shape(part: torch.Tensor) -> bool:
    """Whether a parameter is initialised: one of a lazy module is not at first."""
    return not isinstance(part, torch.nn.UninitializedParameter)


def kept_with(thing: object) -> Iterator[object]:
    """The objects whose content a registered state covers.

    Args:
        thing: A registered object.
    """
    if isinstance(thing, torch.nn.Module):
        for module in thing.modules():
            yield from module._parameters.values()  # noqa: SLF001 - the public ways call the user's methods
            unkept = module._non_persistent_buffers_set  # noqa: SLF001
            yield from (part for name, part in module._buffers.items() if name not in unkept)  # noqa: SLF001
        return
    if mlx_states.is_module(thing) or mlx_states.is_optimizer(thing):
        yield from mlx_states.kept_parts(thing)
        return
    waiting = deque([thing])
    while waiting:
        one = waiting.popleft()
        yield one
        if type(one) in {dict, list, tuple} or isinstance(one, dict | list | tuple | deque):
            waiting.extend(one.values() if isinstance(one, dict) else one)  # type: ignore[arg-type]


def _users_frames() -> list[FrameType]:
    """The user's functions that are being executed, the innermost first."""
    found, frame = [], sys._getframe(1)  # noqa: SLF001 - as `inspect` does
    while frame is not None:
        if is_users_file(frame.f_code.co_filename):
            found.append(frame)
        frame = frame.f_back  # type: ignore[assignment]
    return found


def _roots(frames: list[FrameType], *, leaves_loop: bool) -> dict[str, object]:
    """The variables that are still read: of the functions being executed, then those of modules."""
    roots: dict[str, object] = {}
    wanted: dict[int, set[str]] = {}
    for depth, frame in enumerate(frames):
        names = live_names(frame, leaves_loop=leaves_loop and depth == 0)
        wanted.setdefault(id(frame.f_globals), set()).update(names)
        if frame.f_locals is not frame.f_globals:
            values = frame.f_locals
            roots |= {name: values[name] for name in sorted(names) if name in values and name not in roots}
            if type(values) is dict:
                values.clear()  # a copy, which would keep what it holds alive
    for module, prefix in _users_modules():
        read = _read_by_functions(module) | wanted.get(id(module), set())
        for name in sorted(read & module.keys()):
            roots.setdefault(prefix + name, module[name])
    return roots


def _users_modules() -> Iterator[tuple[dict[str, Any], str]]:
    """The variables of each module of the user's, and what their names begin with."""
    for name, module in list(sys.modules.items()):
        if type(module) is not types.ModuleType:
            continue
        parts = vars(module)
        file = parts.get("__file__")
        if name == "__main__":
            yield parts, ""
        elif isinstance(file, str) and name != "__mp_main__" and is_users_file(file) and not _is_generated(name):
            yield parts, f"{name}."


def _is_generated(name: str) -> bool:
    """Whether an installed package has made a module as it ran, as torch's compiler does, in a file anywhere."""
    package = getattr(sys.modules.get(name.partition(".")[0]), "__file__", None)
    return isinstance(package, str) and not is_users_file(package)


def _read_by_functions(module: dict[str, Any]) -> set[str]:
    """The variables of a module that its functions and methods read."""
    names = [name for function in _functions_of(module) for name in global_names(function.__code__)]
    return set(without_added_to(names, module))


def _functions_of(module: dict[str, Any]) -> list[types.FunctionType]:
    """The functions and methods that a module defines."""
    own = [part for part in list(module.values()) if module_of(part) == module.get("__name__")]
    methods = [part for kind in own if isinstance(kind, type) for part in vars(kind).values()]
    return [function for part in (*own, *methods) if (function := function_in(part)) is not None]


def module_of(part: object) -> str | None:
    """The name of the module that defines a function or a class.

    Args:
        part: Anything.
    """
    return part.__module__ if isinstance(part, type) or type(part) is types.FunctionType else None


def function_in(part: object) -> types.FunctionType | None:
    """The function in a method or in what wraps it; None if there is none.

    Args:
        part: Anything.
    """
    if type(part) in {staticmethod, classmethod}:
        part = part.__func__  # type: ignore[attr-defined]
    elif type(part) is property:
        part = part.fget
    wrapped = attributes_of(part).get("__wrapped__", part)
    return wrapped if type(wrapped) is types.FunctionType else None


def _counts_beside(loop: object, frame: FrameType) -> str | None:
    """Whether something counts or draws alongside our loop, and would begin anew in a fresh process."""
    if loop is None:
        return None
    holders = gc.get_referrers(loop)
    several = [one for one in holders if type(one) is tuple and len(one) > 1]  # as a zip holds its iterators
    for one in (*holders, *(outer for each in several for outer in gc.get_referrers(each))):
        kind = type(one).__name__
        if type(one).__module__ not in {"builtins", "itertools"} or kind not in RESTARTING:
            continue
        index = loop_index(frame) if kind == "enumerate" else ""
        if index is not None:
            return (
                f"{index or 'what is iterated beside the loop'} comes from {kind}, which begins anew in a fresh "
                "process; count in a registered dictionary"
            )
    return None


def _gathered() -> str | None:
    """Whether the results of the steps are kept in a comprehension or a call, and would be lost."""
    inner, frame = sys._getframe(1), sys._getframe(1).f_back  # noqa: SLF001 - as `inspect` does
    while frame is not None:
        code = frame.f_code
        if inner.f_code.co_flags & inspect.CO_GENERATOR and is_users_file(code.co_filename) and gathers(frame):
            return (
                f"line {frame.f_lineno} of {Path(code.co_filename).name} gathers the results of the loop in a "
                "comprehension or a call, which begins anew in a fresh process; use a for loop, and a registered "
                "dictionary"
            )
        inner, frame = frame, frame.f_back
    return None


def _clocks() -> tuple[float, float, float]:
    """The clocks that scripts read."""
    return time.time(), time.perf_counter(), time.monotonic()
