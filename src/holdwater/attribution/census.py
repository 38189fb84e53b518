"""Count what a live process holds: tensors, those kept by graphs, images, and containers that grow.

A census reads the objects that Python's collector tracks; it never collects, and keeps no reference. What it
costs grows with the number of objects (about 0.1 s for 300,000), so it is taken only on suspicion.
Storages are counted once however many tensors share them. Nodes of autograd graphs are followed from the
tensors that Python holds: what only a graph keeps is found there.
"""

import gc
import sys
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from holdwater.attribution.frames import local_values

MOST_NODES = 30_000
"""Graph nodes that one census follows."""
MOST_WALKED = 20_000
"""Objects that one census weighs in what containers have gained."""
LEAST_LENGTH = 8
"""Containers shorter than this are not remembered."""
LEAST_BULK = 1024
"""Arrays, texts and byte strings from this size on are counted one by one."""
CHUNK = 20_000
"""Objects whose referents are listed at once."""
NODE_BYTES = 400
"""A graph node and its links, about: measured 350 to 500 bytes with torch 2.13."""
_PLAIN = frozenset((dict, tuple))
_CONTAINERS = frozenset((list, dict, set, deque))


@dataclass(slots=True)
class Weight:
    """Bytes by what they belong to."""

    tensors: int = 0
    """Tensor storages on the host, those kept by graphs included."""
    python: int = 0
    """Python objects and numpy arrays."""
    native: int = 0
    """Images and graph nodes."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.tensors + self.python + self.native


@dataclass(slots=True)
class Census:
    """What a process held at one step."""

    step: int
    tensors: int = 0
    """Bytes of host tensor storages that Python or a graph holds."""
    nodes: int = 0
    """Graph nodes reached; `MOST_NODES` means: at least so many."""
    bulk: int = 0
    """Bytes of arrays, texts and byte strings of a kilobyte or more."""
    gained: Weight = field(default_factory=Weight)
    """What containers and new objects have gained since the census before, bulk left out."""
    datasets: int = 0
    """Bytes held by the datasets of the loaders that were iterated."""
    room: int | None = None
    """Bytes that the growing containers will take at most, where all of them have a greatest length."""
    seconds: float = 0.0
    """What taking it cost."""

    @staticmethod
    def tensors_now() -> int:
        """Bytes of host tensor storages now, by a quick count."""
        objects = gc.get_objects()
        census = Census(0)
        Counter.count_tensors(_of_kind(objects, set(map(type, objects)), "torch", "Tensor"), census)
        return census.tensors

    def as_json(self) -> dict[str, Any]:
        """The numbers, for the other side of the channel."""
        return asdict(self)


class Counter:
    """Takes censuses, and remembers the lengths of containers from one to the next."""

    def __init__(self) -> None:
        self._lengths: dict[int, int] | None = None
        self._storages: dict[int, int] = {}
        self._objects = 0

    def take(self, step: int, datasets: Iterable[object] = ()) -> Census:
        """Count what is held now.

        Args:
            step: The step that ended last.
            datasets: Objects whose own weight is asked for.
        """
        objects = gc.get_objects()
        kinds = set(map(type, objects))
        census = Census(step)
        try:
            storages = self.count_tensors(_of_kind(objects, kinds, "torch", "Tensor"), census)
            census.bulk, dicts = _look_behind(objects)
            containers = [item for item in objects if type(item) in _CONTAINERS and len(item) >= LEAST_LENGTH]
            containers += [item for item in dicts if len(item) >= LEAST_LENGTH]
            lengths = {id(item): len(item) for item in containers}
            if self._lengths is not None:
                self._weigh_gains(objects, containers, lengths, census)
            self._lengths, self._objects, self._storages = lengths, len(objects), storages
            census.datasets = sum(_weigh([dataset]).total for dataset in datasets)
        finally:
            del objects
        return census

    @staticmethod
    def count_tensors(tensors: list[Any], census: Census) -> dict[int, int]:
        """Add up storages, and what graphs hold."""
        storages: dict[int, int] = {}
        functions = []
        for tensor in tensors:
            _note_storage(tensor, storages)
            function = getattr(tensor, "grad_fn", None)
            if function is not None:
                functions.append(function)
        census.nodes = _follow_graphs(functions, storages)
        census.tensors = sum(storages.values())
        return storages

    def _weigh_gains(
        self, objects: list[Any], containers: list[Any], lengths: dict[int, int], census: Census
    ) -> None:
        """Weigh what containers have gained, and the objects that are new."""
        before = self._lengths or {}
        news: list[Any] = []
        rooms: list[int | None] = []
        own = {id(before), id(lengths), id(self.__dict__), id(objects), id(containers), id(news), id(rooms)}
        for item in containers:
            if id(item) in own:
                continue
            gain = lengths.get(id(item), 0) - before.get(id(item), 0)
            if gain >= LEAST_LENGTH and id(item) in before:
                fresh = _newest(item, gain)
                news.extend(fresh)
                rooms.append(_room(item, fresh))
        fresh_objects = len(objects) - self._objects
        if fresh_objects > 0:
            news.extend(objects[-min(fresh_objects, MOST_WALKED) :])
        census.gained = _weigh(news, skip=own | before.keys(), known=self._storages, bulk=False)
        if rooms and all(room is not None for room in rooms):
            census.room = sum(room or 0 for room in rooms)


def _of_kind(objects: list[Any], kinds: set[type], module: str, name: str) -> list[Any]:
    """The objects of a class and its subclasses; none where the module is not loaded."""
    base = getattr(sys.modules.get(module), name, None)
    if not isinstance(base, type):
        return []
    wanted = {kind for kind in kinds if issubclass(kind, base)}
    return [item for item in objects if type(item) in wanted] if wanted else []


def _note_storage(tensor: Any, storages: dict[int, int]) -> None:  # noqa: ANN401 - a tensor
    """Note a host tensor's storage; fake and freed ones have none."""
    try:
        if tensor.device.type == "cpu":
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    except (RuntimeError, NotImplementedError, AttributeError):
        return


