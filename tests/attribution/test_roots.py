"""Counting in part: what names lead to, in pairs that it finds and that it leaves alone."""

import builtins
import sys
import types
from collections import Counter
from functools import cache
from typing import Any

import pytest

from holdwater.attribution.census import Census, CensusTaker
from holdwater.attribution.gain import Gain
from holdwater.attribution.gains import Gains
from holdwater.attribution.roots import MOST_BELOW, PartCounter
from holdwater.attribution.turns import Turn, at_once

torch = pytest.importorskip("torch")


class Trainer:
    """Holds a history."""

    everyone: "list[Trainer]" = []  # noqa: RUF012 - it is the mistake that is looked for

    def __init__(self) -> None:
        self.history: list[Any] = [0] * 10


@cache
def remembered(number: int) -> bytes:
    """5 kB for each number."""
    return bytes(5000 + number)


TABLE: dict[str, Any] = {"rows": [0] * 10}


def grow(make: Any, datasets: Any = tuple) -> tuple[list[Gain], Census]:
    """Count in part, do something forty times, and count again."""
    parts, gains = PartCounter(CensusTaker(), datasets), Gains()
    at_once(parts.turns(Turn(), Census(1), gains.remember))
    for number in range(40):
        make(number)
    census = at_once(parts.turns(Turn(), Census(2), gains.compare))
    found = gains.found
    gains.forget()
    return found, census


def names(found: list[Gain]) -> set[str | None]:
    """Under which names it was found."""
    return {gain.naming.name for gain in found if gain.naming is not None}


class TestFinds:
    """Containers, by the names that lead to them."""

    def test_a_table_of_a_library(self) -> None:
        """Modules that are loaded under a new name each time stay in `sys.modules`."""
        made = []

        def load(number: int) -> None:
            name = f"holdwater_test_tasks_{number}"
            made.append(name)
            module = sys.modules[name] = types.ModuleType(name)
            module.__dict__["documents"] = [f"{number} {line}" for line in range(100)]

        try:
            found, _ = grow(load)
        finally:
            for name in made:
                del sys.modules[name]

        modules = next(gain for gain in found if gain.naming is not None and gain.naming.name == "modules")
        assert (modules.naming.owner, modules.count) == ("sys", 40)  # type: ignore[union-attr]
        assert modules.weight.python == pytest.approx(40 * 100 * 60, rel=0.2)

    def test_a_list_in_an_attribute(self) -> None:
        """With what the new elements weigh."""
        trainer = Trainer()

        found, census = grow(lambda _: trainer.history.append(torch.ones(1000)))

        (gain,) = (gain for gain in found if gain.naming is not None and gain.naming.name == "history")
        assert gain.weight.tensors == pytest.approx(160_000, rel=0.05)
        assert census.gained.tensors >= 152_000
        assert census.counted == "in part"

    def test_the_tensors_of_a_cache_of_keys_and_values(self) -> None:
        """Transformers makes them anew for each token."""
        transformers = pytest.importorskip("transformers")
        trainer: Any = Trainer()
        trainer.prefix = transformers.DynamicCache()
        trainer.prefix.update(torch.ones(1, 2, 4, 16), torch.ones(1, 2, 4, 16), 0)

        found, _ = grow(lambda _: trainer.prefix.update(torch.ones(1, 2, 4, 16), torch.ones(1, 2, 4, 16), 0))

        weights = [
            gain.weight.tensors for gain in found if gain.naming is not None and gain.naming.name == "prefix"
        ]
        assert weights == [40 * 512, 40 * 512]

    def test_a_counter(self) -> None:
        """A class that is derived from a dictionary."""
        trainer: Any = Trainer()
        trainer.seen = Counter(dict.fromkeys(range(20), 1))

        found, _ = grow(lambda number: trainer.seen.update([("pair", number)]))

        assert {gain.type: gain.count for gain in found}["Counter"] == 40

    def test_a_list_of_a_dataset_that_a_library_holds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In a loader's worker no name of the program's own leads to it."""
        monkeypatch.setattr(builtins, "kept_by_a_library", Trainer(), raising=False)

        def dataset() -> Any:
            return vars(builtins)["kept_by_a_library"]

        found, _ = grow(lambda _: dataset().history.append(torch.ones(1000)), datasets=lambda: [dataset()])

        (gain,) = (gain for gain in found if gain.naming is not None and gain.naming.name == "history")
        assert [part.name for part in gain.path] == ["dataset", "history"]

    def test_a_cache_of_a_function(self) -> None:
        """Its table has no name; the function has: it is the variable `make` as well."""
        found, _ = grow(remembered)

        (gain,) = (
            gain for gain in found if gain.naming is not None and gain.naming.name in {"make", "remembered"}
        )
        assert gain.weight.python > 39 * 5000

    def test_a_list_of_a_class(self) -> None:
        """And one in a table of a module."""

        def add(number: int) -> None:
            Trainer.everyone.append(Trainer())
            TABLE["rows"].append(number)

        found, _ = grow(add)

        assert {"everyone", "TABLE"} & names(found)

    def test_a_list_behind_a_million_records(self) -> None:
        """Of a long list only the newest are looked at, so it does not use up the count."""
        records = [{"number": number} for number in range(MOST_BELOW * 10)]
        kept: list[int] = [0] * 10

        found, census = grow(kept.append)

        assert "kept" in names(found)
        assert census.objects < 100_000
        assert len(records) == MOST_BELOW * 10


class TestLeavesAlone:
    """What has not grown."""

    def test_a_list_that_stays(self) -> None:
        """However long it is."""
        rows = list(range(1000))

        found, _ = grow(lambda _: rows.reverse())

        assert "rows" not in names(found)
