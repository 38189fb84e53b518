"""Variables that a suspended function still reads, and what counts beside a loop."""

import contextlib
import sys
from collections.abc import Iterator
from types import FrameType

from holdwater.resume.live_variables import global_names, live_names, loop_index

found: list[FrameType] = []


def turns(count: int) -> Iterator[int]:
    """Count, and keep the frame that draws from it, as it is at the head of its loop."""
    for number in range(count):
        yield number
        found[:] = [sys._getframe(1)]
        if number == 0:
            names[:] = [live_names(found[0]), live_names(found[0], leaves_loop=True)]
            index[:] = [loop_index(found[0])]


names: list[frozenset[str]] = []
index: list[str | None] = []
OURS = {"best", "count", "kept", "loss", "noted", "total", "value"}


def live(at: int = 0) -> set[str]:
    """What was found, without the names of Python's own functions."""
    return set(names[at]) & OURS


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
