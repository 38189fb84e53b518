"""Ten healthy library workloads and five leaks of a kilobyte a call, with which the pytest plugin is measured.

`benchmarks/pytest_plugin.py` runs this file with pytest. The test of repeated calls was developed with others
(`call_workloads_development.py`). A workload whose failure was repaired moves there, and another takes its place.
"""

import asyncio
import ctypes
import io
import json
import logging
import logging.handlers
import os
import re
import sqlite3
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdwater.testing.pytest_plugin import FlatMemory

REPEATS = int(os.environ.get("CALL_REPEATS", "1"))
LONG = 0.008
"""Seconds that a leaking call takes: near the longest of the goal, which is the hardest."""
KILOBYTE = 1000
again = pytest.mark.parametrize("repeat", range(REPEATS))


@again
def test_healthy_pictures(flat_memory: FlatMemory, repeat: int) -> None:
    """Draw, resize, compress and read pictures of changing size."""
    images = pytest.importorskip("PIL.Image")
    draws = pytest.importorskip("PIL.ImageDraw")
    draw = np.random.default_rng(repeat)

    def step() -> None:
        picture = images.new("RGB", (int(draw.integers(40, 300)), 120), "white")
        draws.Draw(picture).text((5, 5), str(draw.random()), fill="black")
        out = io.BytesIO()
        picture.resize((64, 64)).rotate(15).save(out, format="png")
        images.open(io.BytesIO(out.getvalue())).convert("L").histogram()

    flat_memory(step)


@again
def test_healthy_graphs(flat_memory: FlatMemory, repeat: int) -> None:
    """Make graphs, and find paths and centres in them."""
    networkx = pytest.importorskip("networkx")
    draw = np.random.default_rng(repeat)

    def step() -> None:
        graph = networkx.gnp_random_graph(int(draw.integers(20, 60)), 0.2, seed=int(draw.integers(1 << 30)))
        networkx.betweenness_centrality(graph)
        list(networkx.connected_components(graph))

    flat_memory(step)


@again
def test_healthy_database(flat_memory: FlatMemory, repeat: int) -> None:
    """Insert, ask and delete in SQLite."""
    base = sqlite3.connect(":memory:")
    base.execute("create table rows (number integer, text text)")

    def step() -> None:
        base.executemany("insert into rows values (?, ?)", [(i, "x" * (i % 60)) for i in range(60)])
        base.execute("select text, count(*) from rows where number > ? group by text", (repeat,)).fetchall()
        base.execute("delete from rows")
        base.commit()

    flat_memory(step)
    base.close()


@again
def test_healthy_logging(flat_memory: FlatMemory, repeat: int, tmp_path: Path) -> None:
    """Write log records to a file that is rotated; pytest captures them too."""
    log = logging.getLogger(f"healthy-{repeat}")
    handler = logging.handlers.RotatingFileHandler(tmp_path / "log", maxBytes=100_000, backupCount=2)
    log.addHandler(handler)
    count = iter(range(1 << 40))

    def step() -> None:
        log.warning("call %d: %s", next(count), "x" * 80)

    flat_memory(step)
    log.removeHandler(handler)
    handler.close()


@again
def test_healthy_texts(flat_memory: FlatMemory, repeat: int) -> None:
    """Parse JSON and search it with patterns, some of them new."""
    draw = np.random.default_rng(repeat)

    def step() -> None:
        text = json.dumps({f"key{i}": [float(v) for v in draw.random(4)] for i in range(30)}, indent=1)
        pattern = re.compile(rf'"key({draw.integers(0, 2000)})":\s*\[')
        pattern.findall(text)
        json.loads(text)

    flat_memory(step)


