"""What variables hold is recorded leaf by leaf; nothing of the user's is called."""

import array
import concurrent.futures
import contextlib
import contextvars
import csv
import functools
import hashlib
import io
import itertools
import multiprocessing
import random
import sqlite3
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdwater.resume.fingerprint import Fingerprint, inputs_of, other_input


def leaves_of(value: object, *excluded: object) -> dict[str, object]:
    """Record one variable."""
    return Fingerprint(excluded).take({"it": value})


class Thing:
    """An object of a user's class, with a slot and an attribute of the class."""

    __slots__ = ("__dict__", "inside")
    count = 0

    def __init__(self) -> None:
        self.inside, self.rows = 1, [1, 2]


class Hostile:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    def __hash__(self) -> int:
        raise RuntimeError("hashed")


def changed_slot(thing: Thing) -> None:
    """Of an object."""
    thing.inside = 2


def changed_rows(thing: Thing) -> None:
    """Of a list in an object."""
    thing.rows[1] = 3


def counting() -> Iterator[int]:
    """A generator in an iterator that is written in C."""
    yield from itertools.count()


def drawing(generator: random.Random) -> Iterator[float]:
    """A generator that is at the same line before and after."""
    while True:
        yield sum(generator.random() for _ in range(2))


def waiting(generator: Iterator[Any]) -> Iterator[Any]:
    """A generator that has begun."""
    next(generator)
    return generator


def noted(value: int, *, seen: list[int] = []) -> None:  # noqa: B006 - what people write
    """A function that keeps what it is given."""
    seen.append(value)


def counted() -> None:
    """A function that counts its calls."""
    counted.calls += 1  # type: ignore[attr-defined]


counted.calls = 0  # type: ignore[attr-defined]


@functools.cache
def cached(value: int) -> int:
    """A function that keeps what it has returned."""
    return value


def hooked() -> torch.nn.Linear:
    """A module with a hook that keeps what passes through it."""
    seen: list[int] = []
    module = torch.nn.Linear(1, 1)
    module.register_forward_hook(lambda _module, _given, made: seen.append(len(made)))
    return module


class Key:
    """A key of a dictionary."""


def add_to_first(counts: dict[Key, int]) -> None:
    """Add to what the first key leads to."""
    counts[next(iter(counts))] += 1


def done(result: object) -> concurrent.futures.Future[object]:
    """What a thread has computed."""
    future: concurrent.futures.Future[object] = concurrent.futures.Future()
    future.set_result(result)
    return future


SEEN = [0]
VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("VARIABLE", default=1)
CHANGES: dict[str, tuple[Any, Any, str]] = {
    "an item": ([1, {"a": [2]}], lambda it: it[1]["a"].append(3), "it[1]['a']"),
    "a deque": (deque([1]), lambda it: it.append(2), "it"),
    "a tensor": (torch.zeros(3), lambda it: it.data.add_(1), "it"),
    "an array": (np.zeros(3), lambda it: it.fill(1), "it"),
    "a generator": (np.random.default_rng(1), lambda it: it.random(), "it"),
    "Python's generator": (random.Random(1), lambda it: it.random(), "it"),  # noqa: S311
    "torch's generator": (torch.Generator(), lambda it: torch.rand(1, generator=it), "it"),
    "a slot": (Thing(), changed_slot, "it.inside"),
    "an attribute": (Thing(), changed_rows, "it.rows[1]"),
    "a buffer": (torch.nn.BatchNorm1d(2), lambda it: it(torch.ones(2, 2)), "it.running_mean"),
    "bytes": (bytearray(3), lambda it: it.append(1), "it"),
    "Python's array": (array.array("d", [1.0]), lambda it: it.append(2.0), "it"),
    "a shared number": (multiprocessing.Value("i", 1), lambda it: setattr(it, "value", 2), "it._obj"),
    "a decimal": ([Decimal(1)], lambda it: it.__setitem__(0, Decimal(2)), "it[0]"),
    "a bit generator": (np.random.PCG64(1), lambda it: it.random_raw(), "it"),
    "a file in memory": (io.StringIO(), lambda it: it.write("1"), "it"),
    "a hash": (hashlib.sha256(), lambda it: it.update(b"1"), "it"),
    "a cached function": (cached, lambda it: it(1), "it"),
    "an attribute of a function": (counted, lambda it: it(), "it.calls"),
    "a default of a function": (noted, lambda it: it(1), "it.__kwdefaults__['seen']"),
    "a hook's variable": (hooked(), lambda it: it(torch.ones(2, 1)), "it._forward_hooks[0].seen"),
    "a generator that has drawn": (waiting(drawing(random.Random(1))), next, "it.gi_frame"),  # noqa: S311
    "a context variable": (VARIABLE, lambda it: it.set(2), "it.get()"),
    "a value of a thread": (threading.local(), lambda it: setattr(it, "rate", 2), "it.rate"),
    "a weak dictionary": (
        weakref.WeakKeyDictionary({Thing: 1, Hostile: 1}),
        lambda it: it.update({Thing: 2}),
        "it.data[a ReferenceType, 0]",
    ),
    "the first of two keys of a type": (dict.fromkeys((Key(), Key()), 1), add_to_first, "it[a Key, 0]"),
    "the result of a thread": ([done(1)], lambda it: it.__setitem__(0, done(2)), "it[0].result()"),
    "spawned seeds": (np.random.SeedSequence(1), lambda it: it.spawn(1), "it"),
    "a generator that spawned": (np.random.default_rng(1), lambda it: it.spawn(1), "it"),
    "an attribute of a tensor": (torch.zeros(1), lambda it: setattr(it, "age", 1), "it.age"),
    "a global variable that a function reads": ([lambda: SEEN[0]], lambda _: SEEN.append(1), f"{__name__}.SEEN"),
    "a frozen parameter": (torch.nn.Linear(1, 1), lambda it: it.requires_grad_(requires_grad=False), "it.weight"),
}