def _note_new_storage(tensor: Any, storages: dict[int, int]) -> None:  # noqa: ANN401 - a tensor
    """Note a storage unless it is known."""
    found: dict[int, int] = {}
    _note_storage(tensor, found)
    for address, size in found.items():
        storages.setdefault(address, size)


def _follow_graphs(functions: list[Any], storages: dict[int, int]) -> int:
    """Walk the graphs behind tensors, note the storages that they keep, and count their nodes."""
    seen: set[Any] = set()
    saved_names: dict[type, list[str]] = {}
    waiting = list(functions)
    while waiting and len(seen) < MOST_NODES:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        kind = type(node)
        names = saved_names.get(kind)
        if names is None:
            names = saved_names[kind] = [name for name in dir(node) if name.startswith("_saved_")]
        for name in names:
            _note_saved(node, name, storages)
        waiting.extend(function for function, _ in node.next_functions if function is not None)
    return len(seen)


def _note_saved(node: Any, name: str, storages: dict[int, int]) -> None:  # noqa: ANN401 - a node of a graph
    """Note what one attribute of a node keeps; after backward it has been given back."""
    try:
        value = getattr(node, name)
    except (RuntimeError, NotImplementedError, AttributeError):
        return
    for item in value if isinstance(value, tuple | list) else (value,):
        if hasattr(item, "untyped_storage"):
            _note_storage(item, storages)


def _image_bytes(image: Any) -> int:  # noqa: ANN401 - a PIL image
    """The pixels of a decoded image; 0 while it is only a file."""
    if getattr(image, "_im", None) is None and image.__dict__.get("im") is None:
        return 0
    try:
        width, height = image.size
        return int(width * height * (1 if image.mode in {"1", "L", "P"} else 4))
    except (TypeError, ValueError, AttributeError):
        return 0


def _look_behind(objects: list[Any]) -> tuple[int, list[Any]]:
    """Find what tracked objects and frames hold that the collector does not track.

    Dicts and tuples of plain values are not tracked, so they are gone into.

    Returns:
        Bytes of arrays, texts and byte strings of a kilobyte or more; and the dicts.
    """
    array = _class_of("numpy", "ndarray")
    wanted = (bytes, bytearray, str, array)
    kinds: dict[type, bool] = {}
    found: dict[int, int] = {}
    hidden: dict[int, Any] = {}
    waiting = [objects[at : at + CHUNK] for at in range(0, len(objects), CHUNK)]
    frames = [frame for top in sys._current_frames().values() for frame in _stack(top)]  # noqa: SLF001
    waiting.append([[value for frame in frames for value in local_values(frame)]])
    frames.clear()
    while waiting:
        held = gc.get_referents(*waiting.pop())
        for kind in set(map(type, held)) - kinds.keys():
            kinds[kind] = issubclass(kind, wanted)
        for item in [item for item in held if kinds[type(item)]]:
            owner, size = _owner(item, array)
            if size >= LEAST_BULK:
                found[id(owner)] = size
        plain = [item for item in held if type(item) in _PLAIN and item and not gc.is_tracked(item)]
        fresh = {id(item): item for item in plain if id(item) not in hidden}
        hidden |= fresh
        if fresh:
            waiting.append(list(fresh.values()))
    return sum(found.values()), [item for item in hidden.values() if type(item) is dict]


