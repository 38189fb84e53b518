"""Find what has grown between two counts, and its holders: containers, graphs, strings, instances, gradients.

A container that existed before and is longer now has gained its newest elements; its gain is their size, with the
graphs and storages behind them. What grows without a container (a sum that carries its graph, a tensor that is
concatenated to, a chain of objects) is found by the name under which it grows.
"""

import atexit
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from holdwater.attribution.census import LEAST_GAIN, Note, Seen
from holdwater.attribution.gain import INTERPRETERS, Gain
from holdwater.attribution.gradients import GRADIENT, gradients_gained
from holdwater.attribution.links import PathPart
from holdwater.attribution.measured import (
    Instances,
    Row,
    in_container,
    instances_gained,
    named_gains,
    others_gained,
)
from holdwater.attribution.mlx_arrays import Held, held_now
from holdwater.attribution.named import Named, Names, Sizes
from holdwater.attribution.paths import HoldingPath, Paths
from holdwater.attribution.surplus import share_out
from holdwater.attribution.turns import Turns
from holdwater.attribution.user_code import is_ours, is_users

SECONDS = 0.7
"""Seconds after which no more is measured, and no more holders are sought."""
MOST_PATHS = 12
"""Gains whose holder is sought, the largest first."""
LIGHT = 0.01
"""Gains of less than this part of the largest that has a name do not explain the growth."""
MOST_ROWS = 40
"""Gains of which some are named."""
HELD_HERE = 3
"""References to a row's object that are our own: the row's, a variable's, and one that counts them."""
AT_EXIT = PathPart("global", "atexit", "atexit")
"""How what is called at the end is held."""
NEARLY_ALL = 0.9
"""This part of a class's new instances must have registered a function with `atexit`."""
_STANDARD = frozenset((
    "typing", "sys", "importlib", "_frozen_importlib", "_frozen_importlib_external", "linecache", "re", "abc",
    "functools", "warnings", "tokenize", "sre_parse", "sre_compile", "encodings", "copyreg", "enum", "inspect",
))  # fmt: skip
"""Modules whose own tables grow when something is imported."""


class Gains:
    """Compares each count with the previous one."""

    def __init__(self) -> None:
        self.found: list[Gain] = []
        """The gains of the newest count, the largest first."""
        self.growing: list[Any] = []
        """The largest containers themselves, as long as they are watched: see `forget`."""
        self.counted = "all"
        """How much of the process the newest count has visited, as `Census.counted`."""
        self.named: dict[tuple[Any, str], Sizes] = {}
        """Graph nodes and bytes behind each name, at the newest count."""
        self.kinds: dict[int, int] | None = None
        """Number of instances of each class, by identity of the class, so that no class is kept alive."""
        self.short: dict[int, int] = {}
        """Lengths of short dictionaries under the user's names, by identity."""
        self.callbacks = 0
        """Functions that were registered with `atexit` at the newest count."""
        self.held: Held | None = None
        """What MLX held at the newest count; None if it was not loaded."""
        self.mlx: dict[str, int] = {}
        """What it held more than at the count before, as `Held`; empty if that is unknown."""

    @property
    def remember(self) -> "CensusComparison":
        """Receives a census that later ones will be compared with."""
        return CensusComparison(self, compares=False)

    @property
    def compare(self) -> "CensusComparison":
        """Compares a census with the previous one: `found` and `growing` hold what has grown."""
        return CensusComparison(self, compares=True)

    def forget(self) -> None:
        """Release the containers."""
        self.growing = []


