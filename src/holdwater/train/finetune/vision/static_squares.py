"""Vision towers of squares of one size on tensors of fixed shapes: SigLIP in Gemma 3, Idefics3 and SmolVLM."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from holdwater.train.finetune.vision.families import Grid, joined
from holdwater.train.finetune.vision.static_tower import Inputs, Parts, TensorSpec

UNBOUNDED = 2**30
"""Pictures in a pass: its places are the only bound."""


class SquareTower:
    """Towers of squares of one size: SigLIP in Gemma 3."""

    unit = "pictures"
    step = 1

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - of Transformers
        """Take a model that is on its device."""
        config = model.config.vision_config
        self._model, self._dtype = model, next(model.model.vision_tower.parameters()).dtype
        self._shape = int(config.num_channels), int(config.image_size), int(config.image_size)
        self.patches = int(config.image_size // config.patch_size) ** 2
        self.most = UNBOUNDED
        self._count = int(model.config.mm_tokens_per_image)

    def places(self, grid: Grid) -> int:
        """One."""
        del grid
        return 1

    def size(self, inputs: Inputs) -> int | None:
        """One, if it has the size that all have."""
        return 1 if tuple(inputs["pixel_values"].shape[1:]) == self._shape else None

    def features(self, places: int) -> int:
        """As many for each."""
        return places * self._count

    def example(self, places: int, seed: int) -> Inputs:
        """A square of noise."""
        del places
        return {"pixel_values": _noise((1, *self._shape), seed)}

    def layout(self, budget: int) -> dict[str, TensorSpec]:
        """Pixels only."""
        return {"pixels": TensorSpec((budget, *self._shape), self._dtype)}

    def write(self, parts: Parts, pictures: Sequence[Inputs], budget: int) -> None:
        """One after another; squares do not see each other, so what lies in the other places does not matter."""
        del budget
        for at, one in enumerate(pictures):
            parts["pixels"][at].copy_(one["pixel_values"][0])

    def tensors(self) -> list[Tensor]:
        """None."""
        return []

    def ready(self) -> AbstractContextManager[object]:
        """Nothing is changed."""
        return nullcontext()

    def forward(self, parts: Parts, budget: int) -> tuple[Tensor, ...]:
        """By the model's own code."""
        del budget
        made = self._model.model.get_image_features(parts["pixels"], return_dict=True)
        return (joined(made.pooler_output),)


class TileTower:
    """Towers of the tiles of a picture: SigLIP in Idefics3 and SmolVLM, for tiles without padding."""

    unit = "tiles"
    step = 1

    def __init__(self, model: Any, device: torch.device | str) -> None:  # noqa: ANN401 - of Transformers
        """Take a model.

        Args:
            model: On its device, or moved there afterwards.
            device: Where the tower runs.
        """
        config = model.config.vision_config
        self._tower, self._connector = model.model.vision_model, model.model.connector
        self._weight = self._tower.embeddings.patch_embedding.weight
        self._shape = int(config.num_channels), int(config.image_size), int(config.image_size)
        self.patches = int(config.image_size // config.patch_size) ** 2
        self.most = UNBOUNDED
        self._count = self.patches // int(model.config.scale_factor) ** 2
        self._positions = self._position_ids().to(device)

    @torch.no_grad()
    def _position_ids(self) -> Tensor:
        """As the tower's own code makes them for a tile without padding. Shape (1, patches)."""
        if self._weight.is_meta:
            return torch.empty(1, self.patches, dtype=torch.int64, device="meta")
        found: list[Tensor] = []
        embeddings, edge = self._tower.embeddings, int(self.patches**0.5)
        hook = embeddings.position_embedding.register_forward_pre_hook(lambda _, given: found.append(given[0]))
        try:
            whole = torch.ones(1, edge, edge, dtype=torch.bool, device=self._weight.device)
            embeddings(pixel_values=self._weight.new_zeros(1, *self._shape), patch_attention_mask=whole)
        finally:
            hook.remove()
        return found[0]

    def places(self, grid: Grid) -> int:
        """One for each tile."""
        return grid.height

    def size(self, inputs: Inputs) -> int | None:
        """Its tiles; None if some have padding, or another size than the tower's own."""
        pixels, mask = inputs["pixel_values"], inputs.get("pixel_attention_mask")
        if tuple(pixels.shape[2:]) != self._shape or (mask is not None and not bool(mask.all())):
            return None
        return int(pixels.shape[1])

    def features(self, places: int) -> int:
        """As many for each."""
        return places * self._count

    def example(self, places: int, seed: int) -> Inputs:
        """Tiles of noise."""
        return {"pixel_values": _noise((1, places, *self._shape), seed)}

    def layout(self, budget: int) -> dict[str, TensorSpec]:
        """Pixels only."""
        return {"pixels": TensorSpec((budget, *self._shape), self._weight.dtype)}

    def write(self, parts: Parts, pictures: Sequence[Inputs], budget: int) -> None:
        """One after another; tiles do not see each other, so what lies in the other places does not matter."""
        del budget
        at = 0
        for one in pictures:
            tiles = one["pixel_values"][0]
            parts["pixels"][at : at + len(tiles)].copy_(tiles)
            at += len(tiles)

    def tensors(self) -> list[Tensor]:
        """Positions."""
        return [self._positions]

    def ready(self) -> AbstractContextManager[object]:
        """Nothing is changed."""
        return nullcontext()

    def forward(self, parts: Parts, budget: int) -> tuple[Tensor, ...]:
        """The steps of the tower's own code, without those that look for tiles and patches that are padding."""
        del budget
        embeddings = self._tower.embeddings
        hidden = embeddings.patch_embedding(parts["pixels"]).flatten(2).transpose(1, 2)
        hidden = hidden + embeddings.position_embedding(self._positions)
        hidden = self._tower.encoder(inputs_embeds=hidden, attention_mask=None).last_hidden_state
        return (self._connector(self._tower.post_layernorm(hidden)).flatten(0, 1),)


def _noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Pixels."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
