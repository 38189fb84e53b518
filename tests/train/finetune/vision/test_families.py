"""Small models of each family: tokens, losses and gradients are those of Transformers' own code."""

import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdwater.errors import ConfigError, DataError
from holdwater.frameworks.transformers.picture_files import Picture
from holdwater.train.finetune.data.examples import example_of
from holdwater.train.finetune.vision import families
from holdwater.train.finetune.vision.examples import PictureExample, PictureTokenizer, with_features
from holdwater.train.finetune.vision.kinds import KINDS
from holdwater.train.finetune.vision.loading import LoadedVision, is_vision_language, load_vision_model
from holdwater.train.finetune.vision.model import picture_loss
from holdwater.train.finetune.vision.packing import pack_pictures
from tests.small_vision_models import FAMILIES, make_vision_model

pytest.importorskip("transformers", reason="Transformers is not installed")
image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

SIZES = ((100, 60), (33, 70), (64, 64), (20, 20), (300, 40))


def picture(number: int) -> Picture:
    """A picture of noise."""
    width, height = SIZES[number]
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    image.fromarray(pixels).save(file, "PNG")
    return Picture(file.getvalue(), f"picture {number + 1}")


def conversation(pictures: int) -> list[dict[str, Any]]:
    """A question with some pictures, and its answer."""
    parts = [{"type": "image"}] * pictures + [{"type": "text", "text": "what is beside the square?"}]
    return [{"role": "user", "content": parts}, {"role": "assistant", "content": "a blue circle"}]


def example(known: LoadedVision, pictures: list[Picture]) -> PictureExample:
    """An example of such a conversation."""
    tokenizer = PictureTokenizer(known.loaded.tokenizer, known.family, [one.size() for one in pictures])
    plain = example_of({"messages": conversation(len(pictures))}, tokenizer)
    return with_features(plain, known.family, pictures, length=4096)


@pytest.fixture(scope="module", params=FAMILIES)
def known(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedVision:
    """A small model of each family."""
    folder = make_vision_model(tmp_path_factory.mktemp("models") / request.param, request.param)
    found = load_vision_model(str(folder), device="cpu", dtype=torch.float32)
    found.loaded.model.eval()
    return found


class TestTokens:
    """Against the processor of Transformers."""

    def test_are_those_of_the_processor(self, known: LoadedVision) -> None:
        """For one picture, and for several of other sizes."""
        for numbers in ([0], [1, 2, 4]):
            pictures = [picture(number) for number in numbers]
            mine = example(known, pictures)
            text = known.loaded.tokenizer.apply_chat_template(conversation(len(numbers)), tokenize=False)

            wanted = own_processor(known)(
                text=[text], images=[[one.load() for one in pictures]], add_special_tokens=False
            )["input_ids"][0]

            assert mine.tokens == list(wanted)
            assert sum(one.features for one in mine.pictures) == mine.tokens.count(known.family.image_token)


class TestResizing:
    """Pictures are resized before the processor sees them."""

    def test_gives_the_pixels_of_the_processor(self, known: LoadedVision, monkeypatch: pytest.MonkeyPatch) -> None:
        """To the bit: larger and smaller pictures, upright ones, and sizes that it rounds."""
        noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (601, 433, 3)).astype(np.uint8)
        pictures = [
            image.fromarray(noise[:height, :width]) for height, width in ((601, 433), (5, 7), (33, 433), (64, 63))
        ]
        found = [known.family.inputs(one) for one in pictures]
        monkeypatch.setattr(families, "resized", lambda picture, *_: picture)

        for one, inputs in zip(pictures, found, strict=True):
            wanted = known.family.inputs(one)
            assert inputs.keys() == wanted.keys()
            assert all(torch.equal(inputs[name], wanted[name]) for name in wanted)

    def test_makes_no_array_of_a_large_picture(self, known: LoadedVision, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its processor is handed a small one."""
        seen: list[tuple[int, int]] = []
        process = type(known.family._processor).__call__  # type: ignore[attr-defined]

        def called(processor: Any, images: Any, **options: Any) -> Any:
            first = images[0]
            seen.append((first[0] if isinstance(first, list) else first).size)
            return process(processor, images, **options)

        monkeypatch.setattr(type(known.family._processor), "__call__", called)  # type: ignore[attr-defined]
        known.family.inputs(image.new("RGB", (1200, 900)))

        assert max(seen[0]) < 300


class TestLosses:
    """Packed rows against the model's own code, one example at a time."""

    def test_loss_and_gradients_of_packed_rows(self, known: LoadedVision) -> None:
        """Examples with no, one and several pictures, in two rows."""
        model, family = known.loaded.model, known.family
        examples = [example(known, [picture(number) for number in numbers]) for numbers in ([0], [], [3, 1], [4])]
        length = (
            max(len(examples[0].tokens) + len(examples[1].tokens), sum(len(one.tokens) for one in examples[2:]))
            + 3
        )
        packed = pack_pictures([list(examples[:2]), list(examples[2:])], length)
        weight = next(
            one
            for name, one in model.named_parameters()
            if "layers.0.mlp.up_proj" in name and "vision" not in name
        )

        with torch.no_grad():
            features = [
                family.features(model, family.inputs(one.picture.load())) for row in packed.pictures for one in row
            ]
        mine = picture_loss(model, family, packed, features, chunk=7)
        (found,) = torch.autograd.grad(mine, [weight])

        own = torch.stack([own_loss(known, one) for one in examples]).sum()
        (wanted,) = torch.autograd.grad(own, [weight])
        assert mine.item() == pytest.approx(own.item(), rel=1e-5)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)

    def test_features_of_a_tower_that_learns_have_gradients(self, known: LoadedVision) -> None:
        """As by the model's own code."""
        model, family = known.loaded.model, known.family
        one = example(known, [picture(0)])
        weight = next(
            weight
            for name, weight in model.named_parameters()
            if "vis" in name and "weight" in name and weight.dim() == 2
        )

        features = [family.features(model, family.inputs(one.pictures[0].picture.load()))]
        mine = picture_loss(model, family, pack_pictures([[one]], len(one.tokens) + 2), features, chunk=64)
        (found,) = torch.autograd.grad(mine, [weight])

        (wanted,) = torch.autograd.grad(own_loss(known, one), [weight])
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


