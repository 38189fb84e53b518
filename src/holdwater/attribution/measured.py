"""Measure what has grown between two counts, by a sample of the newest elements or instances."""

import gc
import sys
import threading
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from holdwater.attribution.census import LEAST_GAIN, Either, Seen
from holdwater.attribution.gain import Gain, Kind
from holdwater.attribution.kinds import is_a, module_of, name_of, only, ordinary
from holdwater.attribution.lengths import newest
from holdwater.attribution.links import PathPart
from holdwater.attribution.named import LEAST_VALUE, Named, Sizes
from holdwater.attribution.surplus import BY_TOKENS
from holdwater.attribution.sweep import all_objects
from holdwater.attribution.traits import bases_of, has_graph, is_small_view, traits_of
from holdwater.attribution.user_code import users_frame
from holdwater.attribution.weights import NODE_BYTES, ObjectWeights, Weight

Row = tuple[Gain, Any, PathPart | None]
"""A gain, the object whose holder is sought, or how it is held."""
MOST_WALKED = 2000
"""Objects that are walked for one container's sample."""
SAMPLE = 24
"""Elements of a container that are measured."""
LEAST_INSTANCES = 3
"""Fewer new instances of a class of the user's are no growth."""
MOST_OTHERS, LEAST_OTHERS = 2, 16
"""Classes of libraries that are measured, those with most new instances, and how many these are at least."""
NEWEST = 40_000
"""Objects among which new instances of libraries' classes are sought."""
MOST_LINES = 3
"""Lines at which threads stand."""
_IDENT: Any = vars(threading.Thread)["ident"].fget
_HANDLES = ("threading", "subprocess", "socket", "_io", "multiprocessing", "select", "concurrent")
_COMMON = frozenset((
    "builtins", "types", "typing", "collections", "functools", "weakref", "dataclasses", "abc", "_abc",
    "_frozen_importlib", "_frozen_importlib_external",
))  # fmt: skip
"""Modules whose classes say nothing of what grows: any import brings hundreds of their instances."""


@dataclass(frozen=True, slots=True)
class Instances:
    """How many instances of each class there were at two counts."""

    before: Mapping[int, int]
    """By the identity of the class."""
    now: Mapping[type, int]
    users: frozenset[type]
    """The classes of the user's own."""
    explained: frozenset[str]
    """Names of classes whose new instances a container holds."""

    def gained(self, kind: type) -> int:
        """How many more there are."""
        return self.now[kind] - self.before.get(id(kind), 0)


def in_container(item: Any, gain: int, seen: Seen) -> Gain | None:  # noqa: ANN401 - a container
    """What a container has gained, by a sample; None if its newest elements are not known.

    Args:
        item: The container.
        gain: Number of new elements.
        seen: What existed before.
    """
    pair = 2 if is_a(item, dict) else 1
    fresh = newest(item, gain)[: SAMPLE * pair]
    return _weighed("container", item, (gain, gain * pair / len(fresh)), fresh, seen) if fresh else None


def _weighed(  # noqa: PLR0913 - a sample, what it stands for, and what is left out
    kind: Kind,
    item: Any,  # noqa: ANN401 - any object
    counts: tuple[int, float],
    fresh: list[Any],
    seen: Seen,
    *,
    skip: Container[int] = (),
) -> Gain:
    """Measure a sample, and scale it up by the number of elements that each stands for."""
    count, share = counts
    left_out = Either(Either({id(fresh)}, skip), seen.before)
    unit = 2 if is_a(item, dict) and kind == "container" else 1
    weight, number = ObjectWeights(left_out, seen.storages).weigh_some(fresh, MOST_WALKED, unit=unit)
    share *= len(fresh) / number
    mlx = (int(share * weight.arrays), int(share * weight.array_bytes))
    scaled = Weight(*(int(part * share) for part in (weight.tensors, weight.python, weight.native, weight.device)))
    return Gain(
        kind=kind,
        type=name_of(type(item)),
        count=count,
        weight=scaled,
        elements=dict(Counter(name_of(type(part)) for part in fresh).most_common(3)),
        nodes=int(weight.native * share / NODE_BYTES) if any(map(has_graph, fresh)) else 0,
        views=sum(map(is_small_view, fresh)) > len(fresh) / 2,
        files=int(share * weight.files),
        handles=_handles(fresh, weight, count, share),
        arrays=mlx[0],
        array_bytes=mlx[1],
        bases=bases_of(fresh, pairs=is_a(item, dict)),
        traits=traits_of(fresh, pairs=is_a(item, dict)),
        stands=_stands(fresh),
    )


