"""What the cache of vision features costs: megabytes a second written and read, time for a get, resident memory.

A cache of 200 MB is filled with 1,000 entries and read in two epochs, in a folder and in host memory, each in a
process of its own; then another process opens the folder and reads every entry, once from the disk as far as the
kernel lets go of its pages.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from holdwater.probes.statm import read_resident
from holdwater.train.finetune.vision.cache import FeatureCache
from holdwater.units import Bytes
from recording import Bar, record

BUDGET = Bytes(200_000_000)
ENTRIES = 1000
SHAPE = (64, 1536)
"""Of the features of one picture, in bfloat16: 196,608 bytes."""
SIZE = 2 * SHAPE[0] * SHAPE[1]


def main() -> bool:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("fill", "reopen"), help="one process of the benchmark")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(fill(options.folder) if options.part == "fill" else reopen(options.folder)))
        return True
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:
        folder = Path(place) / "cache"
        disk = part("fill", "--folder", str(folder))
        size = sum(path.stat().st_size for path in folder.iterdir())
        release_pages(folder)
        again = part("reopen", "--folder", str(folder))
    memory = part("fill")
    return record(
        "vision_cache", bars(disk, again, memory, size), entries=ENTRIES, entry_bytes=SIZE, budget=BUDGET,
        bytes_on_disk=size, folder=disk, next_process=again, host_memory=memory,
        remark="The machine was shared with other work. The folder was on its usual disk; the first process reads "
        "from the kernel's page cache, the next one after fsync and POSIX_FADV_DONTNEED.",
    )  # fmt: skip


def part(*words: str) -> dict[str, Any]:
    """What one process measures."""
    command = [sys.executable, __file__, "--part", *words]
    found: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def fill(folder: Path | None) -> dict[str, Any]:
    """Fill a cache and read it in two epochs."""
    features = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).bfloat16()
    with FeatureCache(BUDGET, place=folder) as cache:
        cache.put("warm up", {"features": torch.zeros(1)})
        cache.get("warm up")
        before = read_resident()
        write = timed(lambda key: cache.put(key, {"features": features}), range(ENTRIES))
        written = read_resident()
        epochs = [read(cache, seed) for seed in range(2)]
        after = read_resident()
        return {
            "write": speed(write), "first_epoch": speed(epochs[0]), "second_epoch": speed(epochs[1]),
            "hits": cache.hits - 1, "bytes_used": cache.bytes_used,
            "resident": {"before": before, "written": written, "read": after},
        }  # fmt: skip


def reopen(folder: Path) -> dict[str, Any]:
    """Open the cache of a process before, and read it."""
    with FeatureCache(Bytes(1), place=folder.with_name("none")) as none:
        none.get("warm up")
    before, began = read_resident(), time.perf_counter()
    with FeatureCache(BUDGET, place=folder) as cache:
        opened = time.perf_counter() - began
        epochs = [read(cache, seed) for seed in range(2)]
        return {
            "seconds_to_open": opened, "first_epoch": speed(epochs[0]), "second_epoch": speed(epochs[1]),
            "hits": cache.hits, "resident": {"before": before, "read": read_resident()},
        }  # fmt: skip


def read(cache: FeatureCache, seed: int) -> list[float]:
    """Get every entry in an order of its own."""
    order = np.random.Generator(np.random.PCG64(seed)).permutation(ENTRIES).tolist()
    return timed(cache.get, order)


def timed(what: Callable[[str], object], numbers: Any) -> list[float]:  # noqa: ANN401 - a range or a list
    """Seconds of each call."""
    seconds = []
    for number in numbers:
        key = f"picture {number}"
        began = time.perf_counter()
        what(key)
        seconds.append(time.perf_counter() - began)
    return seconds


def speed(seconds: list[float]) -> dict[str, float]:
    """Of an epoch."""
    return {
        "megabytes_a_second": len(seconds) * SIZE / sum(seconds) / 1e6,
        "median_microseconds": 1e6 * float(np.median(seconds)),
        "longest_microseconds": 1e6 * max(seconds),
    }


def release_pages(folder: Path) -> None:
    """Let the kernel forget the files' pages, so that they are read from the disk."""
    for path in folder.iterdir():
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def bars(disk: dict[str, Any], again: dict[str, Any], memory: dict[str, Any], size: int) -> dict[str, Bar]:
    """What is asked for."""
    grown = disk["resident"]["read"] - disk["resident"]["before"]
    grown_again = again["resident"]["read"] - again["resident"]["before"]
    usual = disk["second_epoch"]["median_microseconds"]
    hits = min(disk["hits"], again["hits"], memory["hits"])
    return {
        "vision cache of 200 MB: entries found in two epochs, the least of three processes": Bar(
            f"{hits} of {2 * ENTRIES}", "all", hits == 2 * ENTRIES
        ),
        "vision cache of 200 MB: bytes on disk, index included": Bar(
            f"{size / 1e6:.1f} MB", "at most 200 MB", size <= BUDGET
        ),
        "vision cache of 200 MB: resident memory after filling and two epochs, more than before": Bar(
            f"{grown / 1e6:.1f} MB", "at most 10 MB", grown <= 10e6
        ),
        "vision cache of 200 MB: the same in the next process, opening included": Bar(
            f"{grown_again / 1e6:.1f} MB", "at most 10 MB", grown_again <= 10e6
        ),
        "vision cache of 200 MB: median time to get 197 kB from the folder": Bar(
            f"{usual:.0f} µs", "at most 1000 µs", usual <= 1000
        ),
    }


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
