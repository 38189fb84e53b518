"""Find the reference path from a growing object to a recognisable root: a global, local, attribute or closure.

Referrers are followed upwards, level by level, to a module, a running function, a class or a cache. What a graph
or a C object holds has no referrer: the path then has no root, and is reported as such.
"""

import gc
import sys
import types
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from holdwater.attribution.frames import local_items, running_frames
from holdwater.attribution.kinds import attributes, file_of, full_name_of, is_a, module_of, namespace_of
from holdwater.attribution.links import PathPart, key_of, link, root_of
from holdwater.attribution.turns import Turn, Turns, at_once
from holdwater.attribution.user_code import is_ours, is_users, users_modules

DEEPEST = 8
"""Levels of referrers that are searched."""
WIDEST = 24
"""Objects of one level from which the search continues."""
ARGUMENTS_HELD = 4
"""References to the search's own arguments: three of ours, and one by the call that counts them."""
WRAPPERS = (
    "queue",
    "_queue",
    "collections",
    "weakref",
    "multiprocessing.queues",
    "asyncio.queues",
    "mlx_lm.models.cache",
    "transformers.cache_utils",
    "mlx.optimizers.optimizers",
)
"""Modules whose objects are containers themselves: their attributes are not names that a user knows."""


@dataclass(frozen=True, slots=True)
class HoldingPath:
    """The parts from a root to an object, the root first; without a root if none was found."""

    parts: tuple[PathPart, ...]

    @property
    def naming(self) -> PathPart | None:
        """The last part with a name, under which the object is kept; None if no part has one."""
        for index, part in reversed(list(enumerate(self.parts))):
            if part.name is not None and part.role != "element" and not _is_wrappers(part):
                return _fixture(part, self.parts[index + 1 :]) or part
        return None


def _is_wrappers(part: PathPart) -> bool:
    """Whether a part is an attribute of a container that is written in Python, such as a queue, or of a method."""
    of_container = part.role == "attribute" and part.owner.rpartition(".")[0] in WRAPPERS
    return of_container or part.name == "__self__"


def _fixture(part: PathPart, below: tuple[PathPart, ...]) -> PathPart | None:
    """What pytest hands to a test, by the name of its fixture; None if a part is nothing of the kind."""
    if part.name != "funcargs" or not part.owner.startswith("_pytest."):
        return None
    names = (one.name for one in below if one.role == "element" and one.name is not None)
    return next((PathPart("local", name, "the test, as a fixture") for name in names), None)


class Paths:
    """Finds paths; created for each count, since it records what running functions hold."""

    def __init__(self, own: Iterable[int] = ()) -> None:
        """Record the roots.

        Args:
            own: Identities of the count's own objects, which are no holders.
        """
        self._own = set(own) | {id(self)}
        self._modules: dict[int, str] = {}
        self._locals: dict[int, PathPart] = {}
        self._named: dict[int, tuple[PathPart, ...]] = {}
        self.note_roots()

    def note_roots(self) -> None:
        """Record what modules, running functions and the user's instances hold now."""
        modules = [namespace_of(found) for found in list(sys.modules.values()) if is_a(found, types.ModuleType)]
        self._modules = {id(names): str(names.get("__name__")) for names in modules}
        self._locals, self._named = {}, {}
        instances: list[tuple[Any, PathPart]] = []
        for module in users_modules():
            for name, value in list(module.names.items()):
                part = PathPart("global", name, module.name, module.file)
                self._named.setdefault(id(value), (part,))
                instances.append((value, part))
        for frame in running_frames():
            self._note_frame(frame, instances)
        for value, part in instances:
            self._note_instance(value, part)
        self._own |= {id(self._modules), id(self._locals), id(self._named), id(self._own)}

    def _note_instance(self, value: Any, part: PathPart) -> None:  # noqa: ANN401 - any object
        """Record the attributes of a named instance of a user's class."""
        kind = type(value)
        file = file_of(module_of(kind))
        if file is None or not is_users(file):
            return
        where = (full_name_of(kind), file)
        for name, held in attributes(value):
            self._named.setdefault(id(held), (part, PathPart("attribute", name, *where)))

    def _note_frame(self, frame: types.FrameType, instances: list[tuple[Any, PathPart]]) -> None:
        """Record the local variables of a running function; those of the user's own functions win."""
        code = frame.f_code
        for name, value in local_items(frame):
            noted = self._locals.get(id(value))
            if noted is None or not is_users(noted.file or ""):
                part = PathPart("local", name, code.co_name, code.co_filename, code.co_firstlineno)
                self._locals[id(value)] = part
                instances.append((value, part))

    def find(self, target: object) -> HoldingPath:
        """The shortest path from a root to an object, one in the user's own code before others.

        Args:
            target: The object that is held.
        """
        return at_once(self.search(target, Turn()))

    def search(self, target: object, turn: Turn) -> Turns[HoldingPath]:
        """The same in turns: each level takes about 40 ns for each object in the process.

        During the search, up to `WIDEST` objects that lead to the target are referenced.

        Args:
            target: The object that is held.
            turn: Its end returns control to the training.
        """
        root = self._root(target)
        if root is not None:
            return HoldingPath((root,))
        if id(target) in self._named:
            return HoldingPath(self._named[id(target)])
        climb = _Climb(self, target)
        for _ in range(DEEPEST):
            roots = climb.up()
            if roots:
                item, part = min(roots, key=lambda pair: not is_users(pair[1].file or ""))
                return HoldingPath((part, *climb.down(item)))
            if not climb.level:
                break
            if turn.over:
                yield
                self.note_roots()
        return HoldingPath(climb.around() or climb.down(climb.last))

    def _root(self, item: object) -> PathPart | None:
        """How a root holds an object; None if none does directly."""
        return self._locals.get(id(item)) or root_of(item)

    def _in_module(self, namespace: Any, level: list[Any]) -> list[tuple[Any, PathPart]]:  # noqa: ANN401 - a dict
        """Which objects a module holds, and by which global name."""
        module = self._modules[id(namespace)]
        names = ((held, key_of(namespace, held)) for held in level)
        return [
            (held, PathPart("global", name, module, file_of(module))) for held, name in names if name is not None
        ]


