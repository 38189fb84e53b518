"""Who holds an object: the way from a root that a person recognises, and its last name."""

import ctypes
import functools
import gc
import itertools
import queue
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from holdwater.attribution.paths import Paths

pytestmark = pytest.mark.usefixtures("imports_collected")
"""Variables of this module hold what is looked for."""


class Tracker:
    """Holds lists in every way that a class can."""

    all_rows: ClassVar[list[int]] = []

    def __init__(self) -> None:
        self.history: list[int] = []
        self.tables = {"losses": [1.0]}

    def close_all(self) -> None:
        """Let go."""
        self.history.clear()


class Slotted:
    """Has no dictionary."""

    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: list[int] = []


class Owner:
    """Refers to itself."""

    def __init__(self) -> None:
        self.owner = self


TRACKER = Tracker()
SLOTTED = Slotted()
ITEMS: "queue.Queue[int]" = queue.Queue()
FEATURES: Any = weakref.WeakKeyDictionary()
KEPT: list[Any] = []


@functools.cache
def mask(length: int) -> list[int]:
    """Something cached."""
    return [length]


def collect(value: int, seen: list[int] = []) -> None:  # noqa: B006 - the mistake that is looked for
    """Keep values in a default."""
    seen.append(value)


def find(get: Callable[[], object]) -> tuple[str | None, str | None]:
    """How an object is held, and under which name: a variable of ours would be a holder too."""
    naming = Paths().find(get()).naming
    return (None, None) if naming is None else (naming.role, naming.name)


def cache_of(function: Any) -> object:
    """The dictionary behind an lru_cache."""
    return next(item for item in gc.get_referents(function) if type(item) is dict and 3 in item)


class TestNames:
    """The last name on the way, without those of containers that are written in Python."""

    def test_names_attributes_with_and_without_a_dictionary(self) -> None:
        """Of an instance, in slots, of the class."""
        assert find(lambda: TRACKER.history) == ("attribute", "history")
        assert find(lambda: SLOTTED.items) == ("attribute", "items")
        assert find(lambda: Tracker.all_rows) == ("class attribute", "all_rows")

    def test_names_the_dictionary_that_a_list_lies_in(self) -> None:
        """And not its key."""
        assert find(lambda: TRACKER.tables["losses"]) == ("attribute", "tables")

    def test_names_the_queue_not_its_inside(self) -> None:
        """Queues and weak dictionaries hold their items in an attribute of their own."""
        assert find(lambda: ITEMS.queue) == ("global", "ITEMS")
        assert find(lambda: FEATURES.data) == ("global", "FEATURES")

    def test_names_locals_of_running_functions(self) -> None:
        """Those that a closure shares included."""
        plain: list[int] = []
        shared: list[int] = []

        def add(value: int) -> None:
            shared.append(value)

        assert find(lambda: plain) == ("local", "plain")
        assert find(lambda: shared) == ("local", "shared")
        assert add is not None

    def test_names_what_a_function_has_closed_over(self) -> None:
        """When the function that made it has ended."""

        def make() -> Any:
            rows: list[int] = []
            return lambda value: rows.insert(0, value)

        KEPT.append(make())

        assert find(lambda: KEPT[-1].__closure__[0].cell_contents) == ("closure", "rows")

    def test_names_the_parameter_whose_default_it_is(self) -> None:
        """The mistake of a mutable default."""
        assert find(lambda: (collect.__defaults__ or ())[0]) == ("default", "seen")

    def test_names_the_function_that_is_cached(self) -> None:
        """With its cache."""
        mask(3)

        assert find(lambda: cache_of(mask)) == ("cache", "mask")

    def test_names_the_iterator_that_saves_what_it_gave_out(self) -> None:
        """`itertools.cycle`, by the variable that holds it."""
        batches = itertools.cycle([[1], [2]])
        next(batches)

        def saved() -> object:
            """Its inner list."""
            return next(item for item in gc.get_referents(batches) if type(item) is list)

        assert find(saved) == ("local", "batches")

    def test_names_the_list_in_which_a_method_lies(self) -> None:
        """And not the attribute by which a method holds its instance."""
        KEPT.append(Tracker().close_all)

        assert find(lambda: KEPT[-1].__self__) == ("global", "KEPT")

    def test_names_the_attribute_of_a_cycle_that_nobody_holds(self) -> None:
        """It is reachable from itself alone."""
        gc.disable()
        try:
            reach = weakref.ref(Owner())
            assert find(lambda: reach()) == ("attribute", "owner")  # noqa: PLW0108 - a reference that does not last
        finally:
            gc.enable()

    def test_says_so_where_there_is_no_root(self) -> None:
        """An object that only C code refers to."""
        address = id(held := Tracker())
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))
        del held

        def get() -> object:
            """By its address."""
            return ctypes.cast(address, ctypes.py_object).value

        try:
            assert find(get) == (None, None)
        finally:
            ctypes.pythonapi.Py_DecRef(ctypes.py_object(get()))


def garbage_of(count: int) -> int:
    """Objects that so many searches leave to the collector."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(count):
            Paths().find(TRACKER.history)
        return gc.collect()
    finally:
        gc.enable()


def test_a_search_leaves_no_garbage() -> None:
    """It must not add to what it looks for: nothing of it waits for the collector."""
    garbage_of(1)

    assert garbage_of(40) <= garbage_of(1)
