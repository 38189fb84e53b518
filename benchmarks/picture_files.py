"""Draw pictures for benchmarks: shapes over gradients with a little grain, from a seed; and spoil some."""

import io
import struct
import zlib
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SHAPES = 40
GRAIN = 0.15
"""The share of grain in a picture: without it, a JPEG file would be small and be decoded too fast."""


def draw_all(folder: Path, count: int, size: tuple[int, int], *, workers: int = 2) -> list[Path]:
    """Draw pictures that are not there yet.

    Args:
        folder: Where they lie; is made.
        count: How many.
        size: Width and height in pixels.
        workers: Processes that draw.

    Returns:
        Their paths, in their order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05}.jpg" for number in range(count)]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(partial(_save, folder, size), missing, chunksize=8))
    return paths


def draw(seed: int, size: tuple[int, int]) -> Image.Image:
    """Draw one picture.

    Args:
        seed: The same seed and size give the same picture.
        size: Width and height in pixels.
    """
    dice = np.random.default_rng(seed)
    width, height = size
    corners = Image.fromarray(dice.integers(0, 256, (2, 2, 3)).astype(np.uint8))
    coarse = dice.integers(0, 256, (max(height // 8, 1), max(width // 8, 1))).astype(np.uint8)
    grain = Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR).convert("RGB")
    picture = Image.blend(corners.resize(size, Image.Resampling.BILINEAR), grain, GRAIN)
    brush = ImageDraw.Draw(picture)
    for _ in range(SHAPES):
        x, y = (int(dice.integers(0, side)) for side in size)
        reach = int(dice.integers(max(min(size) // 40, 1), max(min(size) // 5, 2)))
        colour = tuple(dice.integers(0, 256, 3).tolist())
        shape = brush.ellipse if dice.random() < 0.5 else brush.rectangle
        shape((x - reach, y - reach, x + reach, y + reach), fill=colour)
    return picture


def _save(folder: Path, size: tuple[int, int], number: int) -> None:
    """Draw and write one; a process that is killed leaves no half file under its name."""
    made = folder / f"{number:05}.part"
    draw(number, size).save(made, "JPEG", quality=90)
    made.rename(folder / f"{number:05}.jpg")


def spoil_all(folder: Path) -> list[Path]:
    """Write one picture for each of ten ways in which it cannot be learned.

    Args:
        folder: Where they lie; is made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole = draw(0, (320, 240))
    jpeg, png = (_encoded(whole, kind) for kind in ("JPEG", "PNG"))
    contents = {
        "truncated.jpg": jpeg[: 2 * len(jpeg) // 3],
        "empty.png": b"",
        "animated.gif": _encoded(whole, "GIF", save_all=True, append_images=[draw(1, whole.size)]),
        "no-picture-inside.jpg": b"PK\x03\x04" + bytes(2000),
        "bomb.png": _png_of(png, 60_000, 60_000),
        "text.txt": b"this is no picture\n" * 40,
        "narrow.png": _encoded(draw(2, (4000, 10)), "PNG"),
        "damaged-header.png": png[:12] + b"\xff" * 8 + png[20:],
        "damaged-pixels.png": png[: len(png) // 2] + bytes(64) + png[len(png) // 2 + 64 :],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in (*contents, "missing.jpg")]


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:  # noqa: ANN401 - of Pillow
    """The bytes of a file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _png_of(png: bytes, width: int, height: int) -> bytes:
    """A PNG file whose header says another size."""
    header = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]
