"""Healthy workloads and leaks with which the test of repeated calls was developed; its benchmark uses others."""

import collections
import contextlib
import csv
import ctypes
import datetime as dt
import decimal
import functools
import heapq
import io
import mmap
import random
import re
import threading
import time
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

Make = Callable[[], Callable[[], Any]]
KILOBYTE = 1024


def texts() -> Callable[[], Any]:
    """Compile a new pattern at each call: the cache of `re` fills and is emptied."""
    count = iter(range(1 << 40))
    return lambda: re.search(f"a{next(count)}[bc]+", "abcabc" * 20)


def bounded_cache() -> Callable[[], Any]:
    """A cache with a maximum length that takes some hundred calls to fill."""

    @functools.lru_cache(maxsize=700)
    def found(key: int) -> list[int]:
        return list(range(key % 100))

    count = iter(range(1 << 40))
    return lambda: found(next(count))


def random_cache() -> Callable[[], Any]:
    """A dictionary by random keys: it fills more and more slowly."""
    table: dict[int, bytes] = {}
    draw = random.Random(1)  # noqa: S311 - no secret

    def step() -> None:
        table.setdefault(draw.randrange(3000), bytes(200))

    return step


def cycles() -> Callable[[], Any]:
    """Objects that refer to themselves."""

    class Node:
        """A node of a ring."""

        def __init__(self) -> None:
            self.me, self.load = self, bytearray(500)

    def step() -> None:
        for _ in range(20):
            Node()

    return step


def tables() -> Callable[[], Any]:
    """Write and read comma-separated values of changing length."""
    draw = random.Random(2)  # noqa: S311

    def step() -> int:
        out = io.StringIO()
        csv.writer(out).writerows([draw.random() for _ in range(8)] for _ in range(draw.randrange(5, 200)))
        out.seek(0)
        return sum(len(row) for row in csv.reader(out))

    return step


def arrays() -> Callable[[], Any]:
    """Arrays of random sizes, of which the newest is kept."""
    draw, last = np.random.default_rng(3), {"kept": np.zeros(1)}

    def step() -> None:
        last["kept"] = np.sort(draw.random(int(draw.integers(10, 200_000))))

    return step


def window() -> Callable[[], Any]:
    """The newest 900 results."""
    newest: collections.deque[Any] = collections.deque(maxlen=900)
    return lambda: newest.append([dt.datetime.now(dt.UTC), decimal.Decimal(time.time())])


def threads() -> Callable[[], Any]:
    """A fresh thread for each call."""
    done: list[int] = [0]

    def work() -> None:
        done[0] += len(zlib.compress(bytes(5000)))

    def step() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    return step


def batches() -> Callable[[], Any]:
    """Rows are gathered, and written out when there are 1,500."""
    rows: list[bytes] = []

    def step() -> None:
        rows.append(bytes(KILOBYTE))
        if len(rows) == 1500:
            rows.clear()

    return step


def queues() -> Callable[[], Any]:
    """A heap that is kept at a few hundred entries, with exceptions that are caught."""
    heap: list[tuple[float, str]] = []
    draw = random.Random(4)  # noqa: S311

    def step() -> None:
        heapq.heappush(heap, (draw.random(), str(draw.random())))
        if len(heap) > 300:
            heapq.heappop(heap)
        with contextlib.suppress(ZeroDivisionError):
            _ = 1 / 0

    return step


def figures() -> Callable[[], Any]:
    """Draw, save and close a figure: on a busy machine, in its first hundred calls, it was called a leak once."""
    import matplotlib as mpl  # noqa: PLC0415 - only this one needs it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    def step() -> None:
        figure, axes = plt.subplots(figsize=(2, 2))
        axes.plot(np.random.default_rng(0).random(50))
        figure.savefig(io.BytesIO(), format="png", dpi=40)
        plt.close(figure)

    return step


def frames() -> Callable[[], Any]:
    """Group, join and sort tables: the same as of the figures."""
    pd: Any = import_module("pandas")
    draw = np.random.default_rng(0)

    def step() -> None:
        rows = int(draw.integers(50, 500))
        frame = pd.DataFrame({"key": draw.integers(0, 9, rows), "value": draw.random(rows)})
        sums = frame.groupby("key").sum().reset_index()
        frame.merge(sums, on="key").sort_values("value_x").to_csv(io.StringIO())

    return step


HEALTHY: tuple[Make, ...] = (
    texts, bounded_cache, random_cache, cycles, tables, arrays, window, threads, batches, queues,
    figures, frames,
)  # fmt: skip


def kept_list() -> Callable[[], Any]:
    """A list that is appended to."""
    kept: list[bytearray] = []
    return lambda: kept.append(bytearray(KILOBYTE))


def kept_small() -> Callable[[], Any]:
    """Small objects in a dictionary."""
    table: dict[int, list[float]] = {}

    def step() -> None:
        table[len(table)] = [float(i) for i in range(28)]

    return step


def kept_closures() -> Callable[[], Any]:
    """Functions that hold what they were made with."""
    hooks: list[Callable[[], int]] = []

    def step() -> None:
        load = bytearray(KILOBYTE)
        hooks.append(lambda: len(load))

    return step


def native() -> Callable[[], Any]:
    """Memory that nobody frees, from malloc itself."""
    take = ctypes.CDLL(None).malloc
    take.restype, take.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)

    def step() -> None:
        ctypes.memset(take(KILOBYTE), 1, KILOBYTE)

    return step


def mapped() -> Callable[[], Any]:
    """A page for every four calls, mapped past malloc."""
    kept: list[mmap.mmap] = []
    count = iter(range(1 << 40))

    def step() -> None:
        if next(count) % 4 == 0:
            page = mmap.mmap(-1, 4096)
            page.write(bytes(4096))
            kept.append(page)

    return step


def rare() -> Callable[[], Any]:
    """40 kB at every fortieth call, and noise beside it."""
    kept: list[bytearray] = []
    count, noise = iter(range(1 << 40)), arrays()

    def step() -> None:
        noise()
        if next(count) % 40 == 0:
            kept.append(bytearray(40 * KILOBYTE))

    return step


LEAKS: tuple[Make, ...] = (kept_list, kept_small, kept_closures, native, mapped, rare)
