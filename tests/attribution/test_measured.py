"""What grows is found whatever class holds it: derived containers, attributes, classes, tables, trees, hooks."""

import array
import atexit
import functools
import gc
import linecache
import queue
import threading
import types
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from holdwater.attribution.census import CensusTaker
from holdwater.attribution.gain import Gain
from holdwater.attribution.gains import Gains
from holdwater.attribution.measured import _stands

torch = pytest.importorskip("torch")


class Cache(dict[int, Any]):
    """A dictionary that says nothing of its length."""

    def __len__(self) -> int:
        """Never called by a count."""
        raise RuntimeError


class Recorder:
    """Has attributes of many kinds."""

    def __init__(self) -> None:
        self.values = array.array("d")
        self.table: Any = None


HOLDERS = {"counter", "values", "table", "recorder", "root", "rows", "remembered", "_optimizer_step_post_hooks"}
KEPT: dict[str, Any] = {}


@pytest.fixture
def namespace() -> Iterator[dict[str, Any]]:
    """What the test keeps; emptied again."""
    KEPT.clear()
    yield KEPT
    KEPT.clear()


def grow(make: Callable[[int], object], count: int = 60) -> list[Gain]:
    """Do something often, count, do it as often again, and compare."""
    counter, gains = CensusTaker(), Gains()
    for number in range(count):
        make(number)
    counter.take(1, note=gains.remember)
    for number in range(count, 2 * count):
        make(number)
    counter.take(2, note=gains.compare)
    found = gains.found
    gains.forget()
    return found


def heaviest(found: list[Gain], name: str) -> Gain:
    """The largest gain; it must have this name, or the one that leads to it: they weigh nearly the same."""
    most = max(gain.weight.total for gain in found)
    first = [gain for gain in found if gain.weight.total > 0.95 * most]
    return next(gain for gain in first if gain.naming is not None and gain.naming.name == name)


def test_reports_a_container_of_a_derived_class(namespace: dict[str, Any]) -> None:
    """Without calling the length that it defines."""
    namespace |= {"counter": Counter(), "cache": Cache()}
    kept = namespace["cache"]

    def add(number: int) -> None:
        """One entry each."""
        dict.__setitem__(kept, number, np.ones(500))
        namespace["counter"].update((number, part) for part in range(4))

    found = grow(add)

    assert heaviest(found, "kept").type == "Cache"
    assert {gain.type: gain.count for gain in found}["Counter"] == 240


def test_reports_attributes_that_are_added_to_an_object(namespace: dict[str, Any]) -> None:
    """By the name of the object."""
    recorder = namespace["recorder"] = Recorder()

    found = grow(lambda number: setattr(recorder, f"out_{number}", np.ones(500)))

    assert heaviest(found, "recorder").count == 60


def test_reports_an_array_of_numbers_under_an_attribute(namespace: dict[str, Any]) -> None:
    """Its class was made at run time, and counts its bytes in C."""
    recorder = namespace["recorder"] = Recorder()

    found = grow(lambda _: recorder.values.extend([0.5] * 1000))

    assert heaviest(found, "values").weight.total == pytest.approx(480_000, rel=0.2)


def test_reports_what_a_hook_keeps_by_keyword(namespace: dict[str, Any]) -> None:
    """The default of a parameter that follows `*args`."""
    optimizer = namespace["optimizer"] = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], 0.1)

    def add(number: int) -> None:
        """Register another one."""
        kept = torch.full((500,), float(number))
        optimizer.register_step_post_hook(lambda *_, kept=kept: kept)

    assert heaviest(grow(add), "_optimizer_step_post_hooks").weight.tensors == 60 * 2000


def test_reports_a_registry_of_classes(namespace: dict[str, Any]) -> None:
    """With what each of them defines."""

    class Base:
        """Keeps each class that is derived from it."""

        known: dict[str, type] = {}  # noqa: RUF012 - that is the point

        def __init_subclass__(cls) -> None:
            Base.known[cls.__name__] = cls

    namespace["base"] = Base

    found = grow(lambda number: type(f"Made{number}", (Base,), {"table": np.ones(500)}))

    assert heaviest(found, "known").weight.total > 60 * 4000


def test_reports_a_table_that_is_made_anew(namespace: dict[str, Any]) -> None:
    """As `pandas.concat` does."""
    pandas = pytest.importorskip("pandas")
    recorder = namespace["recorder"] = Recorder()
    recorder.table = pandas.DataFrame({"a": []})

    def add(number: int) -> None:
        """Some rows more."""
        recorder.table = pandas.concat([recorder.table, pandas.DataFrame({"a": [float(number)] * 200})])

    assert heaviest(grow(add), "table").type == "DataFrame"


def test_reports_a_tree_that_a_library_holds(namespace: dict[str, Any]) -> None:
    """No list or dictionary grows with it."""
    root = namespace["root"] = ET.Element("log")

    def add(number: int) -> None:
        """Some entries."""
        for _ in range(5):
            ET.SubElement(root, "entry").text = f"{number}" * 400

    found = heaviest(grow(add), "root")
    assert (found.kind, found.type, found.count) == ("instances", "Element", 300)


