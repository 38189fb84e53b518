"""Passes of the vision tower with several pictures: features are those of Transformers' own code, one at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from holdwater.train.finetune.vision.budgets import Rule
from holdwater.train.finetune.vision.captured_tower import CapturedTower
from holdwater.train.finetune.vision.families import Grid
from holdwater.train.finetune.vision.loading import LoadedVision, load_vision_model
from holdwater.train.finetune.vision.static_patches import PatchTower
from holdwater.train.finetune.vision.tower_setup import Sampled, capture_tower, static_tower_of
from tests.small_vision_models import FAMILIES, features_of, make_vision_model

pytest.importorskip("transformers", reason="Transformers is not installed")
image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

SIZES = ((100, 60), (33, 70), (64, 64), (20, 20), (300, 40), (130, 130), (200, 200))
"""Windows of four features a side are cut by most of their borders."""
Known = tuple[LoadedVision, CapturedTower]


def known_of(folder: Path, family: str) -> Known:
    """A small model, and its tower with two budgets."""
    known = load_vision_model(str(make_vision_model(folder, family)), device="cpu", dtype=torch.float32)
    model = known.loaded.model.eval()
    if family == "gemma3":  # its projector begins with zeros
        torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)
    tower = static_tower_of(model, "cpu")
    assert tower is not None
    budgets = {"patches": (64, 192), "tiles": (5, 12), "pictures": (2, 5)}[tower.unit]
    return known, CapturedTower(tower, budgets, device="cpu", dtype=torch.float32)


@pytest.mark.parametrize("family", [one for one in FAMILIES if one != "qwen2_5_vl"])  # pads weights on the device
def test_what_a_tower_keeps_lies_on_its_device(family: str, tmp_path: Path) -> None:
    """It is made before the model is moved there."""
    known = load_vision_model(str(make_vision_model(tmp_path / family, family)), device="cpu", dtype=torch.float32)

    tower = static_tower_of(known.loaded.model, "meta")

    assert tower is not None
    assert [one for one in tower.tensors() if not one.is_meta] == []


def captured_for(model: Any, sampled: Sequence[Sampled]) -> CapturedTower | None:
    """The tower of a model, for some examples."""
    tower = static_tower_of(model, "cpu")
    return capture_tower(tower, sampled, device="cpu", dtype=torch.float32, tokens=100)


@pytest.fixture(scope="module", params=FAMILIES)
def known(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Known:
    """A small model of each family."""
    return known_of(tmp_path_factory.mktemp("models") / request.param, request.param)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """A small model whose pictures differ in size."""
    return known_of(tmp_path_factory.mktemp("models") / "qwen2_5_vl", "qwen2_5_vl")


def inputs(known: LoadedVision, *numbers: int) -> list[dict[str, Tensor]]:
    """Pictures of noise, as the family takes them."""
    found = []
    for number in numbers:
        width, height = SIZES[number]
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        found.append(known.family.inputs(image.fromarray(pixels)))
    return found


@torch.no_grad()
def own(known: LoadedVision, pictures: list[dict[str, Tensor]]) -> list[tuple[Tensor, ...]]:
    """Features by Transformers' own code, one picture at a time."""
    return [known.family.features(known.loaded.model, one) for one in pictures]


def close(found: Any, wanted: Any) -> None:
    """The same but for rounding."""
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


