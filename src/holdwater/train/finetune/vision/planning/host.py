"""What a run on pictures will take from the host's memory: the program, weights, decoded pictures, the cache.

Pictures are decoded ahead within a bound in bytes (`corpus.AHEAD`), so the plan counts what that bound allows, and
the micro-batches that are drawn. Sizes of decoded pictures are those that the model's own processor makes.
"""

import os
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import torch

from holdwater.train.finetune.planner.allocator import NOTHING
from holdwater.train.finetune.vision.corpus import AHEAD, THREADS
from holdwater.train.finetune.vision.packing import ROWS_AHEAD
from holdwater.train.finetune.vision.planning.device import VisionPlanned
from holdwater.train.finetune.vision.planning.sizes import PictureSize
from holdwater.train.finetune.vision.planning.tower import blank_inputs
from holdwater.train.settings import TrainSettings, TuneSettings
from holdwater.units import Bytes

CUDA_LIBRARIES, QUANTIZING = Bytes(365_000_000), Bytes(160_000_000)
"""What CUDA, its libraries and compiled kernels take of the host's memory, and what quantizing adds: the most that
14 runs of `benchmarks/vision_memory.py` took beyond the rest of their plans (H200, torch 2.11 for CUDA 13)."""
GROWN = Bytes(40_000_000)
"""What the program of a run takes beyond that of its plan: guard, store, and the code of kernels; measured on a
CPU of two cores with torch 2.13."""
PILLOW_PIXEL = 6
"""Bytes that Pillow takes for a pixel of a JPEG, at most."""


@dataclass(frozen=True, slots=True)
class HostPeak:
    """What a run will take from the host's memory, at most."""

    roles: dict[str, Bytes]
    """By what it is for, at the fullest moment."""

    @property
    def total(self) -> Bytes:
        """All of it."""
        return Bytes(sum(self.roles.values()))


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one picture takes, decoded."""

    kept: int
    """Bytes of what the model's code takes for it."""
    peak: int
    """Most bytes while that is made."""
    file: int
    """Bytes that Pillow takes for its pixels."""


def decode(planned: VisionPlanned, size: PictureSize) -> Decoded:
    """Let a family's processor make a picture of a size, and count what that takes.

    Args:
        planned: The model.
        size: Of the picture.
    """
    tracemalloc.start()
    try:
        inputs = blank_inputs(planned.family, size)
        arrays = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    pixels = size.width * size.height + planned.family.pixels(size.width, size.height)
    return Decoded(sum(value.nbytes for value in inputs.values()), arrays, PILLOW_PIXEL * pixels)


def plan_host(planned: VisionPlanned, settings: TrainSettings, tuning: TuneSettings, *, device: str) -> HostPeak:
    """Plan the host's memory of a run.

    Args:
        planned: The model.
        settings: Of the run.
        tuning: Of the run.
        device: `cuda`; or `cpu`, where the step takes the host's memory too.
    """
    stored, wanted = _weight_sizes(planned, tuning, device=device)
    libraries = CUDA_LIBRARIES + (NOTHING if tuning.quantize is None else QUANTIZING)
    program = Bytes(planned.resident + GROWN + (libraries if device == "cuda" else 0))
    loading = {"program": program, "weights": Bytes(stored + wanted)}
    lasting = Bytes(_weights_of_cpu(planned, stored, wanted)) if device == "cpu" else NOTHING
    trained = planned.trained_bytes
    steps = {
        "program": program,
        "weights": lasting,
        "adapters and optimizer": Bytes(4 * trained if device == "cpu" else 0),
        **_pictures(planned, settings),
        "vision cache": _cache(planned, tuning, device=device),
        "step": Bytes(planned.peak_on_cpu(settings.batch_size)) if device == "cpu" else NOTHING,
        "checkpoint copies": NOTHING if device == "cpu" else Bytes(4 * trained),
    }
    fullest = max((loading, steps), key=lambda roles: sum(roles.values()))
    return HostPeak({role: size for role, size in fullest.items() if size})


def _pictures(planned: VisionPlanned, settings: TrainSettings) -> dict[str, Bytes]:
    """Decoded pictures that wait for their step, and what decoding has taken, in threads and where one is late.

    `malloc` keeps what a thread has decoded with for the next picture. One of the processed pictures is the
    heaviest, and the others are of the median size: many of the heaviest are seldom processed at once.
    """
    sizes, rows = planned.sizes, settings.batch_size
    largest, heaviest, median = (decode(planned, one) for one in (sizes.largest, sizes.heaviest, sizes.median))
    of_token = largest.kept / max(sizes.largest.tokens, 1)
    drawn = (settings.gradient_accumulation + 1) * sizes.in_rows(rows, settings.train_seq_length) * of_token
    announced = ROWS_AHEAD * rows * max(sizes.in_example // max(sizes.largest.tokens, 1), 1)
    ahead = largest.kept + (announced - 1) * median.kept
    bound = max(AHEAD * largest.kept / max(sizes.decoding, 1), largest.kept)
    threads = min(THREADS, os.cpu_count() or 1, max(AHEAD // max(sizes.decoding, 1), 1))
    others = min(threads, announced - 1)  # the thread that takes pictures decodes those that are late
    return {
        "decoded pictures": Bytes(int(drawn + median.kept + min(ahead, bound))),
        "decoding": Bytes(heaviest.peak + others * median.peak + (others + 1) * heaviest.file),
    }


def _cache(planned: VisionPlanned, tuning: TuneSettings, *, device: str) -> Bytes:
    """Features that are kept in the host's memory: those of all pictures, within the given size."""
    if tuning.vision_cache is None or tuning.vision_cache_folder is not None:
        return NOTHING
    if not planned.sizes.all_tokens:
        return tuning.vision_cache
    of_token = planned.feature_bytes_of_token * (2 if device == "cpu" else 1)
    return Bytes(min(tuning.vision_cache, planned.sizes.all_tokens * of_token))


def _weight_sizes(planned: VisionPlanned, tuning: TuneSettings, *, device: str) -> tuple[int, int]:
    """Bytes of the files of weights, which are mapped, and of what is made of them in another type."""
    width = (torch.float32 if device == "cpu" else torch.bfloat16).itemsize
    wanted, folder = planned.loaded_weights * width, Path(tuning.model).expanduser()
    files = [path.stat().st_size for path in folder.glob("*.safetensors")] if folder.is_dir() else []
    stored = sum(files) or wanted
    return stored, 0 if round(stored / planned.loaded_weights) == width else wanted


def _weights_of_cpu(planned: VisionPlanned, stored: int, wanted: int) -> int:
    """Frozen weights that stay in the host's memory: the mapped files, or what was made of them."""
    few = planned.few_bytes
    return few + (wanted - planned.replaced_weights * torch.float32.itemsize if wanted else stored)
