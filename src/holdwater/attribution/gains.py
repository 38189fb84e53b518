"""What has grown between two counts, and who holds it: containers, graphs, texts, instances, gradients.

A container that was there before and is longer now has gained its newest elements; what those weigh, graphs and
storages behind them included, is what it holds. What grows without a container (a sum that carries its graph, a
tensor that is concatenated to, a chain of objects) is found by the name under which it grows.
"""

import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from holdwater.attribution.census import Seen
from holdwater.attribution.links import Part
from holdwater.attribution.named import LEAST_VALUE, MOST_NAMED_NODES, Named, named_sizes, short_dicts
from holdwater.attribution.paths import Path, Paths
from holdwater.attribution.traits import bases_of, traits_of
from holdwater.attribution.user_code import is_users, users_modules
from holdwater.attribution.weights import NODE_BYTES, Weight, class_of, follow_graphs, newest, weigh

Kind = Literal["container", "graph", "value", "instances", "gradients"]
MOST_CONTAINERS = 100
"""Containers whose gain is weighed, those with most new elements first."""
MOST_WALKED = 2000
"""Objects that are walked for one container's sample."""
SECONDS = 0.7
"""After so long no more is weighed, and no more holders are sought."""
MOST_PATHS = 12
"""Gains for which the holder is sought, the heaviest first."""
SAMPLE = 24
"""Elements of a container that are weighed."""
LEAST_GAIN = 2
"""New elements of a container from which on it has grown."""
_STANDARD = frozenset((
    "typing", "sys", "importlib", "_frozen_importlib", "_frozen_importlib_external", "linecache", "re", "abc",
    "functools", "warnings", "tokenize", "sre_parse", "sre_compile", "encodings", "copyreg", "enum", "inspect",
))  # fmt: skip
"""Modules whose own tables grow when something is imported."""
_HANDLES = ("threading", "subprocess", "socket", "_io", "multiprocessing", "select", "concurrent")


@dataclass(slots=True)
class Gain:
    """Something that has grown, by how much, and who holds it."""

    kind: Kind
    type: str
    """Of the container, the value or the instances."""
    count: int
    """Elements, graph nodes or instances gained."""
    weight: Weight
    """Bytes gained."""
    elements: dict[str, int] = field(default_factory=dict)
    """Types of the new elements, of a sample."""
    nodes: int = 0
    """Graph nodes gained."""
    files: int = 0
    """Bytes of mapped files and shared memory behind the new elements."""
    views: bool = False
    """Whether the new elements are small views of much larger arrays or tensors."""
    handles: int = 0
    """New elements that are threads, processes, files or sockets."""
    bases: dict[str, float] = field(default_factory=dict)
    """Classes that the new elements are instances of, with the share of them."""
    traits: list[str] = field(default_factory=list)
    """What else was seen of them: see `traits`; `of weights`, `chain`."""
    path: tuple[Part, ...] = ()
    naming: Part | None = None

    def as_json(self) -> dict[str, Any]:
        """For the watching process."""
        return asdict(self)