class TestFeatures:
    """Of pictures of mixed sizes."""

    @pytest.mark.parametrize("rule", Rule)
    def test_are_those_of_transformers(self, known: Known, rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
        """In every packing, with padding; those for early layers among them."""
        loaded, tower = known
        monkeypatch.setattr(tower, "rule", rule)
        pictures = inputs(loaded, 0, 1, 2, 3, 4, 5)

        found = features_of(tower, pictures)

        for made, wanted in zip(found, own(loaded, pictures), strict=True):
            assert made is not None
            assert wanted[0].abs().max() > 0.01
            close(made, wanted)

    def test_do_not_depend_on_what_earlier_passes_left(self, known: Known) -> None:
        """A short fill after a full one."""
        loaded, tower = known
        features_of(tower, inputs(loaded, 0, 4, 5))
        pictures = inputs(loaded, 3)

        (found,) = features_of(tower, pictures)

        close(found, own(loaded, pictures)[0])

    def test_leave_the_model_as_it_was(self, known: Known) -> None:
        """Its own code goes on with its own attention."""
        loaded, tower = known
        pictures = inputs(loaded, 2)
        before = own(loaded, pictures)
        features_of(tower, pictures)

        after = own(loaded, pictures)

        assert all(torch.equal(one, other) for one, other in zip(before[0], after[0], strict=True))


class TestPlaces:
    """Features go to the rows that they are meant for."""

    def test_are_filled(self, known: Known) -> None:
        """All others stay as they are, but for the last one."""
        loaded, tower = known
        pictures = inputs(loaded, 1, 0, 3)
        wanted = own(loaded, pictures)
        counts = [len(one[0]) for one in wanted]
        places = torch.randperm(2 * sum(counts), generator=torch.Generator().manual_seed(0))[: sum(counts)]
        buffers = [torch.full((2 * sum(counts) + 1, one.shape[1]), 7.0) for one in wanted[0]]
        kept: dict[int, tuple[Tensor, ...]] = {}

        left = tower.scatter(
            pictures,
            torch.split(places, counts),
            buffers,
            lambda number, made: kept.update({number: tuple(one.clone() for one in made)}),
        )

        assert left == []
        assert sorted(kept) == [0, 1, 2]
        for kind, buffer in enumerate(buffers):
            close([buffer[places]], [torch.cat([one[kind] for one in wanted])])
            others = torch.ones(len(buffer), dtype=torch.bool).index_fill(0, places, value=False)
            assert (buffer[others][:-1] == 7.0).all()
        for number, made in kept.items():
            close(made, wanted[number])

    def test_a_picture_that_is_too_large_is_left(self, qwen: Known) -> None:
        """Its own pass is the caller's."""
        loaded, tower = qwen
        pictures = inputs(loaded, 3, 6)[:2]
        pictures[1] = pictures[1] | {"pixel_values": torch.zeros(tower.budgets[-1] + 4, 1176)}
        buffers = [torch.zeros(9, 32)]

        left = tower.scatter(pictures, [torch.tensor([4]), torch.arange(0)], buffers)

        assert left == [1]
        assert features_of(tower, pictures)[1] is None
        close([buffers[0][4:5]], own(loaded, pictures[:1])[0])

    def test_nothing_for_no_pictures(self, qwen: Known) -> None:
        """A micro-batch of text."""
        _, tower = qwen

        assert tower.scatter([], [], [torch.zeros(3, 32)]) == []


class TestStart:
    """Of a run: budgets from its examples, or one picture at a time."""

    SAMPLED = (Sampled(80, (Grid(4, 4),)), Sampled(40, ()), Sampled(90, (Grid(2, 3), Grid(8, 8))))

    def test_has_budgets_for_its_examples(self, qwen: Known) -> None:
        """In multiples of 64 patches here."""
        tower = captured_for(qwen[0].loaded.model, self.SAMPLED)

        assert tower is not None
        assert tower.budgets == (64, 256, 320)
        assert tower.remark == ""

    def test_goes_on_where_a_pass_fails(
        self, qwen: Known, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """And says so."""
        model = qwen[0].loaded.model

        def fail(*_: Any, **__: Any) -> None:
            """As a kernel that a device lacks."""
            raise RuntimeError("no such kernel\nmore")

        monkeypatch.setattr(model.model.visual.blocks[0], "forward", fail)

        assert captured_for(model, self.SAMPLED) is None
        assert (
            "the vision tower cannot be captured (no such kernel): it takes one picture at a time" in caplog.text
        )

    def test_needs_no_tower_for_text(self, qwen: Known) -> None:
        """Nothing is allocated."""
        assert captured_for(qwen[0].loaded.model, self.SAMPLED[1:2]) is None


class TestPadding:
    """How much of the passes is empty."""

    def test_is_said(self, tmp_path: Path) -> None:
        """As a share of all places."""
        loaded, tower = known_of(tmp_path / "model", "qwen2_5_vl")
        assert tower.remark == ""

        features_of(tower, inputs(loaded, 0))

        assert (tower.taken, tower.places) == (32, 64)
        assert tower.remark == ", 50.0 % of the vision tower's passes was padding"
        assert str(tower).startswith("passes of 64, 192 patches; ")

    @pytest.mark.parametrize("shapes", [[(1, 1)] * 32, [(1, 9)] * 5, [(5, 5), (4, 4)], [(1, 48)]])
    def test_windows_have_room(self, qwen: Known, shapes: list[tuple[int, int]]) -> None:
        """Also where narrow pictures have many; borders never fall, and end at the budget."""
        tower = static_tower_of(qwen[0].loaded.model, "cpu")
        assert isinstance(tower, PatchTower)
        parts = {name: torch.zeros(part.shape, dtype=part.dtype) for name, part in tower.layout(192).items()}
        pictures = [
            {
                "pixel_values": torch.zeros(4 * rows * columns, 1176),
                "image_grid_thw": torch.tensor([[1, 2 * rows, 2 * columns]]),
            }
            for rows, columns in shapes
        ]

        tower.write(parts, pictures, 192)

        assert sorted(parts["window_index"].tolist()) == list(range(48))
        for name in ("cu_seqlens", "cu_window_seqlens"):
            steps = parts[name].diff()
            assert (steps >= 0).all()
            assert parts[name][-1] == 192
        assert parts["cu_window_seqlens"].diff().max() <= 16