class TestChanges:
    """A change is found, at its path."""

    @pytest.mark.parametrize("kind", CHANGES)
    def test_is_found(self, kind: str) -> None:
        """And nothing else before it was made."""
        value, change, path = CHANGES[kind]
        before = leaves_of(value)
        same = leaves_of(value)
        change(value)
        after = leaves_of(value)

        assert same == before
        changed = {name for name in after.keys() | before.keys() if before.get(name) != after.get(name)}
        assert path in {name if name == path else name.partition("[")[0] for name in changed}

    @pytest.mark.parametrize("made", [zip([1], [2], strict=True), csv.reader(["1"]), waiting(counting())])
    def test_an_iterator_written_in_c_is_like_no_other(self, made: object) -> None:
        """Where it is cannot be known."""
        assert leaves_of(made) != leaves_of(made)

    def test_a_program_that_answers_is_like_no_other(self) -> None:
        """What it knows cannot be seen; one that is only written to, or has ended, is not asked."""
        command = [sys.executable, "-c", "input()"]
        for answers in (True, False):
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE if answers else subprocess.DEVNULL}
            with subprocess.Popen(command, **pipes) as program:  # type: ignore[call-overload]
                assert (leaves_of(program) != leaves_of(program)) is answers
                program.communicate(b"1\n")
                assert leaves_of(program) == leaves_of(program)

    def test_a_pipe_from_another_process_is_like_no_other(self) -> None:
        """As an iterator; its other end, which is only written to, is followed no further."""
        receiving, sending = multiprocessing.Pipe(duplex=False)
        with receiving, sending:
            assert leaves_of(receiving) != leaves_of(receiving)
            assert leaves_of(sending) == leaves_of(sending)

    def test_the_position_in_a_file_that_is_read(self) -> None:
        """Also where all of it was read into memory at once."""
        with Path(__file__).open(encoding="utf-8") as rows:
            rows.readline()
            before = leaves_of(rows)
            same = leaves_of(rows)
            rows.readline()

            assert same == before != leaves_of(rows)

    def test_a_file_that_is_written_is_not_followed(self, tmp_path: Path) -> None:
        """Such as a log."""
        with (tmp_path / "log").open("a", encoding="utf-8") as log:
            before = leaves_of(log)
            log.write("line")

            assert leaves_of(log) == before

    def test_a_mapped_file_that_is_written(self, tmp_path: Path) -> None:
        """One that is only read is not read here."""
        written = np.memmap(tmp_path / "data", np.float32, "w+", shape=(3,))
        read = np.memmap(tmp_path / "data", np.float32, "r", shape=(3,))
        before = leaves_of(written), leaves_of(read)
        written.fill(1)

        assert leaves_of(written) != before[0]
        assert leaves_of(read) == before[1]

    def test_a_database_in_memory(self) -> None:
        """By the rows that were changed."""
        with contextlib.closing(sqlite3.connect(":memory:")) as base:
            base.execute("create table seen (number int)")
            before = leaves_of(base)
            base.execute("insert into seen values (1)")

            assert leaves_of(base) != before

    def test_a_database_that_an_earlier_process_has_changed(self, tmp_path: Path) -> None:
        """What it holds must be the same in each process; that it was opened again is no change."""
        with contextlib.closing(sqlite3.connect(tmp_path / "rows.db")) as base:
            base.execute("create table seen (number int)")
            before = inputs_of(leaves_of(base))
        with contextlib.closing(sqlite3.connect(tmp_path / "rows.db")) as base:
            again = other_input(before, leaves_of(base))
            base.execute("insert into seen values (1)")
            base.commit()

            assert (again, other_input(before, leaves_of(base))) == (None, "it")

    def test_of_what_is_kept_otherwise_is_not(self) -> None:
        """Nor of what only leads through it."""
        kept = {"rows": [1]}
        before = leaves_of([kept], kept)
        kept["rows"].append(2)

        assert leaves_of([kept], kept) == before

    def test_an_object_that_raises_is_passed_over(self) -> None:
        """Nothing of it is called."""
        names = [name for name in leaves_of([Hostile(), 1]) if not name.endswith(".__class__")]

        assert names == ["it", "it[0]", "it[1]"]


def test_data_that_differ_from_those_of_another_process() -> None:
    """Tensors and arrays only: times and names may differ."""
    before = inputs_of(leaves_of({"data": torch.ones(2), "when": 1.0}))

    assert list(before) == ["it['data']"]
    assert other_input(before, leaves_of({"data": torch.ones(2), "when": 2.0})) is None
    assert other_input(before, leaves_of({"data": torch.zeros(2), "when": 1.0})) == "it['data']"