@again
def test_healthy_training(flat_memory: FlatMemory, repeat: int) -> None:
    """Train a small network; the losses of the newest steps are kept."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(repeat)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses: list[float] = []

    def step() -> None:
        rows = int(torch.randint(4, 64, ()).item())
        loss = model(torch.randn(rows, 64)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        del losses[:-100]

    flat_memory(step)


@again
def test_healthy_pool(flat_memory: FlatMemory, repeat: int) -> None:
    """Transform arrays of changing size in a pool of threads."""
    draw = np.random.default_rng(repeat)
    with ThreadPoolExecutor(4) as pool:

        def step() -> None:
            parts = [draw.random(int(draw.integers(100, 3000))) for _ in range(4)]
            list(pool.map(lambda part: float(np.abs(np.fft.rfft(part)).max()), parts))

        flat_memory(step)


@again
def test_healthy_documents(flat_memory: FlatMemory, repeat: int) -> None:
    """Build, write and parse XML."""
    draw = np.random.default_rng(repeat)

    def step() -> None:
        root = ET.Element("rows")
        for number in range(int(draw.integers(5, 40))):
            ET.SubElement(root, "row", number=str(number)).text = "text" * (number % 9)
        ET.fromstring(ET.tostring(root))  # noqa: S314 - our own text

    flat_memory(step)


@again
def test_healthy_tasks(flat_memory: FlatMemory, repeat: int) -> None:
    """Run tasks that wait for each other in a fresh event loop."""

    async def work() -> int:
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=3)

        async def produce() -> None:
            for number in range(10 + repeat % 3):
                await queue.put(number)
            await queue.put(-1)

        task = asyncio.create_task(produce())
        total = 0
        while (number := await queue.get()) >= 0:
            total += number
        await task
        return total

    flat_memory(lambda: asyncio.run(work()))


@again
def test_healthy_solver(flat_memory: FlatMemory, repeat: int) -> None:
    """Solve sparse systems, and remember the newest solutions by size."""
    sparse = pytest.importorskip("scipy.sparse")
    linalg = pytest.importorskip("scipy.sparse.linalg")
    draw = np.random.default_rng(repeat)
    known: dict[int, Any] = {}

    def step() -> None:
        size = int(draw.integers(10, 200))
        system = sparse.diags([2.0 + draw.random(size), -np.ones(size - 1)], [0, 1], format="csc")
        known[size] = linalg.spsolve(system, np.ones(size))

    flat_memory(step)


def work() -> None:
    """What a call does beside leaking."""
    began = time.perf_counter()
    np.sort(np.random.default_rng(0).random(2000))
    time.sleep(max(LONG - time.perf_counter() + began, 0.0))


def kept_results() -> Iterator[Callable[[], Any]]:
    """A list of results."""
    results: list[list[float]] = []
    yield lambda: results.append([float(i) for i in range(28)])


def dictionary() -> Iterator[Callable[[], Any]]:
    """A cache by keys that never come again."""
    cache: dict[str, bytes] = {}

    def step() -> None:
        cache[f"{time.perf_counter_ns()}"] = bytes(KILOBYTE)

    yield step


def native() -> Iterator[Callable[[], Any]]:
    """A native library that does not free: malloc by itself."""
    library = ctypes.CDLL(None)
    library.calloc.restype, library.calloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t, ctypes.c_size_t)
    yield lambda: library.calloc(1, KILOBYTE)


def tensors() -> Iterator[Callable[[], Any]]:
    """Tensors that are kept."""
    torch = pytest.importorskip("torch")
    history: list[Any] = []
    yield lambda: history.append(torch.ones(KILOBYTE // 4))


def closures() -> Iterator[Callable[[], Any]]:
    """Callbacks that hold what they were made with."""
    callbacks: list[Callable[[], int]] = []

    def step() -> None:
        text = "x" * int(KILOBYTE + 1e-9 * time.perf_counter())
        callbacks.append(lambda: len(text))

    yield step


@pytest.fixture(scope="module")
def loaded() -> None:
    """Import first what a leak needs: that is no part of finding it."""
    pytest.importorskip("torch")


LEAKS = (kept_results, dictionary, native, tensors, closures)


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.__name__)
@pytest.mark.usefixtures("loaded")
@again
def test_leak(flat_memory: FlatMemory, leak: Callable[[], Iterator[Callable[[], Any]]], repeat: int) -> None:
    """A kilobyte a call is kept: this must fail."""
    del repeat
    keep = next(leak())

    def step() -> None:
        work()
        keep()

    flat_memory(step)