def _stack(frame: Any) -> list[Any]:  # noqa: ANN401 - a frame
    """A frame and those that called it, without this module's own: they would hold what they list."""
    frames = []
    while frame is not None:
        if frame.f_code.co_filename != __file__:
            frames.append(frame)
        frame = frame.f_back
    return frames


def _owner(item: Any, array: Any) -> tuple[Any, int]:  # noqa: ANN401 - an array, a text, bytes
    """What holds the memory of an object, and how much; an array may be a view of another, or of a tensor."""
    if not isinstance(item, array):
        return item, sys.getsizeof(item)
    while isinstance(item.base, array):
        item = item.base
    if item.base is None:
        return item, item.nbytes
    return item, sys.getsizeof(item.base) if isinstance(item.base, bytes | bytearray) else 0


def _newest(item: Any, gain: int) -> list[Any]:  # noqa: ANN401 - a container
    """The elements that a container has gained, as far as its order tells."""
    gain = min(gain, MOST_WALKED)
    try:
        if isinstance(item, dict):
            return [part for key in islice(reversed(item), gain) for part in (key, item[key])]
        if isinstance(item, set):
            return list(islice(item, gain))
        return list(islice(reversed(item), gain))
    except (RuntimeError, KeyError, TypeError):  # another thread changes it
        return []


def _room(item: Any, fresh: list[Any]) -> int | None:  # noqa: ANN401 - a container
    """What a container will still take until its greatest length; None where it has none."""
    most = getattr(item, "maxlen", None)
    if most is None or not fresh:
        return None
    return int((most - len(item)) * _weigh(fresh).total / len(fresh))


def _weigh(
    roots: Iterable[Any], skip: Iterable[int] = (), known: Iterable[int] = (), *, bulk: bool = True
) -> Weight:
    """Add up what objects weigh, with all that they lead to: modules, classes and code are left out.

    Args:
        roots: Where to begin.
        skip: Identities of objects that are not gone into.
        known: Addresses of storages that are not counted.
        bulk: Count arrays, texts and bytes of a kilobyte or more too.
    """
    weight = Weight()
    storages: dict[int, int] = dict.fromkeys(known, 0)
    functions: list[Any] = []
    seen, owners, waiting = set(skip), set[int](), deque(roots)
    tensor, array = _class_of("torch", "Tensor"), _class_of("numpy", "ndarray")
    while waiting and len(seen) < MOST_WALKED * 5:
        item = waiting.popleft()
        if id(item) in seen or isinstance(item, _NOT_FOLLOWED):
            continue
        seen.add(id(item))
        if isinstance(item, tensor):
            _note_new_storage(item, storages)
            functions += [] if item.grad_fn is None else [item.grad_fn]
            weight.python += 100
        elif isinstance(item, array):
            owner, size = _owner(item, array)
            weight.python += 0 if id(owner) in owners or not (bulk or size < LEAST_BULK) else size
            owners.add(id(owner))
        else:
            _weigh_plain(item, weight, bulk=bulk)
            waiting.extend(gc.get_referents(item))
    kept: dict[int, int] = {}
    weight.native += NODE_BYTES * _follow_graphs(functions, kept)
    weight.tensors = sum((kept | storages).values())
    return weight


def _weigh_plain(item: Any, weight: Weight, *, bulk: bool) -> None:  # noqa: ANN401 - any object
    """Add one object that is neither tensor nor array."""
    if isinstance(item, _class_of("PIL.Image", "Image")):
        weight.native += _image_bytes(item)
    size = sys.getsizeof(item, 64)
    large = size >= LEAST_BULK and isinstance(item, bytes | bytearray | str)
    weight.python += size if bulk or not large else 0


def _class_of(module: str, name: str) -> Any:  # noqa: ANN401 - a class
    """A class of a module, if that is loaded; else one that nothing is an instance of."""
    return getattr(sys.modules.get(module), name, _Nothing)


class _Nothing:
    """Stands for a class that is not loaded: nothing is an instance of it."""


_NOT_FOLLOWED = (type, type(sys), type(_weigh), type(_weigh.__code__), type(len), Counter, Census)
"""Classes, modules, functions, code: shared, and not what grows."""
