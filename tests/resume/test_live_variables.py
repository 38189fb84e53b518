"""Variables that a suspended function still reads, and what counts beside a loop."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from holdwater.resume.live_variables import (
    gathers,
    global_names,
    live_names,
    loop_index,
    why_unknown,
    without_added_to,
)

found: list[FrameType] = []


def turns(count: int) -> Iterator[int]:
    """Count, and keep the frame that draws from it, as it is at the head of its loop."""
    for number in range(count):
        yield number
        found[:] = [sys._getframe(1)]
        if number == count - 2:
            names[:] = [live_names(found[0]), live_names(found[0], leaves_loop=True)]
            index[:] = [loop_index(found[0])]
            gathered[:] = [gathers(found[0])]


names: list[frozenset[str]] = []
index: list[str | None] = []
gathered: list[bool] = []
OURS = {"best", "count", "kept", "loss", "noted", "total", "value"}


def live(at: int = 0) -> set[str]:
    """What was found, without the names of Python's own functions."""
    return set(names[at]) & OURS


def note(*_: object) -> None:
    """Read some variables."""


class Meter:
    """No container."""

    def add(self, value: int) -> None:
        """Do anything with it."""
        note(value)


class TestLiveNames:
    """What is read before it is set again."""

    def test_a_variable_that_each_turn_sets_first(self) -> None:
        """It is not needed for another turn; after the loop it is."""
        for step in turns(2):
            loss = step + 1
            value = loss * 2
            assert value
        assert loss  # type: ignore[possibly-undefined]

        assert (live(), live(1)) == (set(), {"loss"})

    def test_a_variable_that_a_turn_reads_first(self) -> None:
        """A sum, and one that only some turns set."""
        count = 0
        best = 9
        for step in turns(2):
            count += 1
            if step % 2:
                best = step
        assert count + best

        assert live() == {"best", "count"}

    def test_a_container_that_is_only_added_to(self) -> None:
        """Nothing reads it, unless something does after the loop."""
        kept: list[int] = []
        noted: list[int] = []
        for step in turns(2):
            kept.append(step)
            noted.append(step)
        assert noted

        assert live() == {"noted"}

    def test_an_object_whose_method_is_only_called(self) -> None:
        """The twin: `add` of an object that is no container may print or count."""
        noted = Meter()
        kept = {1}
        for step in turns(2):
            noted.add(step)
            kept.add(step)

        assert live() == {"noted"}

    def test_a_variable_that_is_read_beside_a_container_that_is_added_to(self) -> None:
        """One instruction of Python 3.13 reads both."""
        kept: list[int] = []
        total = 0
        for _ in turns(2):
            note(total, kept.append(1))  # type: ignore[func-returns-value]
            total = 1

        assert live() == {"total"}

    def test_a_variable_that_is_set_and_read_at_once(self) -> None:
        """One instruction of Python 3.13 does both."""
        for step in turns(2):
            value = step
            loss = value.bit_length()
            loss.bit_length()

        assert live() == set()

    def test_a_variable_of_a_comprehension(self) -> None:
        """From Python 3.12 it shares its place with the function's own of that name, which it leaves as it was."""
        value = 0
        for step in turns(2):
            kept = [value + 1 for value in range(3)]
            assert kept
            assert value <= step
            value = value + step

        assert live() == {"value"}

    def test_after_many_turns(self) -> None:
        """Python rewrites the bytecode of a loop that is executed often."""
        total = 0
        for step in turns(100):
            loss = step
            total += loss
        assert total

        assert (live(), live(1)) == ({"total"}, {"total"})

    def test_a_context_manager_is_expected_to_swallow_nothing(self) -> None:
        """What is set inside is set."""
        for step in turns(2):
            with contextlib.nullcontext():
                value = step
            assert value >= 0

        assert live() == set()

    def test_one_that_swallows_exceptions(self) -> None:
        """The twin: what is set inside may be what it was."""
        value = 0
        for step in turns(2):
            with contextlib.suppress(KeyError):
                value = {0: 1}[step]
            assert value >= 0

        assert live() == {"value"}

    def test_an_exception_that_is_caught(self) -> None:
        """What its handler reads is needed."""
        total = 0
        for step in turns(2):
            try:
                loss = 1 // step
            except ZeroDivisionError:
                loss = total
            total = 1
            assert loss >= 0

        assert live() == {"total"}


class TestGathers:
    """What comes of each turn, where no variable leads to it."""

    @pytest.mark.parametrize(
        "draw",
        [
            lambda: [turn + 1 for turn in turns(3)],
            lambda: {turn + 1 for turn in turns(3) if turn},
            lambda: {turn: turn + 1 for turn in turns(3)},
            lambda: [turn for turn in turns(3) for _ in range(turn)],
            lambda: list(turns(3)),
            lambda: sorted(turns(3), key=abs),
            lambda: sum(map(abs, turns(3))),
            lambda: [*turns(3), 1],
        ],
    )
    def test_in_a_comprehension_or_a_call(self, draw: Callable[[], object]) -> None:
        """It would begin anew."""
        draw()

        assert gathered == [True]

    def test_not_in_a_loop(self) -> None:
        """Whatever comprehensions and calls are in it."""
        for turn in map(abs, turns(3)):
            kept = [each for each in range(3)]  # noqa: C416 - a comprehension is what is meant
            note([each + other for each in kept for other in sorted(kept)], list(range(turn)))

        assert gathered == [False]

    def test_not_where_the_next_one_is_asked_for(self) -> None:
        """One after another."""
        drawn = turns(3)
        while next(drawn, None) is not None:
            note()

        assert gathered == [False]

    def test_not_in_a_generator_that_delegates(self) -> None:
        """It gathers nothing itself."""

        def delegates() -> Iterator[int]:
            yield from turns(3)

        for _ in delegates():
            note()

        assert gathered == [False]


class TestLoopIndex:
    """The index of `enumerate`."""

    def test_one_that_is_read(self) -> None:
        """By its name."""
        for count, _ in enumerate(turns(2)):
            assert count >= 0

        assert index == ["count"]

    def test_one_that_nobody_reads(self) -> None:
        """The twin."""
        for _count, value in enumerate(turns(2)):
            assert value >= 0

        assert index == [None]


def test_the_globals_of_a_function() -> None:
    """Those of functions inside it, too."""

    def outer() -> object:
        def inner() -> object:
            return [OURS for _ in range(3)]

        return inner, found

    assert {"found", "OURS", "range"} <= global_names(outer.__code__)


def test_a_container_of_a_module_that_functions_only_add_to() -> None:
    """Any other object is read by such a call."""

    def keep(frame: FrameType) -> None:
        found.append(frame)

    names = global_names(keep.__code__)

    assert "found" not in without_added_to(names, {"found": []})
    assert "found" in without_added_to(names, {"found": Meter()})


class TestVersions:
    """Of Python, whose bytecode changes with each."""

    def test_those_that_were_tested(self) -> None:
        """From the first to the last."""
        assert [why_unknown((3, minor)) for minor in (11, 12, 13)] == [None] * 3

    def test_another_one(self) -> None:
        """What its instructions mean is not guessed."""
        reason = why_unknown((3, 99))

        assert reason is not None
        assert reason.endswith("of Python 3.11 to 3.13, and this is Python 3.99")
