"""Vision towers of Qwen2-VL, Qwen2.5-VL and Qwen3-VL on tensors of fixed shapes: patches of several pictures.

Their own code takes what follows from the shapes of pictures as arguments: positions, borders, the order of
windows, and how position embeddings are interpolated. It is made here, on the host, by the same functions of
Transformers, once for each shape of a picture.
"""

import importlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from holdwater.train.finetune.vision.families import Grid
from holdwater.train.finetune.vision.fast_blocks import FastBlocks
from holdwater.train.finetune.vision.static_tower import Inputs, Parts, TensorSpec
from holdwater.train.finetune.vision.varlen_attention import attending_within_borders

NEEDED = ("position_ids", "window_index", "interpolation_indices_and_weights")
"""Functions of Transformers that make what the tower's own code takes as arguments."""
MOST = 32
"""Pictures in a pass, at most: the attention kernel starts blocks for each, also where there is none."""
PIECES = 8
"""Into how many segments padding is cut at most: what they cost grows with their squares."""


class _Shape(NamedTuple):
    """What follows from the rows and columns of a picture's patches."""

    tensors: dict[str, Tensor]
    """One row for each patch."""
    order: Tensor
    """Of features, window by window. Shape (features,); empty where there are no windows."""
    windows: list[int]
    """Patches of each window."""


