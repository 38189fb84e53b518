"""What a process holds, by kind; in pairs that count and that do not."""

import gc
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from holdwater.attribution.census import Census, CensusTaker, Note
from holdwater.attribution.gains import Gains
from holdwater.attribution.sweep import all_objects
from holdwater.attribution.turns import Turn
from holdwater.observe.agent.counting import CountCost, Counting

MB = 1_000_000


def gained(make: object, *, before: object = None) -> tuple[Census, Census]:
    """The censuses before and after something was made."""
    del before
    counter = CensusTaker()
    first = counter.take(1)
    kept = make()  # type: ignore[operator]
    second = counter.take(2)
    del kept
    return first, second


class TestTensors:
    """Storages are counted once, wherever they are held."""

    def test_counts_a_tensor(self) -> None:
        """4 MB."""
        first, second = gained(lambda: [torch.ones(MB)])

        assert second.tensors - first.tensors == 4 * MB

    def test_counts_a_storage_once(self) -> None:
        """However many views there are."""
        base = torch.ones(MB)

        first, second = gained(lambda: [base[index:] for index in range(50)])

        assert second.tensors == first.tensors

    def test_counts_what_only_a_graph_keeps(self) -> None:
        """The hidden activations of a loss."""
        weight = torch.ones(1000, 1000, requires_grad=True)
        first, second = gained(lambda: [((torch.ones(1000, 1000) @ weight) ** 2).mean()])

        assert second.tensors - first.tensors >= 8 * MB
        assert second.nodes - first.nodes >= 4

    def test_ignores_what_backward_has_freed(self) -> None:
        """After it only nodes are left."""
        weight = torch.ones(1000, 1000, requires_grad=True)

        def after_backward() -> torch.Tensor:
            loss = ((torch.ones(1000, 1000) @ weight) ** 2).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            weight.grad = None
            return loss

        first, second = gained(after_backward)

        assert second.tensors - first.tensors < MB


