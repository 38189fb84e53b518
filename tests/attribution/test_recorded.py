"""What a recording says: which lines' allocations stay, and which belong to a thread that runs no Python."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from holdwater.attribution import recorded
from holdwater.attribution.capture import EVENT_MARK, MARK
from holdwater.attribution.recorded import AllocationRecording
from holdwater.frameworks import mlx_clock

FREE, MALLOC, MMAP = 1, 2, 3
USERS = "/home/somebody/train.py"


@dataclass
class Record:
    """As memray has it."""

    allocator: int
    address: int
    size: int
    tid: int = 1
    stack_id: int = 0
    thread_name: str = ""
    stack: list[tuple[str, str, int]] = field(default_factory=list)

    def stack_trace(self) -> list[tuple[str, str, int]]:
        """Function, file and line."""
        return self.stack


@dataclass
class Story:
    """Records, written step by step."""

    records: list[Record] = field(default_factory=list)
    address: int = 0

    def allocate(
        self, line: int, size: int, *, within: str = "", tid: int = 1, name: str = "", kind: int = MALLOC
    ) -> int:
        """At a line of the user's, or in a file that it calls, or at line 0 in native code."""
        self.address += 1
        stack = [("work", USERS, line)] if line else []
        stack = [("call", within, 1), *stack] if within else stack
        self.records.append(Record(kind, self.address, size, tid, hash((line, within)), name, stack))
        return self.address

    def free(self, address: int) -> None:
        """Give back."""
        self.records.append(Record(FREE, address, 0))

    def end_step(self, *, event: bool = False) -> None:
        """Mark."""
        for size in (MARK, EVENT_MARK) if event else (MARK,):
            self.free(self.allocate(0, size))

    def read(self, **how: Any) -> dict[str, Any]:
        """As the watching process reads it."""
        recording = AllocationRecording(**how)
        recording.take(self.records, frozenset((FREE,)))
        return recording.as_json()


def lines(found: dict[str, Any]) -> dict[int, int]:
    """Bytes that stayed by line."""
    return {place["line"]: place["bytes"] for place in found["places"]}


class TestRecording:
    """What stays, and what goes."""

    @pytest.mark.parametrize(("size", "count", "left"), [
        (1 << 20, 1, {3: 10_000}), (1 << 20, 2, {3: 10_000, 5: 2 << 20}), (1 << 21, 1, {3: 10_000, 5: 1 << 21}),
    ])  # fmt: skip
    def test_an_arena_of_small_objects_says_nothing_of_its_line(
        self, size: int, count: int, left: dict[int, int]
    ) -> None:
        """Python maps one where they run out; a second one at that line, or another size, is the line's."""
        story = Story()
        for step in range(12):
            if step < count:
                story.allocate(5, size, kind=MMAP)
            if step < 10:
                story.allocate(3, 1000)
            story.end_step()

        assert lines(story.read(mapping=MMAP)) == left

    def test_finds_what_every_step_leaves(self) -> None:
        """And leaves out what a step gives back a step later."""
        story, last = Story(), None
        for _ in range(10):
            story.allocate(7, 1000)
            if last is not None:
                story.free(last)
            last = story.allocate(8, 5000)
            story.end_step()

        found = story.read()

        assert lines(found) == {7: 9000}
        assert (found["places"][0]["steps"], found["places"][0]["of_steps"]) == (9, 9)
        assert found["places"][0]["early"] > 0.4

    def test_leaves_out_what_our_hook_takes(self) -> None:
        """It runs in a call of the user's; what a library takes there counts, also where we have called it."""
        story = Story()
        for _ in range(10):
            story.allocate(7, 1000, within=torch.optim.__file__)
            story.allocate(8, 1000, within=recorded.__file__)
            story.allocate(9, 1000, within=mlx_clock.__file__)
            story.end_step()

        assert lines(story.read()) == {7: 9000, 9: 9000}

    def test_tells_our_functions_from_the_programs(self) -> None:
        """A program has functions of the same names."""
        story = Story()
        for _ in range(10):
            story.allocate(7, 2000, within=USERS)
            story.allocate(9, 1000, within=mlx_clock.__file__)
            story.end_step()

        assert [place["inner"] for place in story.read()["places"]] == ["call", "holdwater.call"]

    def test_tells_what_was_mapped(self) -> None:
        """A file that is mapped, or shared memory, beside memory of malloc at the same line."""
        story = Story()
        for _ in range(10):
            story.allocate(7, 100)
            story.allocate(7, 5000, kind=MMAP)
            story.end_step()

        (place,) = story.read(mapping=MMAP)["places"]
        assert (place["bytes"], place["mapped"]) == (9 * 5100, 9 * 5000)

    def test_says_when_all_that_is_left_is_young(self) -> None:
        """What a collection frees every few steps is there at the end, and was not at the beginning."""
        story = Story()
        waiting: list[int] = []
        for step in range(24):
            if step == 17:
                for address in waiting:
                    story.free(address)
            waiting.append(story.allocate(8, 5000))
            story.end_step()

        assert story.read()["places"][0]["early"] < 0.2

    def test_finds_what_comes_every_few_steps(self) -> None:
        """And leaves out what is replaced then, and what each step holds for a while."""
        story, newest, last = Story(), None, None
        for step in range(65):
            if step % 20 == 5:
                story.allocate(7, 40_000)
                if newest is not None:
                    story.free(newest)
                newest = story.allocate(9, 90_000)
            if last is not None:
                story.free(last)
            last = story.allocate(8, 5000)
            story.end_step()

        found = story.read(every=20)

        place = next(place for place in found["places"] if place["line"] == 7)
        assert lines(found).keys() == {7}
        assert place["steps"] >= 2
        assert (place["bytes"], place["of_steps"]) == (80_000, 40)

    def test_finds_what_events_leave(self) -> None:
        """What was allocated at one event and outlives the next; not what the next replaces."""
        story, newest = Story(), None
        for step in range(1, 61):
            at_event = step % 25 == 0
            if at_event:
                story.allocate(7, 40_000)
                if newest is not None:
                    story.free(newest)
                newest = story.allocate(9, 90_000)
            story.end_step(event=at_event)

        found = story.read(by_events=True)

        assert lines(found) == {7: 40_000}
        assert found["places"][0]["of_events"] == 1

    def test_names_a_thread_that_runs_no_python(self) -> None:
        """Its allocations are on no line, though the training loop was on one."""
        story = Story()
        for _ in range(10):
            story.allocate(7, 100)
            story.allocate(0, 64_000, tid=3, name="decoder")
            story.end_step()

        found = story.read()

        assert lines(found) == {7: 900}
        assert [(row["name"], row["bytes"]) for row in found["threads"]] == [("decoder", 576_000)]

    def test_ignores_native_memory_of_the_loops_own_thread(self) -> None:
        """The interpreter's own: it belongs to no other thread."""
        story = Story()
        for _ in range(10):
            story.allocate(0, 64_000)
            story.end_step()

        assert story.read()["threads"] == []

    def test_sees_sizes_that_are_new(self) -> None:
        """Inputs of ever new lengths; not those that come again."""
        story, same = Story(), Story()
        for step in range(20):
            story.allocate(7, 10_000 + 512 * step)
            same.allocate(7, 10_000)
            story.end_step()
            same.end_step()

        assert story.read()["new_sizes"] > 5
        assert same.read()["new_sizes"] == 0
