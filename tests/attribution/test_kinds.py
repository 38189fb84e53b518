"""Counting calls none of the program's code: whatever its classes, metaclasses, modules, tensors and graphs redefine."""

import gc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from holdwater.attribution.census import Census
from holdwater.attribution.inventory import inventory
from holdwater.attribution.kinds import attributes, class_of, namespace_of, note_metaclasses, ordinary
from holdwater.attribution.links import root_of
from holdwater.attribution.weights import follow_graphs
from holdwater.observe.agent.counting import Counting

MB = 1 << 20
called: list[str] = []


class Asked(BaseException):
    """What hostile objects raise: no `except Exception` catches it."""


def refuses(name: str) -> Any:
    """A method that notes its call, and raises."""

    def method(*_: Any, **__: Any) -> Any:
        called.append(name)
        raise Asked(name)

    return method


ASKED = (
    *("__len__", "__eq__", "__hash__", "__repr__", "__str__", "__bool__", "__iter__", "__getattr__", "__dir__"),
    *("__getattribute__", "__reversed__", "__contains__", "__getitem__", "__sizeof__", "__array__", "__index__"),
    *("__instancecheck__", "__subclasscheck__", "__torch_function__", "__fspath__", "__format__", "__call__"),
)
"""What Python and libraries ask an object for."""


def hostile_by_metaclass() -> Any:
    """An instance of a class whose metaclass raises at everything."""
    names = [name for name in ASKED if name != "__call__"]
    meta = type("Meta", (type,), {name: refuses(f"type.{name}") for name in [*names, "__subclasses__"]})
    return object.__new__(type.__new__(meta, "Named", (), {}))


def hostile(base: type) -> Any:
    """A class derived from another that raises at everything that it is asked for."""
    return type(
        "Hostile", (base,), {name: refuses(name) for name in ASKED} | {"__class__": property(refuses("class"))}
    )


class Closed:
    """An instance whose `__dict__` is not to be read."""

    __dict__ = property(refuses("__dict__"))


class AttributeDict(dict[str, Any]):
    """A dictionary that is its own attributes, and whose methods are not to be called."""

    items = values = keys = get = refuses("of a dictionary")

    def __init__(self) -> None:
        object.__setattr__(self, "__dict__", self)


@pytest.fixture(autouse=True)
def _nothing_is_called() -> Iterator[None]:
    """No method of the program's has been called after any of these tests."""
    called.clear()
    yield
    assert called == []


def count(counting: Counting, *, explain: bool = False) -> Census:
    """Count to the end."""
    gains = counting.gains
    counting.begin(gains.compare if explain else gains.remember, purpose="end", period=0.0)
    census = counting.go_on(1, to_the_end=True)
    assert census is not None
    return census