class _Climb:
    """One upward search."""

    def __init__(self, paths: Paths, target: object) -> None:
        self._paths = paths
        self._above: dict[int, tuple[Any, Any, PathPart]] = {}
        self.level: list[Any] = [target]
        self.last: Any = target
        self._target = target
        self._cycle: tuple[Any, PathPart] | None = None
        self._seen = {id(target), id(self), id(self._above)} | paths._own  # noqa: SLF001 - its own search
        self._seen |= {id(self.__dict__), id(self._seen)}

    def up(self) -> list[tuple[Any, PathPart]]:
        """Go up one level; return the objects that a root holds, and how."""
        level, nexts = self.level, list[Any]()
        roots: list[tuple[Any, PathPart]] = []
        self._seen |= {id(level), id(nexts), id(roots)}
        for item in gc.get_referrers(*level):
            if id(item) in self._paths._modules:  # noqa: SLF001 - its own search
                roots += self._paths._in_module(item, level)  # noqa: SLF001
            elif _is_ours(item):
                continue
            elif item is self._target:
                self._cycle = self._cycle or link(item, level)
            elif id(item) not in self._seen and not is_a(item, _NOT_HOLDERS):
                held, part = link(item, level)
                note = (item, held, part)
                self._seen |= {id(item), id(note)}
                self._above[id(item)] = note
                nexts.append(item)
                root = self._paths._root(item)  # noqa: SLF001
                if root is not None:
                    roots.append((item, root))
        self._seen |= {id(pair) for pair in roots}
        self.level = nexts[:WIDEST]
        self.last = nexts[0] if nexts else self.last
        return roots

    def around(self) -> tuple[PathPart, ...]:
        """The parts from the target back to itself, if only it holds itself."""
        if self._cycle is None:
            return ()
        held, part = self._cycle
        return self.down(held, part) if part.name is None else (part, *self.down(held))

    def down(self, item: Any, waiting: PathPart | None = None) -> tuple[PathPart, ...]:  # noqa: ANN401 - any object
        """The parts from an object down to the target; a namespace and its entry are one part."""
        parts: list[PathPart] = []
        while id(item) in self._above:
            holder, item, part = self._above[id(item)]
            if part.role in {"closure", "default"}:
                parts.append(replace(part, name=_variable(holder, self._above.get(id(item)))))
            elif waiting is not None:
                parts.append(replace(waiting, name=part.name))
                waiting = None
            elif part.role in {"attribute", "class attribute"} and part.name is None:
                waiting = part
            else:
                parts.append(part)
        return tuple(parts)


def _variable(function: Any, note: tuple[Any, Any, PathPart] | None) -> str | None:  # noqa: ANN401 - a function
    """The name of the variable whose cell a closure holds, or of the parameter whose default an object is."""
    if note is None:
        return None
    holder, held, part = note
    if is_a(holder, dict):  # the defaults of parameters that are given by keyword
        return part.name
    code = function.__code__
    names = code.co_freevars
    if holder is not function.__closure__:
        names = code.co_varnames[: code.co_argcount][-len(holder) :]
    return next((str(name) for name, other in zip(names, holder, strict=False) if other is held), None)


def _is_ours(item: Any) -> bool:  # noqa: ANN401 - any object
    """Whether a referrer is the search's own argument tuple, or a generator of ours that waits for its turn."""
    if type(item) is types.GeneratorType:
        return is_ours(item.gi_code.co_filename)
    return type(item) is tuple and sys.getrefcount(item) <= ARGUMENTS_HELD


_NOT_HOLDERS = (types.FrameType, types.TracebackType, types.ModuleType, types.MappingProxyType, Paths, _Climb)