class CensusComparison(Note):
    """One count, as it is made."""

    def __init__(self, gains: Gains, *, compares: bool) -> None:
        """Prepare.

        Args:
            gains: Holds the previous count, and receives this one.
            compares: Whether to find what has grown.
        """
        self._gains, self._compares = gains, compares and gains.kinds is not None
        self._before = (gains.named, gains.kinds or {})
        self._names = Names(gains.short, gains.named)
        self._kinds: Counter[type] = Counter()
        self._users: set[type] = set()
        """Classes of the user's own."""
        self.known_paths: dict[int, tuple[PathPart, ...]] = {}
        """How a partial count has reached objects of libraries, by identity."""
        self._held: Held | None = None
        self._callbacks = int(getattr(atexit, "_ncallbacks", int)())  # it has no public name
        self._gradients: tuple[Gain, ...] = ()  # not a list: another object may have its address at the next count

    def begin(self, seen: Seen) -> None:
        """Record gradients and names, which lead to tensors."""
        self._held = self._held or held_now()
        self._names.note_weights(seen.tensors)
        self._kinds.update(map(type, seen.tensors))
        if self._compares:
            self._gradients += tuple(gradients_gained(seen.tensors, seen.storages))

    def visit(self, chunk: list[Any], kinds: set[type]) -> None:
        """Record the number of instances of each class, and what attributes of the user's hold."""
        self._kinds.update(map(type, chunk))
        self._users.update(map(type, self._names.visit(chunk, kinds)))

    def end(self, seen: Seen) -> Turns[None]:
        """Name what has grown, a few things at a time."""
        if seen.turn.over:
            yield
        self._names.visit_names()
        named = self._names.found
        if self._compares:
            gradients: list[Row] = [(gain, None, GRADIENT) for gain in self._gradients]
            yield from self._compare(seen, [*gradients, *self._named_gains()])
        self._keep(named, "all")

    def end_in_part(self, seen: Seen, grown: list[tuple[Gain, Any]]) -> Turns[None]:
        """Name what has grown after a partial count: the path to each container is known.

        Args:
            seen: The census's objects.
            grown: Gains with their paths, and the containers.
        """
        if seen.turn.over:
            yield
        self._names.visit_names()
        gains, named = self._gains, self._names.found
        self._held = held_now()
        if self._compares:
            rows: list[Row] = [*((gain, item, None) for gain, item in grown), *self._named_gains()]
            rows = self._with_surplus(rows)
            rows.sort(key=lambda row: -_importance(row[0]))
            gains.found, gains.growing = [], []
            for gain, item, part in rows[:MOST_ROWS]:
                if len(gains.found) < MOST_PATHS:
                    above = gain.path if part is None else (*self.known_paths.get(id(item), ()), part)
                    self._take(gain, item, HoldingPath(above))
        self._keep(named, "in part")

    def _keep(self, named: dict[tuple[Any, str], Named], counted: str) -> None:
        """Keep this count for the next comparison."""
        self._gains.named = {key: sizes for key, (sizes, *_) in named.items()}
        self._gains.kinds = {id(kind): count for kind, count in self._kinds.items()}
        self._gains.short = self._names.short
        self._gains.counted = counted
        self._gains.held = self._held
        self._gains.callbacks = self._callbacks

    def _named_gains(self) -> Iterator[Row]:
        """Names that hold more than before; who holds a library's object is sought."""
        for key, gain, part in named_gains(self._before[0], self._names.found, self._names.holders):
            holder = self._names.holders.get(key)
            yield gain, None if holder is None else holder(), part

    def _with_surplus(self, rows: list[Row]) -> list[Row]:
        """Correct the sizes of MLX arrays by what MLX holds."""
        before, now = self._gains.held, self._held
        self._gains.mlx = {}
        if before is not None and now is not None:
            grown = now.since(before)
            self._gains.mlx = asdict(grown)
            share_out([gain for gain, *_ in rows], grown)
        return rows

    def _take(self, gain: Gain, item: Any, path: HoldingPath) -> bool:  # noqa: ANN401 - a container, or nothing
        """Add one gain, unless it is the interpreter's own or ours; return whether it was added."""
        if _is_noise(path):
            return False
        gain.path, gain.naming = path.parts, path.naming
        if gain.naming is None and gain.kind == "instances" and self._are_called_at_exit(gain.count):
            gain.naming = AT_EXIT
        if _is_interpreters(gain.naming):
            gain.traits.append(INTERPRETERS)
        if gain.kind == "instances" and _is_chain(path, gain.type):
            gain.traits.append("chain")
        self._gains.found.append(gain)
        if gain.kind == "container":
            self._gains.growing.append(item)
        return True

    def _are_called_at_exit(self, count: int) -> bool:
        """Whether as many functions were registered with `atexit`, which cannot be asked what it holds."""
        return self._callbacks - self._gains.callbacks >= max(int(NEARLY_ALL * count), LEAST_GAIN)

    def _compare(self, seen: Seen, rows: list[Row]) -> Turns[None]:
        """Measure what has grown, rank it, and find its holders."""
        weighed = yield from _containers(seen, {id(seen), id(seen.before), id(self.__dict__), id(seen.gains)})
        if seen.turn.over:
            yield
        rows += [(gain, seen.containers[key], None) for gain, key in weighed if key in seen.containers]
        seen.containers = {}
        for key in self._names.lengthened.keys() - {key for _, key in weighed}:
            count, item = self._names.lengthened[key]
            longer = in_container(item, count, seen)
            rows += [] if longer is None else [(longer, item, None)]
        explained = {name for gain, *_ in rows if gain.kind == "container" for name in gain.elements}
        if seen.turn.over:
            yield
        counts = Instances(self._before[1], self._kinds, frozenset(self._users), frozenset(explained))
        rows += instances_gained(seen, counts)
        if seen.turn.over:
            yield
        known = sum(_importance(gain) for gain, *_ in rows if "type" not in gain.elements)  # those come by imports
        rows += (row for row in others_gained(seen, counts) if _importance(row[0]) > known)
        if seen.turn.over:
            yield
        rows[:] = self._with_surplus(_that_live(rows))
        rows.sort(key=lambda row: -_importance(row[0]))
        heaviest, others = rows[: 2 * MOST_PATHS // 3], rows[2 * MOST_PATHS // 3 :]
        rows[:] = [*heaviest, *sorted(others, key=lambda row: -row[0].count)][:MOST_ROWS]
        yield from self._name(rows, seen)

    def _name(self, rows: list[Row], seen: Seen) -> Turns[None]:
        """Find the holders of what has grown."""
        gains = self._gains
        gains.found, gains.growing = [], []
        own = {id(rows), id(seen), id(seen.before), id(gains.growing), id(self.__dict__)} | {
            id(row) for row in rows
        }
        paths = Paths(own | {id(row) for row in self._names.found.values()})
        if seen.turn.over:
            yield
            paths.note_roots()
        until, done = seen.turn.spent + SECONDS, 0
        least = 0.0
        while done < len(rows) and seen.turn.spent < until and len(gains.found) < MOST_PATHS:
            gain, target, part = rows[done]
            rows[done] = (gain, None, part)
            done += 1
            if (target is None and part is None) or (_importance(gain) < least and gain.kind != "rebound"):
                continue
            path = HoldingPath(()) if target is None else (yield from paths.search(target, seen.turn))
            path = path if part is None else HoldingPath((*path.parts, part))
            if self._take(gain, target, path) and gain.naming is not None and INTERPRETERS not in gain.traits:
                least = max(least, LIGHT * _importance(gain))
            del target
            if seen.turn.over:
                yield
                paths.note_roots()
                _let_go(rows, done)


def _let_go(rows: list[Row], done: int) -> None:
    """Release objects that nothing else holds any more."""
    for at in range(done, len(rows)):
        gain, target, part = rows[at]
        if target is not None and sys.getrefcount(target) <= HELD_HERE:
            rows[at] = (gain, None, part)


def _that_live(rows: list[Row]) -> list[Row]:
    """Without objects that nothing else holds any more: one may have had the place of a list that was counted."""
    _let_go(rows, 0)
    return [row for row in rows if row[1] is not None or row[2] is not None]


def _importance(gain: Gain) -> float:
    """The rank of a gain: bytes, and a little for what cannot be measured."""
    return gain.weight.total + gain.files + 4096 * gain.handles + gain.count


def _is_noise(path: HoldingPath) -> bool:
    """Whether holdwater itself holds something, or it is a record of Python's abstract classes."""
    if any(is_ours(part.file or "") or part.owner.startswith(_OURS) for part in path.parts):
        return True
    naming = path.naming
    if naming is None:
        return False
    return naming.name == "_abc_impl"  # records which classes were asked for


def _is_interpreters(naming: PathPart | None) -> bool:
    """Whether a name is of a table of the interpreter's own, which grows when something is imported or printed."""
    owner = "" if naming is None else naming.owner.partition(".")[0]
    return naming is not None and owner in _STANDARD and not is_users(naming.file or "")


def _is_chain(path: HoldingPath, kind: str) -> bool:
    """Whether instances of a class are held by instances of the same."""
    return any(part.role == "attribute" and part.owner.rpartition(".")[2] == kind for part in path.parts)


def _containers(seen: Seen, own: set[int]) -> Turns[list[tuple[Gain, int]]]:
    """Measure containers that existed before and are longer now."""
    found: list[tuple[Gain, int]] = []
    until = seen.turn.spent + SECONDS
    for gain, item in seen.growing():
        weighed = None if id(item) in own or seen.turn.spent > until else in_container(item, gain, seen)
        if weighed is not None:
            found.append((weighed, id(item)))
        if seen.turn.over:
            yield
    return found


_OURS = ("holdwater.", "memray.", "memray")
"""Modules that are loaded only because the process is observed."""
