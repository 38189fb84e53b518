"""The vision tower captured in budgets on a device: against its own code, in several packings, without allocations."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from holdwater.train.finetune.step.allocator_calls import AllocatorCalls
from holdwater.train.finetune.vision.budgets import Rule
from holdwater.train.finetune.vision.captured_tower import CapturedTower
from holdwater.train.finetune.vision.static_tower import Inputs, StaticTower
from holdwater.train.finetune.vision.tower_setup import static_tower_of
from tests.small_vision_models import features_of

transformers = pytest.importorskip("transformers", reason="Transformers is not installed")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

TEXT: dict[str, Any] = {
    "vocab_size": 500, "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip
QWEN: dict[str, Any] = {
    "depth": 4, "intermediate_size": 500, "num_heads": 4, "out_hidden_size": 128, "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}  # fmt: skip
SIGLIP: dict[str, Any] = {
    "hidden_size": 288, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4, "image_size": 64,
    "patch_size": 8,
}  # fmt: skip
IDS = {"image_token_id": 1, "video_token_id": 2, "vision_start_token_id": 3, "vision_end_token_id": 4}


def qwen2() -> Any:
    """Heads of 80, all of whose layers see the whole picture."""
    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0}
    vision = {
        "depth": 4, "embed_dim": 320, "hidden_size": 128, "num_heads": 4, "patch_size": 14, "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }  # fmt: skip
    return transformers.Qwen2VLConfig(text_config=TEXT | {"rope_parameters": rope}, vision_config=vision, **IDS)


def qwen2_5() -> Any:
    """Heads of 80, and windows in all layers but one."""
    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0}
    vision = QWEN | {"hidden_size": 320, "patch_size": 14, "window_size": 112, "fullatt_block_indexes": [2]}
    return transformers.Qwen2_5_VLConfig(text_config=TEXT | {"rope_parameters": rope}, vision_config=vision, **IDS)


def qwen3() -> Any:
    """Heads of 72, and features for early layers."""
    rope = {"rope_type": "default", "mrope_section": [8, 4, 4], "rope_theta": 10000.0, "mrope_interleaved": True}
    vision = QWEN | {
        "hidden_size": 288, "patch_size": 16, "deepstack_visual_indexes": [0, 2], "num_position_embeddings": 256,
    }  # fmt: skip
    return transformers.Qwen3VLConfig(
        text_config=TEXT | {"rope_parameters": rope, "head_dim": 32}, vision_config=vision, **IDS
    )


def idefics3() -> Any:
    """Tiles of 64 patches, and heads of 72."""
    return transformers.Idefics3Config(
        text_config=TEXT | {"model_type": "llama"}, vision_config=SIGLIP, scale_factor=2, image_token_id=1
    )


def gemma3() -> Any:
    """Squares of 64 patches, and heads of 72."""
    return transformers.Gemma3Config(
        text_config=TEXT | {"head_dim": 32, "layer_types": ["full_attention"]}, vision_config=SIGLIP,
        mm_tokens_per_image=16, image_token_index=1, boi_token_index=2, eoi_token_index=3,
    )  # fmt: skip


@pytest.fixture(params=[qwen2, qwen2_5, qwen3, idefics3, gemma3], ids=lambda make: make.__name__)
def model(request: pytest.FixtureRequest) -> Any:
    """A model of random weights on the device, in bfloat16."""
    torch.manual_seed(0)
    found = transformers.AutoModelForImageTextToText.from_config(request.param()).eval()
    if hasattr(found.model, "multi_modal_projector"):  # Gemma's begins with zeros
        nn.init.normal_(found.model.multi_modal_projector.mm_input_projection_weight)
    return found.to("cuda", torch.bfloat16)


def captured(model: Any) -> tuple[StaticTower, CapturedTower]:
    """The tower of a model, with three budgets."""
    tower = static_tower_of(model, "cuda")
    assert tower is not None
    budgets = (256, 512, 1024) if tower.unit == "patches" else (4, 8, 16)
    return tower, CapturedTower(tower, budgets, device="cuda", dtype=torch.bfloat16)


def pictures(tower: StaticTower, count: int, seed: int = 0) -> list[Inputs]:
    """Pictures of noise of mixed sizes."""
    sizes = (60, 100, 256, 16, 300, 36, 500) if tower.unit == "patches" else (1, 3, 2, 5)
    return [tower.example(sizes[(seed + number) % len(sizes)], seed + number) for number in range(count)]


@torch.no_grad()
def own(model: Any, one: Inputs) -> tuple[Tensor, ...]:
    """Features by Transformers' own code."""
    given = {name: value.cuda() for name, value in one.items()}
    given["pixel_values"] = given["pixel_values"].bfloat16()
    made = model.model.get_image_features(**given, return_dict=True)
    if isinstance(made.pooler_output, Tensor):
        return (made.pooler_output.flatten(0, 1),)
    return torch.cat(list(made.pooler_output)), *(getattr(made, "deepstack_features", None) or ())