class TestObjects:
    """They raise at everything."""

    @pytest.mark.parametrize("by_names", [False, True], ids=["all", "in part"])
    def test_are_counted_unasked(self, by_names: bool) -> None:
        """In a list and under names, with a list that grows beside them."""
        makers = [hostile(object), hostile(list), hostile(dict), hostile(set), hostile(torch.Tensor), Closed]
        made: list[Any] = [object.__new__(kind) if kind is makers[0] else kind.__new__(kind) for kind in makers]
        kept: list[Any] = [*made, AttributeDict(), hostile_by_metaclass()]
        counting = Counting(list, by_names=by_names)
        count(counting)
        kept.extend(kind.__new__(kind) for kind in makers for _ in range(40))
        called.clear()  # torch asks a tensor that it makes

        count(counting, explain=True)

        found = [gain for gain in counting.gains.found if gain.naming is not None and gain.naming.name == "kept"]
        assert 240 in {gain.count for gain in found}
        counting.gains.forget()

    def test_are_listed_unasked(self) -> None:
        """On request, with the optimizers."""
        tensor = torch.ones(MB).as_subclass(hostile(torch.Tensor))
        kept = [hostile(object)(), hostile_by_metaclass(), tensor]
        called.clear()  # torch asks a tensor that it makes

        found = inventory()

        assert found.tensor_bytes["cpu"] >= 4 * MB
        assert len(kept) == 3

    def test_whose_class_has_its_own_hash_are_left_out(self) -> None:
        """And only those."""
        odd, usual = hostile_by_metaclass(), [1]
        note_metaclasses()

        kept = ordinary([usual, odd])

        assert len(kept) == 1
        assert kept[0] is usual

    def test_lose_no_attribute(self) -> None:
        """What a usual instance holds, in its slots too, and what one that refuses does not say."""

        class Both:
            __slots__ = ("__dict__", "slot")

            def __init__(self) -> None:
                self.slot, self.other = 1, 2

        own = AttributeDict()
        dict.__setitem__(own, "a", 1)

        assert attributes(Both()) == [("other", 2), ("slot", 1)]
        assert attributes(own) == [("a", 1)]
        assert attributes(Closed()) == []

    def test_that_wrap_themselves_are_looked_through_a_few_times(self) -> None:
        """A cached callable that answers every name with itself."""
        from functools import lru_cache

        class Endless:
            def __getattr__(self, name: str) -> Any:
                return self

            def __call__(self) -> None:
                """Do nothing."""

        part = root_of(lru_cache(Endless()))

        assert part is not None
        assert part.role == "cache"


class TestTensors:
    """Their classes, modes and hooks are not called."""

    def test_under_a_mode_of_the_programs(self) -> None:
        """A default device is such a mode too."""
        asked = []

        class Mode(TorchFunctionMode):
            def __torch_function__(self, function: Any, types_: Any, args: Any = (), kwargs: Any = None) -> Any:
                asked.append(function)
                return function(*args, **(kwargs or {}))

        counting, kept = Counting(list), [torch.ones(MB)]
        with Mode():
            before = len(asked)
            tensors = count(counting).tensors
            Census.tensors_now()
            inventory()
            after = len(asked)

        assert (after, len(kept)) == (before, 1)
        assert tensors >= 4 * MB

    def test_what_a_checkpoint_has_not_kept_is_not_computed_again(self) -> None:
        """Its activations do not exist: reading them from the graph would run the model."""
        runs = []

        def block(values: Any) -> Any:
            runs.append(1)
            return (values * values).exp()

        loss = checkpoint(block, torch.ones(MB, requires_grad=True), use_reentrant=False).sum()
        storages: dict[int, int] = {}

        nodes = follow_graphs([loss.grad_fn], storages)

        assert (len(runs), nodes > 2) == (1, True)
        assert sum(storages.values()) == 0

    def test_what_was_packed_is_counted_and_not_unpacked(self) -> None:
        """A hook keeps half of each tensor; without hooks the whole is counted."""
        weights = torch.ones(MB, requires_grad=True)

        def size(loss: Any) -> int:
            storages: dict[int, int] = {}
            follow_graphs([loss.grad_fn], storages)
            return sum(storages.values())

        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: tensor.detach().to(torch.float16), refuses("unpack")
        ):
            packed = weights.exp().sum()

        assert (size(packed), size(weights.exp().sum())) == (2 * MB, 4 * MB)


class TestModules:
    """One that is loaded when it is first read stays as it is."""

    def test_stay_unloaded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the standard library's lazy loader."""
        file = tmp_path / "lazily.py"
        file.write_text("raise SystemExit('loaded')\n")
        loader = importlib.util.LazyLoader(importlib.machinery.SourceFileLoader("lazily", str(file)))
        spec = importlib.util.spec_from_file_location("lazily", file, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "lazily", module)
        loader.exec_module(module)

        count(Counting(list))
        inventory()

        assert class_of("lazily", "Anything").__name__ == "_Nothing"
        assert type(module) is not types.ModuleType  # it becomes one when it is loaded

    def test_are_read_as_usual(self) -> None:
        """Loaded ones."""
        assert class_of("torch", "Tensor") is torch.Tensor
        assert namespace_of(sys)["modules"] is sys.modules
        assert gc.isenabled()
