"""Each known cause is named where what it rests on was seen, and not for its twin, in which that is missing."""

import logging
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from holdwater.attribution.patterns import Grounds, find_pattern, read_patterns
from holdwater.attribution.traits import LIBRARIES, bases_of, traits_of

TORCH, MLX = frozenset(("torch",)), frozenset(("mlx",))
NAMING = {"role": "global", "name": "kept", "owner": "__main__", "file": "train.py", "line": None, "most": None}


def grounds(more: dict[str, Any] | None = None, *, naming: dict[str, Any] | None = None, **others: Any) -> Grounds:
    """A list of the script's that has grown by a hundred objects, but for what is given."""
    named = NAMING | (naming or {})
    gain = {
        "kind": "container", "type": "list", "count": 100, "elements": {}, "nodes": 0, "files": 0, "handles": 0,
        "weight": {"tensors": 0, "python": 10_000, "native": 0, "device": 0}, "views": False,
        "bases": {}, "traits": [], "path": [named], "naming": named,
    } | (more or {})  # fmt: skip
    return Grounds(**({"gain": gain, "component": "host.python", "libraries": TORCH} | others))


def nothing(component: str, **others: Any) -> Grounds:
    """Nothing was found to hold the growth."""
    return Grounds(gain={}, component=component, libraries=TORCH, **others)


def attribute(name: str, owner: str) -> dict[str, Any]:
    """Held as an attribute."""
    return {"role": "attribute", "name": name, "owner": owner}


CACHED = attribute("keys", "mlx_lm.models.cache.KVCache")
STATE = attribute("_state", "mlx.optimizers.optimizers.Adam")


def through(owner: str, name: str | None = None, role: str = "attribute") -> dict[str, Any]:
    """Held by an object of a library's, on the way from a name of the script's."""
    return {"path": [NAMING, {"role": role, "name": name, "owner": owner}]}


def of(base: str, *traits: str, **more: Any) -> dict[str, Any]:
    """A list of objects of one class."""
    return {"bases": {base: 1.0}, "traits": list(traits)} | more