def _stands(fresh: list[Any]) -> list[tuple[str, int]]:
    """Where the threads among some elements stand in the program, the most frequent line first."""
    idents = [_IDENT(one) for one in fresh if is_a(one, threading.Thread)]
    frames = sys._current_frames() if idents else {}  # noqa: SLF001 - the documented function
    standing = [users_frame(frames.get(ident)) for ident in idents]
    del frames  # this very frame is among them
    lines = Counter((frame.f_code.co_filename, frame.f_lineno) for frame in standing if frame is not None)
    return [line for line, _ in lines.most_common(MOST_LINES)]


def _handles(fresh: list[Any], weight: Weight, count: int, share: float) -> int:
    """How many handles a sample stands for: its elements themselves, or at most one that each holds."""
    own = sum(module_of(type(part)).partition(".")[0] in _HANDLES for part in fresh)
    return int(share * own) if own else min(int(share * weight.handles), count)


def named_gains(
    before: dict[tuple[Any, str], Sizes], now: dict[tuple[Any, str], Named], steady: Container[tuple[Any, str]]
) -> Iterator[tuple[tuple[Any, str], Gain, PathPart]]:
    """Names that hold more than before, or MLX arrays that may keep more; some hardly vary unless they grow."""
    for key, (sizes, part, kind, like_weights) in now.items():
        old = before.get(key, sizes)
        more_nodes, more = sizes.nodes - old.nodes, sizes.bytes - old.bytes
        grown = more >= LEAST_VALUE and (key in steady or sizes.bytes > 1.05 * old.bytes)
        if more_nodes >= LEAST_GAIN:
            weight = Weight(tensors=max(more, 0), native=NODE_BYTES * more_nodes)
            traits = ["of weights"] if like_weights else []
            yield key, Gain("graph", kind, more_nodes, weight, nodes=more_nodes, traits=traits), part
        elif grown and sizes.arrays <= old.arrays:  # more arrays are a container's gain
            tensors = kind in {"Tensor", "Parameter", "list", "tuple"} or sizes.arrays > 0
            weight = Weight(tensors=more) if tensors else Weight(python=more)
            arrays = (1, more) if sizes.arrays else (0, 0)
            traits = [BY_TOKENS] if key in steady and sizes.arrays else []
            yield key, Gain("value", kind, 1, weight, arrays=arrays[0], array_bytes=arrays[1], traits=traits), part
        elif 0 < sizes.arrays <= old.arrays and key in before:
            yield key, Gain("rebound", kind, 1, Weight(), arrays=sizes.arrays), part


def instances_gained(seen: Seen, counts: Instances) -> Iterator[Row]:
    """The user's classes with more instances than before that no container holds."""
    more_of = {kind: counts.gained(kind) for kind in counts.users}
    grown = {
        kind: more
        for kind, more in more_of.items()
        if more >= LEAST_INSTANCES and name_of(kind) not in counts.explained
    }
    objects = list(only(ordinary(all_objects()), grown)) if grown else []
    for kind, more in grown.items():
        yield from _alike(kind, more, objects, seen)


def others_gained(seen: Seen, counts: Instances) -> Iterator[Row]:
    """Classes of libraries with many more instances than before that no container holds.

    Such are the elements of a parsed tree, tasks that wait, tensors that hold one another.
    """
    grown = [
        kind
        for kind in counts.now
        if id(kind) in counts.before
        and counts.gained(kind) >= LEAST_OTHERS
        and kind not in counts.users
        and name_of(kind) not in counts.explained
        and module_of(kind) not in _COMMON
    ]
    grown.sort(key=counts.gained, reverse=True)
    objects = _newest_objects(frozenset(grown[:MOST_OTHERS])) if grown else []
    for kind in grown[:MOST_OTHERS]:
        yield from _alike(kind, counts.gained(kind), objects, seen)


def _newest_objects(kinds: frozenset[type]) -> list[Any]:
    """Instances of some classes among the newest objects of the process, the oldest of them first."""
    found: list[Any] = []
    for generation in (2, 1, 0):
        found += only(ordinary(gc.get_objects(generation=generation)[-NEWEST:]), kinds)
    return found


def _alike(kind: type, more: int, objects: list[Any], seen: Seen) -> Iterator[Row]:
    """A class's new instances, measured by a sample."""
    alike = list(only(objects, {kind}))
    fresh = alike[-min(more, 2 * SAMPLE) :]
    fresh = fresh[-SAMPLE - 2 : -2] or fresh
    others = set(map(id, alike)) - set(map(id, fresh))  # one may hold the next: each is measured alone
    del alike
    if fresh:
        stand_for = (more, more / len(fresh))
        # the oldest tells who keeps them: variables may still hold the newest
        yield _weighed("instances", fresh[0], stand_for, fresh, seen, skip=others), fresh[0], None