def error(found: Tensor, wanted: Tensor) -> float:
    """The relative distance of two tensors."""
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


class TestCapturedTower:
    """One graph for each budget."""

    def test_features_are_those_of_transformers(self, model: Any) -> None:
        """To the rounding of bfloat16."""
        tower, fast = captured(model)
        assert fast.recording.enabled
        assert all(graph is not None for graph in fast.recording.graphs.values())
        some = pictures(tower, 9)

        found = features_of(fast, some)

        for one, made in zip(some, found, strict=True):
            assert made is not None
            for part, wanted in zip(made, own(model, one), strict=True):
                assert error(part, wanted) < 0.02

    def test_do_not_depend_on_what_shares_a_pass(
        self, model: Any, record_property: Callable[[str, object], None]
    ) -> None:
        """The same bits in three packings, by the rule that was found."""
        tower, fast = captured(model)
        some = pictures(tower, 7)
        record_property("packing", f"{model.config.model_type}: {fast}")

        together = features_of(fast, some)
        single = [features_of(fast, [one])[0] for one in some]
        turned = features_of(fast, [*pictures(tower, 3, seed=50), *reversed(some)])[3:]

        for one, other, third in zip(together, single, reversed(turned), strict=True):
            assert one is not None
            assert other is not None
            assert third is not None
            for part, same, also in zip(one, other, third, strict=True):
                assert torch.equal(part, same)
                assert torch.equal(part, also)

    @pytest.mark.parametrize("rule", Rule)
    def test_nothing_is_allocated(self, model: Any, rule: Rule) -> None:
        """In fifty micro-batches of mixed sizes, whatever shares a pass."""
        tower, fast = captured(model)
        fast.rule = rule
        width = features_of(fast, pictures(tower, 1))[0]
        assert width is not None
        buffers = [torch.zeros(4097, one.shape[1], dtype=torch.bfloat16, device="cuda") for one in width]
        calls = AllocatorCalls(enabled=True)
        for step in range(50):
            some = pictures(tower, 1 + step % 6, seed=step)
            counts = [tower.features(tower.size(one) or 0) for one in some]
            places = torch.split(torch.randperm(4096)[: sum(counts)], counts)
            calls.begin()
            assert fast.scatter(some, places, buffers) == []
            calls.end()

        assert calls.quiet == 50

    def test_features_reach_their_places(self, model: Any) -> None:
        """While more fills are under way than the host has memory for."""
        tower, fast = captured(model)
        some = pictures(tower, 24)
        counts = [tower.features(tower.size(one) or 0) for one in some]
        places = torch.split(torch.randperm(sum(counts)), counts)
        wanted = features_of(fast, some)
        assert wanted[0] is not None
        buffers = [one.new_zeros(sum(counts) + 1, one.shape[1]) for one in wanted[0]]

        assert fast.scatter(some, places, buffers) == []

        for where, made in zip(places, wanted, strict=True):
            assert made is not None
            for buffer, part in zip(buffers, made, strict=True):
                assert torch.equal(buffer[where.cuda()], part)