class TestPixels:
    """The bound of pixels, in each family's own terms."""

    def test_a_picture_keeps_within_it(self, tmp_path: Path) -> None:
        """Whatever its size."""
        for family, bound, largest in (
            ("qwen2_5_vl", 28 * 28 * 6, 28 * 28 * 6),
            ("idefics3", 64 * 64, 5 * 32 * 32),
        ):
            folder = make_vision_model(tmp_path / family, family)
            found = load_vision_model(str(folder), device="cpu", dtype=torch.float32, max_pixels=bound).family
            for size in ((8000, 6000), (300, 200), (100, 100)):
                assert 0 < found.pixels(*size) <= largest

    def test_a_picture_too_narrow_for_it_is_refused(self, tmp_path: Path) -> None:
        """Qwen's processor would leave it larger than the bound."""
        folder = make_vision_model(tmp_path / "model", "qwen2_5_vl")
        found = load_vision_model(str(folder), device="cpu", dtype=torch.float32, max_pixels=28 * 28 * 6).family

        with pytest.raises(DataError, match="30 × 5000"):
            found.grid(30, 5000)

    @pytest.mark.parametrize(
        ("family", "said"), [("qwen2_5_vl", "784"), ("idefics3", "1024"), ("gemma3", "32 × 32")]
    )
    def test_too_small_a_bound_says_the_least(self, tmp_path: Path, family: str, said: str) -> None:
        """In the model's own terms."""
        folder = make_vision_model(tmp_path / family, family)

        with pytest.raises(ConfigError, match=said):
            load_vision_model(str(folder), device="cpu", dtype=torch.float32, max_pixels=100)


def own_loss(known: LoadedVision, one: PictureExample) -> torch.Tensor:
    """The sum of an example's losses, by the model's own code."""
    family, tokens = known.family, torch.tensor([one.tokens])
    inputs: dict[str, Any] = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if one.pictures:
        inputs |= family.join([family.inputs(placed.picture.load()) for placed in one.pictures])
    if family.kinds_name:
        inputs[family.kinds_name] = (tokens == family.image_token).long()
    logits = known.loaded.model(**inputs).logits[0, :-1].float()
    targets = torch.tensor([token if yes else -100 for token, yes in zip(one.tokens, one.learned, strict=True)])[
        1:
    ]
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")


def own_processor(known: LoadedVision) -> Any:
    """Transformers' processor of a family, without what it needs for videos."""
    kind = known.loaded.model.config.model_type
    name = {"qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL", "idefics3": "Idefics3", "smolvlm": "SmolVLM",
            "gemma3": "Gemma3"}[kind]  # fmt: skip
    module: Any = importlib.import_module(f"transformers.models.{kind}.processing_{kind}")
    if kind == "smolvlm":
        module.num2words = str  # is only needed for videos
    kind_of = getattr(module, f"{name}Processor")
    unchecked = type("Unchecked", (kind_of,), {"check_argument_for_proper_class": lambda *_: object})
    sizes = {"gemma3": {"image_seq_length": 4}, "idefics3": {"image_seq_len": 4}, "smolvlm": {"image_seq_len": 4}}
    options = {} if kind in {"idefics3", "gemma3"} else {"video_processor": None}
    family: Any = known.family
    return unchecked(
        image_processor=family._processor, tokenizer=known.loaded.tokenizer, **options, **sizes.get(kind, {})
    )


class TestKinds:
    """The list of known kinds, which is read without loading anything."""

    def test_is_that_of_the_families(self) -> None:
        """Neither has one that the other lacks."""
        assert set(families.FAMILIES) == KINDS

    @pytest.mark.parametrize("text", ["", "[1]", "{}", '{"model_type": "llama"}', None])
    def test_others_take_no_pictures(self, tmp_path: Path, text: str | None) -> None:
        """Nor does a folder without a configuration that can be read."""
        if text is not None:
            (tmp_path / "config.json").write_text(text)

        assert not is_vision_language(str(tmp_path))