class PatchTower:
    """The tower and its mergers, with pictures of their own sizes one after another."""

    unit = "patches"
    patches = 1
    most = MOST

    def __init__(self, model: Any, device: torch.device | str) -> None:  # noqa: ANN401 - of Transformers
        """Take a model that is on its device, or is moved there afterwards."""
        self._tower = tower = model.model.visual
        config = tower.config
        self._merge = int(config.spatial_merge_size) ** 2
        self._edge = int(config.spatial_merge_size)
        self._weight = tower.patch_embed.proj.weight
        self._has_windows = hasattr(tower, "fullatt_block_indexes")
        self._interpolates = hasattr(tower, "num_grid_per_side")
        self._window = config.window_size // self._edge // config.patch_size if self._has_windows else 1
        self.step = 16 * self._merge
        self._fast = FastBlocks(tower, device)
        self._shape = lru_cache(maxsize=1024)(self._shape_of)

    @staticmethod
    def is_known() -> bool:
        """Whether Transformers has the functions that are needed here."""
        try:
            code = importlib.import_module("transformers.vision_utils")
        except ImportError:
            return False
        return all(hasattr(code, f"get_vision_{name}") for name in NEEDED)

    def places(self, grid: Grid) -> int:
        """Patches: several for each feature."""
        return grid.height * grid.width * self._merge

    def size(self, inputs: Inputs) -> int | None:
        """Its patches."""
        return len(inputs["pixel_values"])

    def features(self, places: int) -> int:
        """One for several patches."""
        return places // self._merge

    def example(self, places: int, seed: int) -> Inputs:
        """Patches of noise, about a square of them."""
        count = max(1, places // self._merge)
        rows = math.isqrt(count)
        columns = count // rows
        width = self._weight[0].numel()
        noise = torch.randn((rows * columns * self._merge, width), generator=torch.Generator().manual_seed(seed))
        return {
            "pixel_values": noise,
            "image_grid_thw": torch.tensor([[1, rows * self._edge, columns * self._edge]]),
        }

    def layout(self, budget: int) -> dict[str, TensorSpec]:
        """Pixels of patches, and what follows from the shapes of pictures."""
        parts = {
            "pixels": TensorSpec((budget, self._weight[0].numel()), self._weight.dtype),
            "position_ids": TensorSpec((budget, 2), torch.int64),
            "cu_seqlens": TensorSpec((MOST + PIECES + 1,), torch.int32),
        }
        if self._has_windows:
            parts["window_index"] = TensorSpec((budget // self._merge,), torch.int64)
            parts["cu_window_seqlens"] = TensorSpec((self._windows(budget) + 1,), torch.int32)
        if self._interpolates:
            parts["interp_indices"] = TensorSpec((budget, 4), torch.int64)
            parts["interp_weights"] = TensorSpec((budget, 4), torch.float32)
        return parts

    def _windows(self, budget: int) -> int:
        """Windows of a budget, at most; those of a narrow picture have one row."""
        return budget // (self._merge * self._window) + MOST + 1

    def write(self, parts: Parts, pictures: Sequence[Inputs], budget: int) -> None:
        """One after another; the places behind them are segments of their own, which no picture sees."""
        at, lengths, windows = 0, [], []
        for one in pictures:
            (grid,) = one["image_grid_thw"].tolist()
            shape, pixels = self._shape(tuple(grid)), one["pixel_values"]
            end = at + len(pixels)
            parts["pixels"][at:end].copy_(pixels)
            for name, tensor in shape.tensors.items():
                parts[name][at:end].copy_(tensor)
            if self._has_windows:
                begin = at // self._merge
                torch.add(shape.order, begin, out=parts["window_index"][begin : end // self._merge])
            lengths.append(len(pixels))
            windows += shape.windows
            at = end
        self._pad(parts, at)
        _write_borders(parts["cu_seqlens"], lengths, budget, piece=-(-(budget - at) // PIECES))
        if self._has_windows:
            _write_borders(parts["cu_window_seqlens"], windows, budget, piece=self._merge * self._window**2)

    def _pad(self, parts: Parts, begin: int) -> None:
        """Write what belongs to the places from some number on."""
        for name in ("position_ids", "interp_indices", "interp_weights"):
            if name in parts:
                parts[name][begin:].zero_()
        if self._has_windows:
            order = parts["window_index"]
            torch.arange(begin // self._merge, len(order), out=order[begin // self._merge :])

    def _shape_of(self, grid: tuple[int, int, int]) -> _Shape:
        """What follows from times, rows and columns of a picture's patches."""
        vision_utils = importlib.import_module("transformers.vision_utils")
        tower, grids = self._tower, torch.tensor([grid])
        tensors = {"position_ids": vision_utils.get_vision_position_ids(grids, self._edge)}
        if self._interpolates:
            tensors["interp_indices"], tensors["interp_weights"] = (
                vision_utils.get_vision_interpolation_indices_and_weights(
                    grids, num_grid_per_side=tower.num_grid_per_side, mode=tower.interpolation_mode,
                    align_corners=tower.interpolation_align_corners, spatial_merge_size=self._edge,
                )
            )  # fmt: skip
        if not self._has_windows:
            return _Shape(tensors, torch.empty(0, dtype=torch.int64), [])
        order, borders = vision_utils.get_vision_window_index(
            grids, spatial_merge_size=self._edge, window_size=tower.window_size, patch_size=tower.patch_size
        )
        return _Shape(tensors, order, borders.diff().tolist())

    def tensors(self) -> list[Tensor]:
        """Weights with padding."""
        return self._fast.tensors()

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Attention takes borders as a tensor, parts of blocks are faster, and patches are embedded by a product.

        A patch is as large as the convolution's kernel, so both are the same sum.
        """
        embed = self._tower.patch_embed
        embed.forward = self._embed
        try:
            with attending_within_borders(self._tower.config), self._fast.in_use():
                yield
        finally:
            del embed.forward

    def _embed(self, pixels: Tensor) -> Tensor:
        """Shape (patches, width)."""
        return nn.functional.linear(pixels, self._weight.flatten(1), self._tower.patch_embed.proj.bias)

    def forward(self, parts: Parts, budget: int) -> tuple[Tensor, ...]:
        """By the tower's own code; `ready` must be entered."""
        given: dict[str, Any] = {name: tensor for name, tensor in parts.items() if name != "pixels"}
        given["max_seqlen"] = budget
        if self._has_windows:
            given["max_window_seqlen"] = self._merge * self._window**2
        made = self._tower(parts["pixels"], None, return_dict=True, **given)
        return made.pooler_output, *(getattr(made, "deepstack_features", None) or ())


def _write_borders(borders: Tensor, lengths: Sequence[int], budget: int, *, piece: int) -> None:
    """Write where segments begin and end: those of pictures, of padding, and empty ones at the end.

    Args:
        borders: Shape (segments + 1,), int32.
        lengths: Of the segments of pictures.
        budget: Where padding ends.
        piece: Of padding, at most.
    """
    found = list(accumulate(lengths, initial=0))
    found += [*range(found[-1] + piece, budget, piece), budget] if found[-1] < budget else []
    array = borders.numpy()
    array[: len(found)] = np.asarray(found, np.int32)
    array[len(found) :] = budget