class TestPython:
    """Arrays, texts and small objects."""

    @pytest.mark.parametrize(
        "make",
        [
            lambda: np.ones(MB // 2),
            lambda: {"array": np.ones(MB // 2)},
            lambda: [(1, np.ones(MB // 2))],
            lambda: bytearray(4 * MB),
            lambda: [np.ones((MB // 2, 1))[:3]],
        ],
        ids=["array", "plain dict", "tuple", "bytes", "view"],
    )
    def test_counts_large_ones_wherever_they_are(self, make: object) -> None:
        """4 MB, in a frame, or in containers that the collector does not track."""
        first, second = gained(make)

        assert second.bulk - first.bulk == pytest.approx(4 * MB, rel=0.01)

    def test_counts_what_a_new_function_holds(self) -> None:
        """A hook that keeps a batch as a default; those that were there before are not looked at again."""
        counter = CensusTaker()
        gc.collect()  # what earlier tests have left would be freed between the counts
        before = counter.take(1).bulk
        hooks = [lambda held=bytes(1_000_000 + number): held for number in range(4)]
        gc.collect()  # it no longer tracks the tuples of the defaults

        assert counter.take(2).bulk - before == pytest.approx(4_000_000, rel=0.02)
        assert len(hooks) == 4

    def test_weighs_what_a_list_has_gained(self) -> None:
        """A thousand small dictionaries."""
        rows: list[object] = [None] * 10
        counter = CensusTaker()
        counter.take(1)
        rows += [{"step": index, "loss": index / 3} for index in range(1000)]

        assert counter.take(2).gained.python > 150_000

    def test_knows_the_room_of_a_deque(self) -> None:
        """Ninety arrays of 800 kB are still to come."""
        buffer: deque[object] = deque((np.ones(100_000) for _ in range(8)), maxlen=116)
        counter = CensusTaker()
        counter.take(1)
        buffer.extend(np.ones(100_000) for _ in range(18))

        assert counter.take(2).room == pytest.approx(90 * 800_000, rel=0.05)

    def test_leaves_no_garbage(self) -> None:
        """A census that keeps what it lists would look like a leak of the script."""
        counter = CensusTaker()
        counter.take(1)
        gc.collect()
        counter.take(2)

        assert gc.collect() < 1000


def in_turns(counter: CensusTaker, step: int, *, between: Callable[[int], None] = lambda _: None) -> Census:
    """A census that is made in as many turns as it can be, with something done between them."""
    turn = Turn()
    work = counter.turns(turn, Census(step), list, Note())
    number = 0
    while True:
        turn.begin(0.0)
        try:
            next(work)
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]
        turn.end()
        between(number)
        number += 1


class Hostile:
    """Fails whenever anything of its own is called."""

    calls = 0

    def __init__(self) -> None:
        self.rows: list[int] = []

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """What `isinstance` asks for."""
        return self._refuse()

    def __getattr__(self, name: str) -> Any:
        """What `getattr` asks for."""
        return self._refuse()

    def __len__(self) -> Any:
        """What `len` asks for."""
        return self._refuse()

    def __eq__(self, other: object) -> Any:
        """What `in` and `index` ask for."""
        return self._refuse()

    def __hash__(self) -> Any:
        """What sets and dictionaries ask for."""
        return self._refuse()

    def __sizeof__(self) -> Any:
        """What `sys.getsizeof` asks for."""
        return self._refuse()

    @staticmethod
    def _refuse() -> Any:
        Hostile.calls += 1
        raise ValueError("nobody may ask")


class Holder:
    """An instance with an array."""

    def __init__(self, values: Any) -> None:
        self.values = values


class Overriding(torch.Tensor):
    """A tensor whose class has a say in everything."""

    calls = 0

    @classmethod
    def __torch_function__(cls, *arguments: Any, **named: Any) -> Any:
        """What torch asks for."""
        Overriding.calls += 1
        raise ValueError("nobody may ask")


@pytest.mark.usefixtures("imports_collected")
class TestInTurns:
    """A count between steps finds what one at once finds, and gets in nobody's way."""

    def test_finds_the_same_as_at_once(self) -> None:
        """Tensors, arrays and what a list has gained."""
        rows: list[object] = [None] * 10
        kept = [torch.ones(MB), np.ones(MB)]
        counters = (CensusTaker(), CensusTaker())
        counters[0].take(1)
        in_turns(counters[1], 1)
        rows += [{"step": index, "loss": index / 3} for index in range(1000)]
        kept += [torch.ones(MB), np.ones(MB)]
        counters[1].mark = []

        at_once, slowly = counters[0].take(2), in_turns(counters[1], 2)

        assert slowly.tensors == at_once.tensors
        assert slowly.bulk == pytest.approx(at_once.bulk, rel=0.01)
        assert slowly.gained.python == pytest.approx(at_once.gained.python, rel=0.05)

    def test_takes_many_turns(self) -> None:
        """About one for each two thousand objects that have outlived some steps."""
        turns: list[int] = []
        counter = CensusTaker()
        counter.mark = []

        in_turns(counter, 1, between=turns.append)

        assert len(turns) > 20

    def test_keeps_nothing_of_a_step_alive(self) -> None:
        """A tensor, and one in a list in a dictionary, that are made after the mark and dropped between turns."""
        counter = CensusTaker()
        counter.mark = []
        holder = {"outputs": [torch.ones(10)]}
        alone = torch.ones(10)
        gone = [weakref.ref(holder["outputs"][0]), weakref.ref(alone)]
        alive: list[bool] = []

        def drop(number: int) -> None:
            nonlocal alone
            holder.clear()
            alone = torch.zeros(1)
            alive.append(any(reference() is not None for reference in gone))

        in_turns(counter, 1, between=drop)

        assert len(alive) > 5
        assert not any(alive)

    def test_keeps_no_old_tensor_alive(self) -> None:
        """One that was there before the mark is let go of in the second turn."""
        old = torch.ones(10)
        gone = weakref.ref(old)
        gc.collect()
        counter = CensusTaker()
        counter.mark = []
        alive: list[bool] = []

        def drop(number: int) -> None:
            nonlocal old
            old = torch.zeros(1)
            alive.append(gone() is not None)

        in_turns(counter, 1, between=drop)

        assert not any(alive[1:])

    def test_counts_arrays_of_instances_while_names_are_noted(self) -> None:
        """Reading an instance's attributes makes a dictionary that comes between it and its arrays."""
        counter, gains = CensusTaker(), Gains()
        before = counter.take(1, note=gains.remember).bulk
        held = [Holder(np.ones(MB // 8)) for _ in range(5)]

        after = counter.take(2, note=gains.remember).bulk

        assert after - before == pytest.approx(5 * MB, rel=0.02)
        assert len(held) == 5

    def test_lists_all_but_the_list_itself(self) -> None:
        """It would keep itself, and all that it refers to, alive until the next collection."""
        rows = all_objects()

        assert not any(row is rows for row in rows)

    def test_is_not_confused_by_a_container_that_grows_meanwhile(self) -> None:
        """A list that gets longer at each turn."""
        rows: list[int] = list(range(100))
        counter = CensusTaker()
        in_turns(counter, 1)
        rows.extend(range(100))
        counter.mark = []

        census = in_turns(counter, 2, between=rows.append)

        assert census.gained.python > 0


class TestAsksNobody:
    """Nothing of the program's own is called."""

    def test_not_even_for_a_class(self) -> None:
        """An object whose `__class__` raises is passed over, and its list is found."""
        hostile, keys = Hostile(), [Hostile() for _ in range(20)]
        counter, gains = CensusTaker(), Gains()
        counter.take(1, note=gains.remember)
        object.__getattribute__(hostile, "rows").extend(range(50))
        keys.extend(Hostile() for _ in range(40))

        counter.take(2, note=gains.compare)

        assert Hostile.calls == 0
        assert "rows" in {gain.naming.name for gain in gains.found if gain.naming is not None}
        gains.forget()

    @pytest.mark.usefixtures("imports_collected")
    def test_not_a_tensor_of_a_class_of_its_own(self) -> None:
        """Its storage is counted all the same."""
        counting = Counting(list, cost=CountCost(lambda: 0))  # a full count, however large this process is
        before = count(counting)
        tensor = torch.ones(MB).as_subclass(Overriding)
        calls = Overriding.calls

        after = count(counting)

        assert Overriding.calls == calls
        assert after.tensors - before.tensors == 4 * MB
        assert type(tensor) is Overriding


def count(counting: Counting) -> Census:
    """Count with the turns of a session."""
    counting.begin(counting.gains.remember, purpose="end", period=0.01)
    census = counting.go_on(1, to_the_end=True)
    assert census is not None
    return census
