"""What differs between families of vision-language models: the text of a picture, its positions, its pixels."""

import importlib
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from holdwater.errors import ConfigError, DataError, ModelError
from holdwater.train.finetune.vision.processors import Parts, image_processor, resized, settings_of

Integers = np.ndarray[Any, np.dtype[np.int64]]

NARROWEST = 200
"""The largest ratio of a picture's edges that Qwen's processors take."""


class Grid(NamedTuple):
    """The features of one picture, as rows and columns; tiles of Idefics count as rows of one column."""

    height: int
    width: int


def joined(made: Tensor | Sequence[Tensor]) -> Tensor:
    """The features of one picture after another; newer versions of Transformers part them by picture.

    Args:
        made: Of all pictures, or of each; shape (..., features, width).
    """
    parts = [made] if isinstance(made, Tensor) else list(made)
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])


class Family(Protocol):
    """A family of vision-language models."""

    marker: ClassVar[str]
    """What the chat template writes where a picture is."""
    image_token: int
    """The token in whose places features are put."""
    settings: str
    """The settings of its processor, as text: features depend on them."""
    has_axes: ClassVar[bool]
    """Whether rotary positions have three dimensions."""
    kinds_name: ClassVar[str]
    """What the model's code calls the input that says which tokens are a picture's; empty if it needs none."""

    def grid(self, width: int, height: int) -> Grid:
        """How many features a picture has.

        Args:
            width: Of the picture, in pixels.
            height: In pixels.

        Raises:
            DataError: The processor does not take such a picture.
        """
        ...

    def placeholder(self, width: int, height: int) -> str:
        """The text that takes the marker's place, with one image token for each feature."""
        ...

    def pixels(self, width: int, height: int) -> int:
        """The pixels of a picture once it is resized."""
        ...

    def inputs(self, picture: Any) -> dict[str, Tensor]:  # noqa: ANN401 - of Pillow
        """What the model's code takes for one decoded picture."""
        ...

    def join(self, inputs: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The same for several pictures of one example."""
        ...

    def axes(self, tokens: Integers, grids: Sequence[Grid]) -> Integers | None:
        """Rotary positions of one example in three dimensions; None where positions are counted.

        Args:
            tokens: Of the example. Shape (count,).
            grids: Of its pictures.

        Returns:
            Shape (3, count).
        """
        ...

    def features(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:  # noqa: ANN401
        """The features of one picture, and what early layers add to hidden states. Shapes (count, width)."""
        ...


class Qwen:
    """Qwen2-VL, Qwen2.5-VL and Qwen3-VL: patches of the picture's own size, and positions in three dimensions."""

    has_axes: ClassVar[bool] = True
    kinds_name: ClassVar[str] = "mm_token_type_ids"
    marker: ClassVar[str] = "<|image_pad|>"

    def __init__(self, parts: Parts, max_pixels: int | None) -> None:
        """Read the settings of the processor.

        Args:
            parts: Of the model.
            max_pixels: Most pixels of a resized picture; None takes the processor's own.

        Raises:
            ConfigError: The model does not take so few.
        """
        self._processor = image_processor(parts, "qwen2_vl", "Qwen2VLImageProcessorPil")
        own = self._processor
        size = {"shortest_edge": int(own.size["shortest_edge"]), "longest_edge": int(own.size["longest_edge"])}
        if max_pixels is not None:
            least = (own.patch_size * own.merge_size) ** 2
            if max_pixels < least:
                raise ConfigError(
                    f"max_pixels is {max_pixels}, but a picture has {least} or more; write that, or a larger one"
                )
            size = {"shortest_edge": min(size["shortest_edge"], max_pixels), "longest_edge": max_pixels}
        self._size, self._edge = size, own.patch_size * own.merge_size
        self.image_token = int(parts.config.image_token_id)
        self.settings = settings_of(own) + repr(size)

    def grid(self, width: int, height: int) -> Grid:
        """As the processor resizes it: to multiples of a feature's edge, within its bounds of pixels."""
        if max(width, height) > NARROWEST * min(width, height):
            raise DataError(
                f"it is {width} × {height} pixels, but this model takes no edge of {NARROWEST} times the other; "
                "cut it into several pictures"
            )
        edge, most, least = self._edge, self._size["longest_edge"], self._size["shortest_edge"]
        rows, columns = round(height / edge), round(width / edge)
        if rows * columns * edge**2 > most:
            shrink = math.sqrt(height * width / most)
            rows, columns = (max(1, math.floor(side / shrink / edge)) for side in (height, width))
            if rows * columns * edge**2 > most:
                left = rows * columns * edge**2
                raise DataError(
                    f"it is {width} × {height} pixels, so narrow that {left} would be left of a bound of {most}; "
                    "cut it into several pictures, or raise --max-pixels"
                )
        elif rows * columns * edge**2 < least:
            stretch = math.sqrt(least / (height * width))
            rows, columns = (math.ceil(side * stretch / edge) for side in (height, width))
        return Grid(rows, columns)

    def placeholder(self, width: int, height: int) -> str:
        """One token for each feature."""
        return self.marker * math.prod(self.grid(width, height))

    def pixels(self, width: int, height: int) -> int:
        """The pixels of a picture once it is resized."""
        return int(math.prod(self.grid(width, height)) * self._edge**2)

    def inputs(self, picture: Any) -> dict[str, Tensor]:  # noqa: ANN401 - of Pillow
        """Patches, and their grid."""
        grid = self.grid(*picture.size)
        size = grid.width * self._edge, grid.height * self._edge
        if self.grid(*size) == grid:
            picture = resized(picture, self._processor, size)
        return dict(self._processor(images=[picture], size=self._size, return_tensors="pt"))

    def join(self, inputs: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """One after another."""
        return {name: torch.cat([one[name] for one in inputs]) for name in inputs[0]}

    def axes(self, tokens: Integers, grids: Sequence[Grid]) -> Integers:
        """Rows and columns of a picture begin where its text ends; text goes on behind the larger edge."""
        found, at, waiting = np.zeros((3, len(tokens)), np.int64), 0, iter(grids)
        for begin, end, pictured in runs(tokens == self.image_token):
            if not pictured:
                found[:, begin:end] = np.arange(at, at + end - begin)
                at += end - begin
                continue
            done = begin
            while done < end:  # pictures may follow each other without a token between them
                grid = next(waiting)
                count = grid.height * grid.width
                rows, columns = np.divmod(np.arange(count), grid.width)
                found[:, done : done + count] = np.stack([np.zeros(count, np.int64), rows, columns]) + at
                done, at = done + count, at + max(grid)
        return found

    def features(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:  # noqa: ANN401
        """Of the tower; Qwen3-VL has more for early layers."""
        made = model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True)
        return tuple(map(joined, (made.pooler_output, *(getattr(made, "deepstack_features", None) or ()))))


class Idefics:
    """Idefics3 and SmolVLM: tiles of one size, each named by its row and column, then the whole picture."""

    has_axes: ClassVar[bool] = False
    kinds_name: ClassVar[str] = ""
    marker: ClassVar[str] = "<image>"

    def __init__(self, parts: Parts, max_pixels: int | None) -> None:
        """Read the settings of the processor.

        Args:
            parts: Of the model.
            max_pixels: Most pixels of a resized picture; None takes the processor's own.

        Raises:
            ConfigError: The model does not take so few.
        """
        smol = parts.config.model_type == "smolvlm"
        own = self._processor = (
            image_processor(parts, "smolvlm", "SmolVLMImageProcessorPil")
            if smol
            else image_processor(parts, "idefics3", "Idefics3ImageProcessorPil")
        )
        self._tile = int(own.max_image_size["longest_edge"])
        edge = int(own.size["longest_edge"])
        if max_pixels is not None:
            if max_pixels < self._tile**2:
                raise ConfigError(
                    f"max_pixels is {max_pixels}, but a tile of this model has {self._tile**2} pixels; "
                    "write that or more"
                )
            edge = min(edge, math.isqrt(max_pixels) // self._tile * self._tile)
        self._size = {"longest_edge": edge}
        vision = parts.config.vision_config
        whole = (vision.image_size // vision.patch_size) ** 2 // parts.config.scale_factor**2
        self._of_a_tile = int(parts.processor.get("image_seq_len") or whole)
        self.image_token = int(parts.config.image_token_id)
        self.settings = settings_of(own) + repr(self._size)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height to which the processor resizes a picture before it makes tiles."""
        code = importlib.import_module(type(self._processor).__module__)
        shape = np.broadcast_to(np.uint8(0), (3, height, width))
        rows, columns = code.get_resize_output_image_size(shape, self._size["longest_edge"])
        return int(columns), int(rows)

    def _tiles(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of tiles; 0 and 0 where a picture is not split."""
        _, rows, columns = self._processor.get_number_of_image_patches(height, width, {"size": self._size})
        return int(rows), int(columns)

    def grid(self, width: int, height: int) -> Grid:
        """A row for each tile, the whole picture among them."""
        rows, columns = self._tiles(width, height)
        return Grid(rows * columns + 1, self._of_a_tile)

    def placeholder(self, width: int, height: int) -> str:
        """Tiles by row and column, and the whole picture."""
        rows, columns = self._tiles(width, height)
        fake, features = "<fake_token_around_image>", self.marker * self._of_a_tile
        whole = f"{fake}<global-img>{features}{fake}"
        if not rows:
            return whole
        lines = [
            "".join(f"{fake}<row_{row + 1}_col_{column + 1}>{features}" for column in range(columns)) + "\n"
            for row in range(rows)
        ]
        return "".join(lines) + "\n" + whole

    def pixels(self, width: int, height: int) -> int:
        """The pixels of all tiles."""
        return self.grid(width, height).height * self._tile**2

    def inputs(self, picture: Any) -> dict[str, Tensor]:  # noqa: ANN401 - of Pillow
        """Tiles, and which of their pixels are padding."""
        size = self._resized(*picture.size)
        if self._resized(*size) == size:
            picture = resized(picture, self._processor, size)
        made = self._processor(images=[[picture]], size=self._size, return_tensors="pt")
        return {name: made[name] for name in ("pixel_values", "pixel_attention_mask") if name in made}

    def join(self, inputs: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Tiles of one example lie in one row."""
        return {name: torch.cat([one[name] for one in inputs], dim=1) for name in inputs[0]}

    def axes(self, tokens: Integers, grids: Sequence[Grid]) -> None:
        """Positions are counted."""

    def features(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:  # noqa: ANN401
        """Of all tiles, one after another."""
        return (joined(model.model.get_image_features(**inputs, return_dict=True).pooler_output),)


class Gemma:
    """Gemma 3: every picture is resized to one square, and its tokens see each other."""

    has_axes: ClassVar[bool] = False
    kinds_name: ClassVar[str] = "token_type_ids"
    marker: ClassVar[str] = "<start_of_image>"

    def __init__(self, parts: Parts, max_pixels: int | None) -> None:
        """Read the settings of the processor.

        Args:
            parts: Of the model.
            max_pixels: Refused: there is one size for all pictures.

        Raises:
            ConfigError: It is given.
        """
        self._processor = image_processor(parts, "gemma3", "Gemma3ImageProcessorPil")
        edges = self._processor.size
        if max_pixels is not None:
            raise ConfigError(
                f"max_pixels is {max_pixels}, but this model takes every picture at {edges['width']} × "
                f"{edges['height']} pixels; leave it out"
            )
        self._count = int(parts.config.mm_tokens_per_image)
        self.image_token = int(parts.config.image_token_id)
        texts = parts.tokenizer.convert_ids_to_tokens([
            self.image_token,
            parts.config.boi_token_index,
            parts.config.eoi_token_index,
        ])
        self._text = f"\n\n{texts[1]}{texts[0] * self._count}{texts[2]}\n\n"
        self.settings = settings_of(self._processor)

    def grid(self, width: int, height: int) -> Grid:
        """Always the same."""
        del width, height
        return Grid(1, self._count)

    def placeholder(self, width: int, height: int) -> str:
        """Always the same."""
        del width, height
        return self._text

    def pixels(self, width: int, height: int) -> int:
        """Those of the square."""
        del width, height
        return int(self._processor.size["width"] * self._processor.size["height"])

    def inputs(self, picture: Any) -> dict[str, Tensor]:  # noqa: ANN401 - of Pillow
        """The square."""
        size = self._processor.size["width"], self._processor.size["height"]
        picture = resized(picture, self._processor, size)
        made = self._processor(images=[[picture]], do_pan_and_scan=False, return_tensors="pt")
        return {"pixel_values": made["pixel_values"]}

    def join(self, inputs: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """One after another."""
        return {name: torch.cat([one[name] for one in inputs]) for name in inputs[0]}

    def axes(self, tokens: Integers, grids: Sequence[Grid]) -> None:
        """Positions are counted."""

    def features(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:  # noqa: ANN401
        """Of the square."""
        made = model.model.get_image_features(inputs["pixel_values"], return_dict=True)
        return (joined(made.pooler_output),)


FAMILIES: dict[str, type[Qwen | Idefics | Gemma]] = {
    "qwen2_vl": Qwen, "qwen2_5_vl": Qwen, "qwen3_vl": Qwen,
    "idefics3": Idefics, "smolvlm": Idefics,
    "gemma3": Gemma,
}  # fmt: skip
"""By the kind of model that a configuration names."""


def family_of(parts: Parts, max_pixels: int | None) -> Family:
    """The family of a model.

    Args:
        parts: Of the model.
        max_pixels: Most pixels of a resized picture; None takes the processor's own.

    Raises:
        ModelError: The family is not known.
        ConfigError: The model does not take so many pixels.
    """
    kind = str(parts.config.model_type)
    if kind not in FAMILIES:
        raise ModelError(
            f"--model {parts.name} is of the family {kind}, whose pictures are not known here; known are "
            f"{', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[kind](parts, max_pixels)


def runs(flags: "np.ndarray[Any, np.dtype[np.bool_]]") -> list[tuple[int, int, bool]]:
    """Begin, end and value of each stretch of equal flags."""
    if not len(flags):
        return []
    borders = [0, *(np.flatnonzero(flags[1:] != flags[:-1]) + 1).tolist(), len(flags)]
    return [(begin, end, bool(flags[begin])) for begin, end in pairwise(borders)]
