"""The parts of a plan of a run on pictures: sizes, the tower's pass, the captured tower, the cache in memory."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from holdwater.errors import NothingFits
from holdwater.train.finetune.fused.decoder import StepPlan
from holdwater.train.finetune.planner import CachingAllocator
from holdwater.train.finetune.planner.plan import choose_settings
from holdwater.train.finetune.vision.loading import load_vision_model, part_of
from holdwater.train.finetune.vision.planning.device import VisionPlanned, vision_planned_of
from holdwater.train.finetune.vision.planning.sizes import PictureSize, PictureSizes, size_of, sizes_without_data
from holdwater.train.finetune.vision.planning.tower import (
    CapturedTowerPlan,
    PictureTrace,
    TowerPlan,
    blank_inputs,
    trace_tower,
)
from holdwater.units import Bytes
from tests.small_vision_models import FAMILIES, make_vision_model

pytest.importorskip("transformers", reason="Transformers is not installed")
image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

SMALL, LARGE = PictureSize(56, 56, 16, 4), PictureSize(112, 112, 64, 16)


def sizes(**more: Any) -> PictureSizes:
    """Of two pictures."""
    own = {"density": 0.5, "in_example": 16, "decoding": 1000}
    return PictureSizes(SMALL, SMALL, LARGE, LARGE, **own | more)


def planned_of(folder: Path, family: str, given: PictureSizes | None = None, **more: Any) -> VisionPlanned:
    """A small model on the meta device, for rows of 128 tokens."""
    tuning = {
        "model": str(make_vision_model(folder / "model", family)), "lora_rank": 4, "lora_alpha": None,
        "lora_dropout": 0.0, "lora_targets": None, "lora_layers": None, "quantize": None, "max_pixels": None,
        "adapt_vision": False, "adapt_projector": False, "vision_cache": None, "vision_cache_folder": None,
        "distrust": "off", "learn": "answers", "bad_pictures": "stop",
    }  # fmt: skip
    settings: Any = SimpleNamespace(train_seq_length=128, batch_size=2, data=None)
    asked: Any = SimpleNamespace(**tuning | more)
    return vision_planned_of(settings, asked, given)


class TestSizes:
    """Of pictures."""

    @pytest.mark.parametrize("family", FAMILIES)
    def test_without_data_the_largest_that_a_row_holds_is_taken(self, tmp_path: Path, family: str) -> None:
        """No picture of any shape has more patches and fits."""
        loaded, known = load_vision_model(
            str(make_vision_model(tmp_path / "model", family)), device="meta", dtype=torch.bfloat16
        )
        patch = loaded.model.config.vision_config.patch_size

        found = sizes_without_data(known, length=16, patch=patch)

        others = [size_of(known, side, side // 2, patch=patch) for side in range(40, 400, 20)]
        assert found.largest.tokens <= 16
        assert found.largest.patches >= max(one.patches for one in others if one.tokens <= 16)

    def test_rows_hold_as_many_tokens_of_pictures_as_examples_have_for_each_token(self) -> None:
        """At least those of one example, and at most the whole row."""
        assert sizes().in_rows(2, 100) == 100
        assert sizes(density=0.01).in_rows(2, 100) == 32
        assert sizes(density=2.0).in_rows(2, 100) == 200


class TestTower:
    """Its pass over a picture."""

    @pytest.mark.parametrize("family", FAMILIES)
    def test_the_trace_makes_the_features_that_a_run_makes(self, tmp_path: Path, family: str) -> None:
        """As many, of the same width; and asks for nothing that it does not give back."""
        folder = str(make_vision_model(tmp_path / "model", family))
        loaded, known = load_vision_model(folder, device="cpu", dtype=torch.float32)
        on_meta = load_vision_model(folder, device="meta", dtype=torch.float32).loaded.model
        inputs = blank_inputs(known, PictureSize(100, 60, 0, 0))

        found = trace_tower(on_meta, known, inputs)

        with torch.no_grad():
            features = known.features(loaded.model, inputs)
        assert found.features == tuple(one.nbytes for one in features)
        assert sum(1 if event.size else -1 for event in found.trace.events) == 0
        assert found.peak > sum(found.features)

    def test_features_of_other_pictures_wait_meanwhile(self, tmp_path: Path) -> None:
        """As many as the rows hold besides the largest."""
        planned = planned_of(tmp_path, "qwen2_5_vl", sizes())
        tower = planned.tower

        assert isinstance(tower, TowerPlan)
        width = planned.feature_bytes_of_token
        assert tower.held(2) == (2 * 64 - LARGE.tokens) // SMALL.tokens * SMALL.tokens * width

    def test_everything_is_given_back(self, tmp_path: Path) -> None:
        """Nothing stays but what is reserved."""
        tower, allocator = planned_of(tmp_path, "gemma3", sizes()).tower, CachingAllocator()

        tower.replay(allocator, 2)

        assert allocator.allocated == 0
        assert allocator.reserved > 0

    def test_a_captured_tower_keeps_buffers_and_its_pool(self, tmp_path: Path) -> None:
        """The largest pass comes first, so that the pool serves the others; later steps ask for nothing."""
        planned = planned_of(tmp_path, "qwen3_vl", sizes())
        passes: list[PictureTrace] = [planned._picture(size) for size in (LARGE, SMALL)]
        alone, both = (CapturedTowerPlan(some, buffers=[4096]) for some in (passes[:1], passes))
        one, other = CachingAllocator(), CachingAllocator()

        pools = alone.start(one), both.start(other)
        both.replay(other, 2)

        assert pools[0] == pools[1] > 0
        assert other.allocated > 4096  # and the workspace
        assert both.held(2) == 0


class TestDevice:
    """The whole plan."""

    def test_each_weight_belongs_to_one_part(self) -> None:
        """By its name in the families."""
        assert part_of("model.visual.blocks.0.attn.qkv.weight") == "tower"
        assert part_of("model.visual.merger.mlp.0.weight") == "projector"
        assert part_of("model.language_model.layers.0.mlp.up_proj.weight") == "text"
        assert part_of("lm_head.weight") == "head"

    def test_few_bits_are_of_the_language_model_only(self, tmp_path: Path) -> None:
        """Tower and projector stay as they are."""
        whole = planned_of(tmp_path, "qwen3_vl", sizes()).peak(StepPlan(rows=2)).roles
        few = planned_of(tmp_path, "qwen3_vl", sizes(), quantize=4).peak(StepPlan(rows=2)).roles

        assert few["weights"] < whole["weights"]
        assert few["vision tower"] == whole["vision tower"]
        assert few["projector"] == whole["projector"]

    def test_more_rows_take_more(self, tmp_path: Path) -> None:
        """Of the step and of the feature buffers; the tower's pass is that of one picture."""
        planned = planned_of(tmp_path, "qwen2_5_vl", sizes())
        one, four = (planned.peak(StepPlan(rows=rows)).roles for rows in (1, 4))

        assert 3.9 * one["feature buffers"] < four["feature buffers"] < 4 * one["feature buffers"]
        assert four["activations"] > 3 * one["activations"]
        assert four["vision tower"] == one["vision tower"]


class TestSettled:
    """How a run on a CUDA device takes its steps."""

    @pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3"])
    def test_micro_batches_become_smaller_where_memory_is_short(self, tmp_path: Path, family: str) -> None:
        """Those of fused steps; others are refused."""
        planned = planned_of(tmp_path, family, sizes())
        whole = planned.peak(StepPlan(rows=4)).needed

        assert choose_settings(planned, rows=4, limit=whole).step.rows == 4
        if planned.fused is None:
            with pytest.raises(NothingFits, match="a smaller --batch-size"):
                choose_settings(planned, rows=4, limit=Bytes(whole - (1 << 20)))
        else:
            found = choose_settings(planned, rows=4, limit=Bytes(whole - (1 << 20)))
            assert found.step.rows < 4 or found.step.recomputed > 0 or found.step.offloaded
            assert found.peak.needed <= whole - (1 << 20)