TENSORS = {"tensors": 10_000, "python": 10, "native": 0, "device": 0}
NATIVE = {"tensors": 0, "python": 10, "native": 10_000, "device": 0}
HOOKS = {"type": "OrderedDict"} | of("builtins.function", "closures")
CASES: dict[str, tuple[Grounds, Grounds]] = {
    "create-graph-cycle": (grounds({"kind": "gradients"}), grounds({"kind": "value", "type": "Tensor"})),
    "weights-average-keeps-graph": (
        grounds({"kind": "graph", "type": "list", "traits": ["of weights"]}),
        grounds({"kind": "graph", "type": "tuple"}),  # a hidden state and a cell state
    ),
    "loss-keeps-graph": (
        grounds({"kind": "graph", "type": "Tensor"}),
        grounds({"kind": "value", "type": "Tensor"}),
    ),
    "hook-added-each-step": (
        grounds(HOOKS, naming=attribute("_forward_hooks", "__main__.Net")),
        grounds(HOOKS, naming=attribute("_forward_hooks", "__main__.Net"), libraries=frozenset()),
    ),
    "parameter-group-each-step": (
        grounds(of("builtins.dict"), naming=attribute("param_groups", "torch.optim.sgd.SGD")),
        grounds(of("builtins.tuple"), naming=attribute("param_groups", "__main__.Notes")),
    ),
    "figures-not-closed": (
        grounds(
            naming=attribute("figs", "matplotlib._pylab_helpers.Gcf"), libraries=frozenset(("matplotlib",))
        ),
        grounds(naming={"name": "figs"}, libraries=frozenset(("matplotlib",))),
    ),
    "logging-handler-keeps-records": (
        grounds(
            through("logging.handlers.MemoryHandler", "buffer"),
            naming=attribute("buffer", "logging.handlers.MemoryHandler"),
        ),
        grounds(through("logging.Manager", "loggerDict"), naming=attribute("loggerDict", "logging.Manager")),
    ),
    "queue-outruns-consumer": (
        grounds(through("queue.Queue", "queue"), naming={"name": "waiting"}),
        grounds(through("queue.work", "rows", role="local")),  # a function of a module that is called queue
    ),
    "weak-dictionary-holds": (
        grounds({"type": "dict", "traits": ["own keys"]} | through("weakref.WeakKeyDictionary", "data")),
        grounds({"type": "dict"} | through("weakref.WeakValueDictionary", "data")),
    ),
    "cycle-keeps-an-epoch": (
        grounds(through("itertools.cycle", role="element")),
        grounds(through("cycle", "batches", role="local")),  # a function that is called cycle
    ),
    "cache-without-bound": (
        grounds({"type": "dict"}, naming={"role": "cache"}),
        grounds({"type": "dict"}, naming={"role": "cache", "most": 4096}),
    ),
    "exceptions-keep-frames": (
        grounds(of("builtins.BaseException", "tracebacks")),
        grounds(of("__main__.RoundingError", "tracebacks")),
    ),
    "generators-left-open": (
        grounds(of("builtins.generator", "suspended")),
        grounds(of("builtins.generator")),
    ),
    "processes-not-ended": (
        grounds(of("subprocess.Popen", "running"), component="host.children"),
        grounds(of("subprocess.Popen"), component="host.children"),
    ),
    "threads-not-ended": (
        grounds(of("threading.Thread", "running"), component="process.handles"),
        grounds(of("threading.Thread")),
    ),
    "shared-memory-not-unlinked": (
        grounds(of("multiprocessing.shared_memory.SharedMemory", "linked")),
        grounds(of("multiprocessing.shared_memory.SharedMemory")),
    ),
    "mapped-files-kept": (grounds(of("numpy.memmap")), grounds(of("__main__.memmap"))),
    "decoded-images-kept": (
        grounds(of("PIL.Image.Image", weight=NATIVE), libraries=frozenset(("PIL",))),
        grounds(of("PIL.Image.Image"), libraries=frozenset(("PIL",))),  # opened, and never read
    ),
    "callbacks-keep-closures": (
        grounds(of("builtins.function", "closures")),
        grounds(of("builtins.function")),
    ),
    "outputs-keep-graph": (grounds({"nodes": 400}), grounds({"nodes": 0})),
    "view-keeps-base": (grounds({"views": True}), grounds({"views": False})),
    "checkpoints-in-memory": (
        grounds(of("collections.OrderedDict", weight=TENSORS)),
        grounds(of("collections.OrderedDict")),  # of numbers
    ),
    "log-history-grows": (
        grounds(of("builtins.dict"), naming={"name": "log_history"}),
        grounds(of("torch.Tensor"), naming={"name": "history"}),
    ),
    "concatenated-each-step": (
        grounds({"kind": "value", "type": "Tensor"}),
        grounds({"kind": "container", "type": "list"}),
    ),
    "text-grows": (
        grounds({"kind": "value", "type": "str"}),
        grounds(of("builtins.str")),
    ),
    "objects-in-a-chain": (
        grounds({"kind": "instances", "type": "State", "traits": ["chain"]}),
        grounds({"kind": "instances", "type": "State"}),
    ),
    "mlx-prompt-cache-grows": (
        grounds({"kind": "value", "type": "array", "path": [CACHED]}, libraries=MLX),
        grounds({"kind": "value", "type": "array"}, libraries=MLX),
    ),
    "mlx-arrays-not-evaluated": (
        grounds(of("mlx.core.array") | {"arrays": 100, "traits": ["keeps more"]}, libraries=MLX),
        grounds(of("mlx.core.array") | {"arrays": 100}, libraries=MLX),
    ),
    "mlx-optimizer-state-kept": (
        grounds({"type": "dict", "arrays": 200, "path": [STATE]}, libraries=MLX),
        grounds({"type": "dict", "arrays": 200}, libraries=MLX),
    ),
    "mlx-arrays-kept": (
        grounds({"type": "dict", "arrays": 100}, libraries=MLX),
        grounds({"type": "dict"}, libraries=MLX),
    ),
    "mlx-compiled-for-each-shape": (
        Grounds({}, "host.native", libraries=MLX, recompiled=True, recorded=True),
        Grounds({}, "host.native", libraries=MLX, recorded=True),
    ),
    "mlx-buffer-cache-grows": (
        Grounds({}, "device.reserved", libraries=MLX, cached=True),
        Grounds({}, "device.reserved", libraries=MLX),
    ),
    "dictionary-without-bound": (grounds({"type": "dict"}), grounds({"type": "list"})),
    "list-never-cleared": (grounds(), grounds({"kind": "instances", "type": "list"})),
    "fragmentation-by-lengths": (
        nothing("device.reserved", new_sizes=True),
        nothing("device.reserved"),
    ),
    "pinned-memory-grows": (
        nothing("host.pinned"),
        Grounds(gain={}, component="host.pinned"),
    ),
    "native-memory-not-freed": (
        nothing("host.native", recorded=True),
        nothing("host.native"),
    ),
}  # fmt: skip


