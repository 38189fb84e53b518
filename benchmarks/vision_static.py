"""Steps on pictures of mixed sizes that make no call to the allocator: `holdwater train` on a CUDA device.

The vision tower has the shape of Qwen2.5-VL's, the language model about a billion weights. Pictures have 0.05 to
0.6 megapixels and many ratios of their edges; a quarter of the rows is text only, and an eighth has two pictures.
PyTorch's allocator counts its calls from the end of one step to the end of the next: drawing and sending the
batch, features, forward, backward, update and the logged loss are all in between.

    python benchmarks/vision_static.py            on a CUDA device, into results/vision_static.json
    python benchmarks/vision_static.py --small    a tiny model on the CPU, to try the script itself
"""

import argparse
import itertools
import json
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from picture_files import draw
from recording import Bar, record
from vision_models import RANK, SEED, build, configuration, write_folder
from vision_ours import loading

SHAPE = "1b"
SETTLED, COUNTED = 100, 1000
"""Steps before those that count, in which the steps of all shapes are captured, and those that count."""
PICTURES, ROWS = 400, 2000
PIXELS, ROW = (50_000, 600_000), 2048
"""Least and most pixels of a picture, and tokens of a row: the largest picture takes 765."""
SMALL_PIXELS, SMALL_ROW = (4_000, 16_000), 128
WORDS = 20

ASKED: list[int] = []
RESERVED: list[int] = []


def note(_guard: object) -> None:
    """Called after each step: what the allocator was asked for so far, and what is reserved."""
    known = torch.cuda.memory_stats() if torch.cuda.is_available() else {}
    ASKED.append(known.get("allocation.all.allocated", 0))
    RESERVED.append(known.get("reserved_bytes.all.current", 0))


def draw_one(folder: Path, pixels: tuple[int, int], number: int) -> str:
    """Draw a picture of some size between these, and return its path."""
    dice = np.random.default_rng([SEED, number])
    area, ratio = np.exp(dice.uniform(*np.log(pixels))), dice.uniform(0.5, 2)
    path = folder / f"{number:04}.jpg"
    draw(number, (round((area * ratio) ** 0.5), round((area / ratio) ** 0.5))).save(path, "JPEG", quality=90)
    return str(path)


def write_mixed(folder: Path, *, small: bool) -> None:
    """Write rows with no picture, one or two."""
    pictures = folder / "pictures"
    pictures.mkdir()
    with ProcessPoolExecutor(2 if small else 16) as pool:
        drawn = partial(draw_one, pictures, SMALL_PIXELS if small else PIXELS)
        paths = list(pool.map(drawn, range(24 if small else PICTURES), chunksize=4))
    dice = np.random.default_rng(SEED)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(100 if small else ROWS):
            count = (0, 0, 1, 1, 1, 1, 1, 2)[number % 8]
            images = [paths[one] for one in dice.integers(len(paths), size=count)]
            words = [f"t{word}" for word in dice.integers(4, 400, size=WORDS + int(dice.integers(WORDS)))]
            said = {"prompt": " ".join(words[:WORDS]), "completion": " ".join(words[WORDS // 2 :])}
            file.write(json.dumps(({"images": images} if images else {}) | said) + "\n")


def counted(folder: Path, *, small: bool) -> dict[str, Any]:
    """Train, and return what the allocator was asked for in each step that counts."""
    import vision_static  # the module that --callback imports
    from holdwater.cli import main as holdwater

    config = configuration(SHAPE, small=small)
    write_folder(folder / "built", SHAPE, config, small=small)
    write_mixed(folder, small=small)
    flags = {
        "model": folder / "built", "data": folder / "rows.jsonl", "steps": 12 if small else SETTLED + COUNTED + 2,
        "batch-size": 1, "train-seq-length": SMALL_ROW if small else ROW, "lora-rank": RANK, "seed": SEED,
        "eval-interval": 100_000, "eval-batches": 1, "sample-length": 0, "checkpoint-interval": 100_000,
        "out": folder / "run", "callback": "vision_static:note", "device": "cpu" if small else "cuda",
    }  # fmt: skip
    words = itertools.chain(*((f"--{name}", str(value)) for name, value in flags.items()))
    with loading(build(config, "cpu" if small else "cuda", small=small)):
        if holdwater.main(["train", *words, "--no-supervise"]):
            raise SystemExit("holdwater train failed")
    begin = 2 if small else SETTLED
    asked, reserved = vision_static.ASKED[begin:-1], vision_static.RESERVED[begin:-1]
    calls = [after - before for before, after in itertools.pairwise(asked)]
    return {
        "steps": len(calls), "calls": sum(calls), "steps_that_asked": sum(map(bool, calls)),
        "first_to_ask": [number for number, count in enumerate(calls) if count][:20],
        "reserved": sorted(set(reserved[1:])), "all_asked": vision_static.ASKED[:: 1 if small else 50],
    }  # fmt: skip


def main() -> bool:
    """Take the steps."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = counted(Path(place), small=options.small)
    reserved = found["reserved"]
    shown = f"{reserved[0]} to {reserved[-1]} B" if len(reserved) > 1 else f"{reserved[0]} B"
    bars = {
        "pictures of mixed sizes: calls to the allocator in consecutive steps": Bar(
            f"{found['calls']} in {found['steps']}", "0 in 1,000", found["calls"] == 0
        ),
        "pictures of mixed sizes: reserved device memory in these": Bar(
            shown, "constant to the byte", len(reserved) == 1
        ),
    }
    if options.small:
        print({what: bar.measured for what, bar in bars.items()} | {"steps": found["steps"]})
        return True
    return record("vision_static", bars, device=torch.cuda.get_device_name(), steps=found)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
