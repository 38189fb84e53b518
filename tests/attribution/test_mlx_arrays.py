"""Arrays of MLX are counted as they are: none is evaluated, and what holds them is named."""

from collections.abc import Iterator
from typing import Any

import pytest

from holdwater.attribution.census import CensusTaker
from holdwater.attribution.gain import Gain
from holdwater.attribution.gains import Gains
from holdwater.attribution.mlx_arrays import leaves, size_of_array
from holdwater.attribution.surplus import BY_TOKENS, KEEPS_MORE

mx = pytest.importorskip("mlx.core", reason="MLX is not installed")
nn = pytest.importorskip("mlx.nn", reason="MLX is not installed")

KEPT: dict[str, Any] = {}


class Net(nn.Module):  # type: ignore[misc, name-defined]
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.history = mx.zeros((0, 1024))
        self.total = mx.zeros(1024)


@pytest.fixture
def namespace() -> Iterator[dict[str, Any]]:
    """What the test keeps; emptied again."""
    KEPT.clear()
    yield KEPT
    KEPT.clear()


def grow(make: Any, count: int = 40) -> list[Gain]:
    """Count, do something so many times, and compare."""
    counter, gains = CensusTaker(), Gains()
    counter.take(1, note=gains.remember)
    for number in range(count):
        make(number)
    counter.take(2, note=gains.compare)
    gains.forget()
    return gains.found


def named(found: list[Gain], name: str) -> Gain:
    """The gain of this name."""
    (gain,) = (gain for gain in found if gain.naming is not None and gain.naming.name == name)
    return gain


def rows() -> Any:
    """A new evaluated array of 40 kB."""
    found = mx.random.normal((10, 1024))
    mx.eval(found)
    return found


class TestSizes:
    """By shape alone."""

    def test_evaluates_nothing(self) -> None:
        """An array of 400 MB that nobody asked for takes no memory when it is measured."""
        lazy, before = mx.zeros((10_000, 10_000)), mx.get_active_memory()

        assert size_of_array(lazy) == 400_000_000
        assert mx.get_active_memory() - before < 1_000_000

    def test_reads_trees(self) -> None:
        """Lists, dictionaries and modules within each other; nothing else."""
        tree = {"a": [mx.ones(1), (mx.ones(2),)], "b": nn.Linear(2, 2), "c": "text"}

        assert len(list(leaves(tree))) == 4


class TestGains:
    """What has grown between two counts."""

    def test_reports_arrays_in_a_dictionary(self, namespace: dict[str, Any]) -> None:
        """40 kB for each entry, in dictionaries of its own."""
        namespace["cache"] = cache = {str(number): rows() for number in range(10)}
        found = named(grow(lambda number: cache.update({f"batch {number}": {"rows": rows()}})), "cache")

        assert found.arrays == 40
        assert found.weight.total == pytest.approx(40 * 40_960, rel=0.1)
        assert KEEPS_MORE not in found.traits

    def test_reports_what_is_kept_by_arrays_that_were_not_evaluated(self, namespace: dict[str, Any]) -> None:
        """A number each, and the 40 kB that it will be computed from."""
        namespace["losses"] = losses = [rows().sum() for _ in range(10)]
        found = named(grow(lambda _: losses.append(rows().sum())), "losses")

        assert found.weight.total == pytest.approx(40 * 40_960, rel=0.1)
        assert KEEPS_MORE in found.traits

    def test_reports_an_attribute_of_a_module_that_is_concatenated_to(self, namespace: dict[str, Any]) -> None:
        """Modules keep their arrays as entries of a dictionary."""
        namespace["net"] = net = Net()

        def extend(_: int) -> None:
            """Add ten rows."""
            net.history = mx.concatenate([net.history, rows()])
            mx.eval(net.history)

        found = named(grow(extend), "history")

        assert (found.kind, found.naming and found.naming.owner) == ("value", f"{__name__}.Net")
        assert found.array_bytes == 40 * 40_960

    def test_reports_an_attribute_that_carries_its_graph(self, namespace: dict[str, Any]) -> None:
        """A sum that is never evaluated keeps every array that was added."""
        namespace["net"] = net = Net()

        def add(_: int) -> None:
            """Add one array's mean."""
            net.total = net.total + rows().mean(axis=0)

        found = named(grow(add), "total")

        assert (found.kind, found.traits) == ("rebound", [KEEPS_MORE])
        assert found.weight.total > 40 * 40_000

    def test_ignores_arrays_that_are_replaced(self, namespace: dict[str, Any]) -> None:
        """The newest batch, and a total that is evaluated."""
        namespace["net"] = net = Net()

        def replace(_: int) -> None:
            """Evaluate each time."""
            net.total = net.total + rows().mean(axis=0)
            mx.eval(net.total)

        assert not any(gain.arrays and gain.weight.total for gain in grow(replace))


class TestPromptCaches:
    """What a generation keeps of its tokens."""

    def test_reports_a_cache_that_is_continued(self, namespace: dict[str, Any]) -> None:
        """Under the name that holds it, by the tokens that were added."""
        caches = pytest.importorskip("mlx_lm.models.cache", reason="mlx_lm is not installed")
        namespace["cache"] = [caches.KVCache() for _ in range(2)]
        step = mx.ones((1, 2, 8, 16))
        mx.eval(step)

        def continue_(_: int) -> None:
            """Eight tokens more."""
            for layer in namespace["cache"]:
                mx.eval(layer.update_and_fetch(step, step))

        continue_(0)
        found = [gain for gain in grow(continue_, 10) if BY_TOKENS in gain.traits]

        assert [gain.array_bytes for gain in found] == [10 * step.nbytes] * 4
        assert {gain.naming and gain.naming.name for gain in found} == {"namespace"}

    def test_ignores_a_cache_of_the_newest_tokens(self, namespace: dict[str, Any]) -> None:
        """It is full, and its offset still grows."""
        caches = pytest.importorskip("mlx_lm.models.cache", reason="mlx_lm is not installed")
        namespace["cache"] = caches.RotatingKVCache(max_size=32, keep=4)
        step = mx.ones((1, 2, 1, 1024))

        def continue_(_: int) -> None:
            """A token more."""
            mx.eval(namespace["cache"].update_and_fetch(step, step))

        for _ in range(64):
            continue_(0)

        assert not any(BY_TOKENS in gain.traits for gain in grow(continue_, 64))