class TestCatalogue:
    """Every pattern, by what it rests on."""

    @pytest.mark.parametrize("name", CASES)
    def test_names_what_was_seen(self, name: str) -> None:
        """All that the cause rests on is there."""
        found = find_pattern(CASES[name][0])

        assert found is not None
        assert found.name == name

    @pytest.mark.parametrize("name", CASES)
    def test_does_not_name_its_twin(self, name: str) -> None:
        """Of the same name or look, without what the cause rests on."""
        found = find_pattern(CASES[name][1])

        assert found is None or found.name != name

    def test_has_a_pair_for_each(self) -> None:
        """But for the one that an experiment names."""
        names = {pattern.name for pattern, _ in read_patterns()}

        assert names - CASES.keys() == {"garbage-not-collected"}

    def test_rests_on_libraries_that_are_looked_for(self) -> None:
        """One that nobody looks for would never be found."""
        wanted = {name for _, when in read_patterns() for one in when for name in one.get("library", ())}

        assert wanted <= set(LIBRARIES)

    def test_handlers_of_ones_own_are_known_by_their_records(self) -> None:
        """The other way to know what a handler keeps."""
        found = find_pattern(grounds(of("logging.LogRecord"), naming=attribute("rows", "__main__.Keeps")))

        assert found is not None
        assert found.name == "logging-handler-keeps-records"


class NetworkError:
    """No exception, whatever it is called."""


class Owner:
    """Can be referred to weakly."""

    def __init__(self) -> None:
        self.itself: object = None


def failed() -> ValueError:
    """An exception that was raised."""
    try:
        int("no number")
    except ValueError as error:
        return error
    raise AssertionError


def rows(*, begun: bool) -> Iterator[int]:
    """A generator that waits, or has ended."""
    numbers = (number for number in range(2))
    for _ in numbers:
        if begun:
            break
    return numbers


def closing(value: object) -> Callable[[], object]:
    """A function that keeps a value."""
    return lambda: value


class TestTraits:
    """What elements are, and in which state."""

    def test_knows_classes_by_what_they_are_derived_from(self) -> None:
        """Not by how they are called."""
        assert bases_of([failed(), failed()], pairs=False)["builtins.BaseException"] == 1.0
        assert "builtins.BaseException" not in bases_of([NetworkError()], pairs=False)

    def test_looks_into_tuples_and_values(self) -> None:
        """A step with its exception; a key with its record."""
        record = logging.makeLogRecord({})

        assert bases_of([(1, failed()), (2, failed())], pairs=False)["builtins.ValueError"] == 1.0
        assert bases_of([1, record, 2, record], pairs=True)["logging.LogRecord"] == 1.0

    @pytest.mark.parametrize(
        ("item", "twin", "trait"),
        [
            (failed(), ValueError(), "tracebacks"),
            (rows(begun=True), rows(begun=False), "suspended"),
            (closing([1]), failed, "closures"),
            (threading.main_thread(), threading.Thread(), "running"),
        ],
    )
    def test_sees_a_state(self, item: object, twin: object, trait: str) -> None:
        """Of the first, and not of its twin of the same class."""
        assert traits_of([item, item], pairs=False) == [trait]
        assert trait not in traits_of([twin, twin], pairs=False)

    def test_tells_a_process_that_runs_from_one_that_has_ended(self) -> None:
        """Without asking for its exit status, which is the script's to ask."""
        command = [sys.executable, "-c", "input()"]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            assert traits_of([process], pairs=False) == ["running"]
        assert traits_of([process], pairs=False) == []

    def test_sees_values_that_keep_their_own_keys(self) -> None:
        """By an attribute; and not where the value is something else."""
        first, second = Owner(), Owner()
        first.itself, second.itself = first, second

        kept = [weakref.ref(first), first, weakref.ref(second), second]
        assert traits_of(kept, pairs=True) == ["own keys"]
        assert traits_of([weakref.ref(first), [1], weakref.ref(second), [2]], pairs=True) == []