class Gains:
    """Compares each count with the one before."""

    def __init__(self) -> None:
        self.found: list[Gain] = []
        """What the newest count has found, the heaviest first."""
        self.growing: list[Any] = []
        """The heaviest containers themselves, for as long as somebody watches them: see `forget`."""
        self._named: dict[tuple[Any, str], tuple[int, int]] = {}
        self._short: dict[int, int] = {}
        """Lengths of short dictionaries of the user's own, by identity."""
        self._kinds: dict[int, int] = {}  # by identity: a class that is dropped is not to be kept alive

    def remember(self, seen: Seen) -> None:
        """Take in a census that others will be compared with."""
        self._named = {key: sizes for key, (sizes, *_) in named_sizes(seen)}
        self._kinds = _by_identity(Counter(map(type, seen.objects)))
        self._short = {id(item): len(item) for item in short_dicts(seen)}

    def compare(self, seen: Seen) -> None:
        """Compare a census with the one before: `found` and `growing` say what has grown."""
        own = {
            id(seen),
            id(seen.objects),
            id(seen.containers),
            id(seen.before),
            id(seen.storages),
            id(self.__dict__),
            id(self._short),
        }
        named = dict(named_sizes(seen))
        kinds = Counter(map(type, seen.objects))
        weighed: list[tuple[Gain, Any, Part | None]] = []
        if self._kinds:
            weighed += [(*pair, None) for pair in _containers(seen, self._short, own)]
            weighed += _named_gains(self._named, named)
            explained = {name for gain, *_ in weighed for name in gain.elements}
            weighed += [(*pair, None) for pair in _instances(seen, self._kinds, kinds, explained)]
            weighed += _gradients(seen)
        self._named = {key: sizes for key, (sizes, *_) in named.items()}
        self._kinds = _by_identity(kinds)
        self._short = {id(item): len(item) for item in short_dicts(seen)}
        weighed.sort(key=lambda row: -_importance(row[0]))
        own |= (
            {id(weighed), id(named), id(own)} | {id(row) for row in weighed} | {id(row) for row in named.values()}
        )
        heaviest, others = weighed[: 2 * MOST_PATHS // 3], weighed[2 * MOST_PATHS // 3 :]
        self._name([*heaviest, *sorted(others, key=lambda row: -row[0].count)], own)

    def forget(self) -> None:
        """Let go of the containers."""
        self.growing = []

    def _name(self, weighed: list[tuple[Gain, Any, Part | None]], own: set[int]) -> None:
        """Find who holds what has grown."""
        paths = Paths(own | {id(weighed)})
        self.found, self.growing = [], []
        until = time.perf_counter() + SECONDS
        for gain, target, part in weighed:
            if time.perf_counter() > until or len(self.found) >= MOST_PATHS:
                break
            path = Path((part,)) if part is not None else paths.find(target)
            if _is_noise(path):
                continue
            gain.path, gain.naming = path.parts, path.naming
            if gain.kind == "instances" and _is_chain(path, gain.type):
                gain.traits.append("chain")
            self.found.append(gain)
            if gain.kind == "container":
                self.growing.append(target)


def _by_identity(kinds: Counter[type]) -> dict[int, int]:
    """Counts by the identity of the type."""
    return {id(kind): count for kind, count in kinds.items()}


def _importance(gain: Gain) -> float:
    """By what gains are put in order: bytes, and a little for what cannot be weighed."""
    return gain.weight.total + gain.files + 4096 * gain.handles + gain.count


def _is_noise(path: Path) -> bool:
    """Whether holdwater itself holds something, or it is a table of the interpreter's own."""
    if any((part.file or "").startswith(_HERE) or part.owner.startswith(_OURS) for part in path.parts):
        return True
    naming = path.naming
    return naming is not None and naming.owner.partition(".")[0] in _STANDARD and not is_users(naming.file or "")


def _is_chain(path: Path, kind: str) -> bool:
    """Whether instances of a class are held by instances of the same."""
    return any(part.role == "attribute" and part.owner.rpartition(".")[2] == kind for part in path.parts)


def _containers(seen: Seen, short: dict[int, int], own: set[int]) -> Iterator[tuple[Gain, Any]]:
    """Containers that were there before and are longer now; some were too short to be in the census."""
    grown = []
    for item in [*seen.containers, *(short_dicts(seen) if short else ())]:
        before = seen.before.get(id(item), short.get(id(item)))
        if before is not None and len(item) - before >= LEAST_GAIN and id(item) not in own:
            grown.append((len(item) - before, item))
    grown.sort(key=lambda pair: -pair[0])
    until = time.perf_counter() + SECONDS
    for gain, item in grown[:MOST_CONTAINERS]:
        if time.perf_counter() > until:
            return
        fresh = newest(item, gain)[: SAMPLE * (2 if isinstance(item, dict) else 1)]
        if fresh:
            share = gain * (2 if isinstance(item, dict) else 1) / len(fresh)
            yield _weighed("container", item, gain, fresh, share, seen), item


def _weighed(kind: Kind, item: Any, count: int, fresh: list[Any], share: float, seen: Seen) -> Gain:  # noqa: ANN401, PLR0913, PLR0917 - one record's parts
    """Weigh a sample, and scale it up."""
    skip = seen.before.keys() | {id(fresh)}
    weight = weigh(fresh, skip=skip, known=seen.storages, most=MOST_WALKED)
    scaled = Weight(*(int(part * share) for part in (weight.tensors, weight.python, weight.native, weight.device)))
    return Gain(
        kind=kind,
        type=type(item).__name__,
        count=count,
        weight=scaled,
        elements=dict(Counter(type(part).__name__ for part in fresh).most_common(3)),
        nodes=int(weight.native * share / NODE_BYTES) if any(map(_has_graph, fresh)) else 0,
        views=sum(map(_is_small_view, fresh)) > len(fresh) / 2,
        files=int(share * sum(map(_mapped, fresh))),
        handles=int(share * sum(type(part).__module__.partition(".")[0] in _HANDLES for part in fresh)),
        bases=bases_of(fresh, pairs=isinstance(item, dict)),
        traits=traits_of(fresh, pairs=isinstance(item, dict)),
    )


def _has_graph(item: object) -> bool:
    """Whether an element is a tensor with a graph behind it."""
    return isinstance(item, class_of("torch", "Tensor")) and getattr(item, "grad_fn", None) is not None


def _is_small_view(item: Any) -> bool:  # noqa: ANN401 - any element
    """Whether an element keeps four times what it shows."""
    try:
        if isinstance(item, class_of("torch", "Tensor")):
            return bool(item.untyped_storage().nbytes() > 4 * max(item.nbytes, 64))
        base = getattr(item, "base", None)
        return base is not None and getattr(base, "nbytes", 0) > 4 * max(item.nbytes, 64)
    except (RuntimeError, NotImplementedError, AttributeError):
        return False


def _mapped(item: object) -> int:
    """Bytes of a file or of shared memory that an element maps."""
    memmap = getattr(sys.modules.get("numpy"), "memmap", None)
    if memmap is not None and isinstance(item, memmap):
        return int(item.nbytes)
    if type(item).__name__ == "SharedMemory":
        return int(getattr(item, "size", 0))
    return 0


def _named_gains(
    before: dict[tuple[Any, str], tuple[int, int]], now: dict[tuple[Any, str], Named]
) -> Iterator[tuple[Gain, Any, Part]]:
    """Names behind which there is more than before."""
    for key, ((nodes, size), part, kind, like_weights) in now.items():
        nodes_before, size_before = before.get(key, (nodes, size))
        more_nodes, more = nodes - nodes_before, size - size_before
        if more_nodes >= LEAST_GAIN:
            weight = Weight(tensors=max(more, 0), native=NODE_BYTES * more_nodes)
            traits = ["of weights"] if like_weights else []
            yield Gain("graph", kind, more_nodes, weight, nodes=more_nodes, traits=traits), None, part
        elif more >= LEAST_VALUE and size > 1.05 * size_before:
            tensors = kind in {"Tensor", "Parameter", "list", "tuple"}
            weight = Weight(tensors=more) if tensors else Weight(python=more)
            yield Gain("value", kind, 1, weight), None, part


def _instances(
    seen: Seen, before: dict[int, int], now: Counter[type], explained: set[str]
) -> Iterator[tuple[Gain, Any]]:
    """Classes of the user's own with more instances than before that no container holds."""
    owners = {module.__name__ for module in users_modules()}
    for kind, count in now.items():
        more = count - before.get(id(kind), 0)
        if more < 2 * LEAST_GAIN or kind.__module__ not in owners or kind.__name__ in explained:
            continue
        items = deque((item for item in seen.objects if type(item) is kind), maxlen=more)
        fresh = list(items)[-SAMPLE - 2 : -2] or list(items)
        yield _weighed("instances", fresh[0], more, fresh, more / len(fresh), seen), fresh[-1]


def _gradients(seen: Seen) -> Iterator[tuple[Gain, Any, Part]]:
    """Gradients that have a graph behind them, and so keep the step that made them."""
    kept: list[Any] = []
    for item in seen.tensors:
        if item.is_leaf and item.requires_grad and item.grad is not None:
            kept += [] if item.grad.grad_fn is None else [item.grad]
    if kept:
        storages: dict[int, int] = {}
        nodes = follow_graphs([gradient.grad_fn for gradient in kept], storages, most=MOST_NAMED_NODES)
        weight = Weight(tensors=sum(storages.values()), native=NODE_BYTES * nodes)
        part = Part("attribute", "grad", "torch.nn.parameter.Parameter")
        yield Gain("gradients", "Tensor", len(kept), weight, nodes=nodes), None, part


_HERE = __file__.rpartition("attribution")[0]
_OURS = ("holdwater.", "memray.", "memray")
"""Modules that are there because somebody looks."""
