"""Features of the pictures of some rows: kept ones, those of shared passes, and those of too large pictures."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from holdwater.frameworks.transformers.picture_files import Picture
from holdwater.train.finetune.vision.backend import FeatureMaker
from holdwater.train.finetune.vision.cache import FeatureCache
from holdwater.train.finetune.vision.captured_tower import CapturedTower
from holdwater.train.finetune.vision.examples import PlacedPicture
from holdwater.train.finetune.vision.families import Grid
from holdwater.train.finetune.vision.loading import LoadedVision, load_vision_model
from holdwater.train.finetune.vision.tower_setup import static_tower_of
from holdwater.units import Bytes
from tests.small_vision_models import make_vision_model

pytest.importorskip("transformers", reason="Transformers is not installed")

SHAPES = (Grid(2, 4), Grid(3, 3), Grid(1, 2), Grid(6, 6))
"""The last one is larger than the tower's budgets."""


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> LoadedVision:
    """A small model with features for early layers."""
    folder = make_vision_model(tmp_path_factory.mktemp("models") / "qwen3_vl", "qwen3_vl")
    known = load_vision_model(str(folder), device="cpu", dtype=torch.float32)
    known.loaded.model.eval()
    return known


def rows() -> Any:
    """Two rows with decoded pictures of noise."""
    generator = torch.Generator().manual_seed(0)
    placed = []
    for number, grid in enumerate(SHAPES):
        pixels = torch.randn(4 * grid.height * grid.width, 1536, generator=generator)
        inputs = {
            "pixel_values": pixels,
            "image_grid_thw": torch.tensor([[1, 2 * grid.height, 2 * grid.width]]),
        }
        placed.append(PlacedPicture(Picture(b"", "noise"), grid, f"key {number}", inputs))
    return SimpleNamespace(pictures=(tuple(placed[:3]), tuple(placed[3:])))


def makers(known: LoadedVision, cache: FeatureCache | None) -> tuple[FeatureMaker, FeatureMaker]:
    """One that makes one at a time, and one whose tower takes several."""
    model, family = known.loaded.model, known.family
    static = static_tower_of(model, "cpu")
    assert static is not None
    tower = CapturedTower(static, (64, 128), device="cpu", dtype=torch.float32)
    return FeatureMaker(model, family, "cpu"), FeatureMaker(model, family, "cpu", cache=cache, tower=tower)


def scattered(maker: FeatureMaker, batch: Any) -> list[Tensor]:
    """The features of all pictures, in order, as a captured step gets them."""
    count = sum(one.features for row in batch.pictures for one in row)
    buffers = [torch.zeros(count + 1, 32) for _ in range(3)]
    with torch.no_grad():
        maker.scatter(batch, torch.arange(count), buffers)
    return [buffer[:-1] for buffer in buffers]


def close(found: list[Tensor], wanted: list[Tensor]) -> None:
    """The same but for rounding."""
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


class TestScatter:
    """Into buffers whose last row takes what belongs nowhere."""

    def test_without_a_tower_each_picture_has_a_pass(self, known: LoadedVision) -> None:
        """The same bits as one at a time."""
        plain, _ = makers(known, None)
        with torch.no_grad():
            wanted = plain.of_rows(rows())

        found = scattered(plain, rows())

        assert all(
            torch.equal(one, torch.cat(parts)) for one, parts in zip(found, zip(*wanted, strict=True), strict=True)
        )

    def test_features_are_those_of_single_passes(self, known: LoadedVision) -> None:
        """And decoded pictures are let go of."""
        plain, several = makers(known, None)
        batch = rows()

        close(scattered(several, batch), scattered(plain, rows()))

        assert all(one.inputs is None for row in batch.pictures for one in row)
        assert several.remark.endswith("% of the vision tower's passes was padding")

    def test_features_are_kept(self, known: LoadedVision) -> None:
        """What is found again has the same bits, and so has what is missing beside it."""
        cache = FeatureCache(Bytes(10_000_000))
        _, several = makers(known, cache)
        first = scattered(several, rows())
        other = rows()
        other.pictures[0][1].key = "another"

        again = scattered(several, other)

        assert all(torch.equal(one, same) for one, same in zip(first, again, strict=True))
        assert (cache.hits, cache.misses) == (3, 5)
        assert "passes was padding, vision cache: 37.5 % hits" in several.remark

    @pytest.mark.parametrize("kept", [False, True])
    @torch.no_grad()
    def test_features_reach_their_places(self, known: LoadedVision, kept: bool) -> None:
        """Made or kept, small or too large; all other places stay as they are."""
        plain, several = makers(known, FeatureCache(Bytes(10_000_000)) if kept else None)
        wanted = scattered(plain, rows())
        count = len(wanted[0])
        places = torch.randperm(2 * count, generator=torch.Generator().manual_seed(1))[:count]
        if kept:
            scattered(several, rows())
        buffers = [torch.full((2 * count + 1, 32), 7.0) for _ in wanted]

        several.scatter(rows(), places, buffers)

        close([buffer[places] for buffer in buffers], wanted)
        others = torch.ones(2 * count, dtype=torch.bool).index_fill(0, places, value=False)
        assert all((buffer[:-1][others] == 7.0).all() for buffer in buffers)