def test_ignores_instances_that_a_container_holds(namespace: dict[str, Any]) -> None:
    """The container is what grows."""
    rows: list[Any] = namespace.setdefault("rows", [])

    found = grow(lambda number: rows.append(types.SimpleNamespace(table=np.ones(500), number=number)))

    assert heaviest(found, "rows").kind == "container"
    assert not [gain for gain in found if gain.kind == "instances"]


def test_reports_the_cache_of_keys_and_values(namespace: dict[str, Any]) -> None:
    """Transformers makes its tensors anew for each token."""
    transformers = pytest.importorskip("transformers")
    cache = namespace["cache"] = transformers.DynamicCache()

    found = grow(lambda _: cache.update(torch.ones(1, 2, 4, 16), torch.ones(1, 2, 4, 16), 0))

    assert heaviest(found, "cache").weight.tensors == 60 * 2 * 4 * 16 * 4


def test_a_table_of_the_interpreter_is_marked(namespace: dict[str, Any]) -> None:
    """It counts only if a line of the program was seen to add to it."""
    del namespace
    gc.unfreeze()  # see tests/conftest.py
    try:
        found = grow(lambda number: linecache.cache.update({f"made{number}": (1, None, [f"{number}" * 4000], "")}))
    finally:
        gc.freeze()
        for name in [name for name in linecache.cache if name.startswith("made")]:
            del linecache.cache[name]

    assert "interpreter's" in heaviest(found, "cache").traits


def test_reports_a_short_table_of_a_function() -> None:
    """A cache that gains three large entries in sixty steps."""

    @functools.cache
    def remembered(number: int) -> Any:
        """40 kB for each number."""
        return np.full(5000, float(number))

    found = grow(lambda number: None if number % 20 else remembered(number))

    assert heaviest(found, "remembered").count == 3


def test_reports_a_short_table_of_a_class(namespace: dict[str, Any]) -> None:
    """One that all its instances share."""

    class Shared:
        """Has no instances."""

        rows: dict[int, Any] = {}  # noqa: RUF012 - that is the point

    namespace["shared"] = Shared

    found = grow(lambda number: None if number % 20 else Shared.rows.setdefault(number, np.ones(5000)))

    assert heaviest(found, "rows").count == 3


def test_names_what_is_called_at_the_end(namespace: dict[str, Any]) -> None:
    """The interpreter's table of `atexit` cannot be asked what it holds."""
    del namespace
    made: list[weakref.ref[Any]] = []

    class Report:
        """Is written at the end."""

        def __init__(self) -> None:
            self.rows = np.ones(500)
            atexit.register(self.write)
            made.append(weakref.ref(self))

        def write(self) -> None:
            """Nothing."""

    try:
        found = grow(lambda _: Report())
        assert heaviest(found, "atexit").count == 60
    finally:
        for one in made:
            atexit.unregister(one().write)  # type: ignore[union-attr] # all are alive
    assert not _at_exit(grow(lambda _: None))


def _at_exit(found: list[Gain]) -> list[Gain]:
    """Gains that are named as called at the end."""
    return [gain for gain in found if gain.naming is not None and gain.naming.name == "atexit"]


def test_says_where_threads_stand_that_do_not_end(namespace: dict[str, Any]) -> None:
    """They wait for a queue that nobody empties."""
    waiting = namespace["waiting"] = queue.Queue(1)
    waiting.put(0)
    threads: list[threading.Thread] = []

    def begin(_: int) -> None:
        """One more."""
        rows = np.ones(500)
        threads.append(threading.Thread(target=lambda: waiting.put(rows), daemon=True))
        threads[-1].start()

    try:
        (found,) = [gain for gain in grow(begin, 20) if gain.naming is not None and gain.naming.name == "threads"]
    finally:
        for _ in range(41):
            waiting.get()
        for thread in threads:
            thread.join()

    gc.collect()  # what comes from here on would be ours
    assert not _stands(threads[:1])  # it has ended
    assert gc.collect() == 0
    ((file, line),) = found.stands
    assert "waiting.put(rows)" in linecache.getline(file, line)


def test_ignores_what_is_replaced_by_as_much(namespace: dict[str, Any]) -> None:
    """The same holders as above, each with as much as before."""
    pandas = pytest.importorskip("pandas")
    recorder, counter = Recorder(), Counter(range(40))
    namespace |= {"recorder": recorder, "counter": counter}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], 0.1)
    root = namespace["root"] = ET.Element("log")

    class Shared:
        """One entry is set again and again."""

        rows: dict[int, Any] = {}  # noqa: RUF012 - that is the point

    @functools.lru_cache(maxsize=2)
    def remembered(number: int) -> Any:
        """At most two."""
        return np.full(500, float(number))

    def replace(number: int) -> None:
        """All of them."""
        counter.update([number % 40])
        recorder.values = array.array("d", [0.5] * 1000)
        recorder.table = pandas.DataFrame({"a": [float(number)] * 200})
        rows = np.ones(500)
        optimizer.register_step_post_hook(lambda *_, kept=rows: kept).remove()
        root.clear()
        ET.SubElement(root, "entry").text = f"{number}" * 400
        Shared.rows[0] = remembered(number)
        thread = threading.Thread(target=len, args=((),))
        thread.start()
        thread.join()

    found = [gain for gain in grow(replace) if gain.weight.total > 4000 and gain.naming is not None]
    assert not [gain.naming.name for gain in found if gain.naming is not None and gain.naming.name in HOLDERS]
    assert not [gain for gain in found if gain.stands]
