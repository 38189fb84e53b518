"""Vision-language models that are trained by Transformers' own processors: losses, spans, resume, and refusals."""

import importlib.util
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from holdwater.errors import ConfigError, DataError, ModelError
from holdwater.store.checkpoints import CheckpointFolder
from holdwater.train.finetune.model.lora import adapters
from holdwater.train.finetune.vision import generic_backend
from holdwater.train.finetune.vision.generic_backend import row_loss
from holdwater.train.finetune.vision.generic_corpus import GenericCorpus
from holdwater.train.finetune.vision.generic_loading import (
    LoadedGeneric,
    image_token_of,
    learns_from_pictures,
    load_generic,
)
from holdwater.train.finetune.vision.generic_packing import lay_out_rows
from holdwater.train.finetune.vision.generic_state import GenericVisionState, new_generic_tuning
from tests.small_generic_models import GENERIC, make_generic_model
from tests.vision_runs import learn, settings_of

pytest.importorskip("transformers", reason="Transformers is not installed")
image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

LENGTH = 200
SIZES = ((40, 90), (100, 30), (64, 64), (70, 20))


def write_rows(folder: Path, count: int = 8) -> Path:
    """Examples with a picture of noise each."""
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(count):
            draw_picture(folder / f"{number}.png", number)
            row = {
                "image": f"{number}.png",
                "prompt": "what is in this picture?",
                "completion": f"a {number} square",
            }
            file.write(json.dumps(row) + "\n")
    return folder / "rows.jsonl"


def draw_picture(path: Path, number: int) -> None:
    """A picture of noise, of one of several sizes."""
    width, height = SIZES[number % len(SIZES)]
    noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
    image.fromarray(noise).save(path)


def made(folder: Path, family: str = "llava", **flags: Any) -> GenericVisionState:
    """A state from flags; the model and the examples are made where they are not there yet."""
    if not (folder / family).exists():
        make_generic_model(folder / family, family)
    if not (folder / "rows.jsonl").exists():
        write_rows(folder)
    settings = settings_of(folder, family, length=LENGTH, **flags)
    assert settings.tuning is not None
    return new_generic_tuning(settings, settings.tuning)


@pytest.fixture(scope="module", params=GENERIC)
def known(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedGeneric:
    """A small model of each family."""
    folder = make_generic_model(tmp_path_factory.mktemp("models") / request.param, request.param)
    found = load_generic(str(folder), device="cpu", dtype=torch.float32)
    found.loaded.model.eval()
    return found


def own_inputs(known: LoadedGeneric, row: dict[str, Any], pictures: list[Any]) -> dict[str, torch.Tensor]:
    """What Transformers' own processor gives for a row; labels are those of the answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of numpy, about Transformers
        return _own_inputs(known, row, pictures)


def _own_inputs(known: LoadedGeneric, row: dict[str, Any], pictures: list[Any]) -> dict[str, torch.Tensor]:
    """As `own_inputs`."""
    processor, tokenizer = known.processor.processor, known.loaded.tokenizer
    if known.processor.has_suffix:
        text = "<image>" * len(pictures) + row["prompt"]
        return dict(processor(text=[text], images=[pictures], suffix=[row["completion"]], return_tensors="pt"))
    parts = [{"type": "image"}] * len(pictures) + [{"type": "text", "text": row["prompt"]}]
    messages = [{"role": "user", "content": parts}]
    asked = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    text = asked + row["completion"] + "<|im_end|>\n"
    made = dict(processor(text=[text], images=[pictures], add_special_tokens=False, return_tensors="pt"))
    answer = len(tokenizer.encode(row["completion"] + "<|im_end|>\n", add_special_tokens=False))
    made["labels"] = made["input_ids"].clone()
    made["labels"][:, :-answer] = -100
    return made


class TestLosses:
    """Padded rows against the model's own forward with labels."""

    @pytest.mark.parametrize("plain", [True, False])
    def test_loss_and_gradients(
        self, known: LoadedGeneric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: bool
    ) -> None:
        """For one picture, and for several of other sizes; from hidden states, and from logits."""
        if not plain:
            monkeypatch.setattr(generic_backend, "has_plain_head", lambda _: False)
        model, takes = known.loaded.model, known.processor.takes
        rows = []
        for numbers in ([0], [1, 2]):
            for number in numbers:
                draw_picture(tmp_path / f"{number}.png", number)
            names = [f"{number}.png" for number in numbers]
            rows.append({"images": names, "prompt": "what is beside it?", "completion": "a blue circle"})
        (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        corpus = GenericCorpus(tmp_path / "rows.jsonl", known.processor, length=LENGTH)
        weight = next(
            one for name, one in model.named_parameters() if "layers.0.mlp.up_proj" in name and "vis" not in name
        )

        for number, row in enumerate(rows):
            packed = lay_out_rows([corpus[number]], LENGTH, padding=known.processor.padding)
            mine = row_loss(model, takes, packed, chunk=7)
            (found,) = torch.autograd.grad(mine, [weight])
            pictures = [image.open(tmp_path / name) for name in row["images"]]
            inputs = own_inputs(known, row, pictures)
            counted = int((inputs["labels"][:, 1:] != -100).sum())
            own = model(**{name: one for name, one in inputs.items() if name in takes | {"labels"}}).loss * counted
            (wanted,) = torch.autograd.grad(own, [weight])

            assert packed.learned == counted
            assert mine.item() == pytest.approx(own.item(), rel=1e-5)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)

    def test_answers_of_a_longer_conversation(self, tmp_path: Path) -> None:
        """Pictures of LLaVA-OneVision have fewer tokens where there are several; answers are found all the same."""
        folder = make_generic_model(tmp_path / "model", "llava_onevision")
        loaded, processor = load_generic(str(folder), device="cpu", dtype=torch.float32)
        messages: list[dict[str, Any]] = []
        for number, answer in enumerate(("a red square", "a blue circle")):
            draw_picture(tmp_path / f"{number}.png", number)
            parts = [{"type": "image", "image": f"{number}.png"}, {"type": "text", "text": "what is it?"}]
            messages += [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]
        (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": messages}) + "\n")

        example = GenericCorpus(tmp_path / "rows.jsonl", processor, length=LENGTH)[0]

        learned = [token for token, yes in zip(example.tokens, example.learned, strict=True) if yes]
        said = "a red square<|im_end|>\na blue circle<|im_end|>\n"
        assert loaded.tokenizer.decode(learned) == said
        assert example.tokens.count(processor.image_token) == 2 * 17

    def test_an_answer_is_never_part_of_its_question(self, tmp_path: Path) -> None:
        """PaliGemma sees all of what is not named as the answer at once, so a chat template is not used."""
        folder = make_generic_model(tmp_path / "model", "paligemma")
        (folder / "chat_template.jinja").write_text("{{ messages[0].role }}")
        processor = load_generic(str(folder), device="cpu", dtype=torch.float32).processor

        example = GenericCorpus(write_rows(tmp_path, 2), processor, length=LENGTH)[1]

        kinds = example.inputs["token_type_ids"][0].tolist()
        assert [bool(kind) for kind in kinds] == example.learned
        learned = [token for token, yes in zip(example.tokens, example.learned, strict=True) if yes]
        assert processor.tokenizer.decode(learned) == "a 1 square</s>"

    def test_structure_of_answers_is_left_out(self, tmp_path: Path) -> None:
        """As for other models: the values of JSON are learned."""
        draw_picture(tmp_path / "0.png", 0)
        row = {"image": "0.png", "prompt": "what is it?", "completion": '{"colour": "blue"}'}
        (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row) + "\n")
        state = made(tmp_path, "internvl", selective_loss="json")

        batch = state.batches.draw("cpu")

        assert state.examples.selective.structure_tokens > 0
        learned = [token for token in batch.targets[0].tolist() if token != -100]
        assert "blue" in state.loaded.tokenizer.decode(learned)
        assert "{" not in state.loaded.tokenizer.decode(learned)


class TestRuns:
    """What `holdwater train` makes of them."""

    @pytest.mark.parametrize("family", ["llava_onevision", "paligemma"])
    def test_go_on_to_the_bit(self, tmp_path: Path, family: str) -> None:
        """From a checkpoint; the loss falls, and only the language model has adapters."""
        state = made(tmp_path, family)
        names = [name for name, _ in adapters(state.loaded.model)]
        first = learn(state, 5)
        folder = CheckpointFolder(tmp_path / "checkpoints")
        state.save(folder, best=True)
        straight = learn(state, 6)

        other = made(tmp_path, family)
        newest = folder.newest(print)
        assert newest is not None
        other.load(newest)

        assert learn(other, 6) == straight
        assert sum(straight[-3:]) < sum(first[:3])
        assert all(name.startswith("model.language_model.") for name in names)
        assert "what is in this picture?" in other.sample(4).split(" → ")[0]
        assert other.evaluate() == other.evaluate()

    def test_a_tower_that_learns(self, tmp_path: Path) -> None:
        """Gets adapters when that is asked for, and gradients."""
        state = made(tmp_path, adapt_vision="yes", adapt_projector="yes", quantize=8)
        found = list(adapters(state.loaded.model))

        learn(state, 1)

        parts = {name.split(".")[1] for name, _ in found}
        assert parts == {"language_model", "vision_tower", "multi_modal_projector"}
        assert any(one.lora_B.any() for name, one in found if "vision_tower" in name)

    def test_bad_pictures_are_passed_over(self, tmp_path: Path) -> None:
        """Where that is asked for; else the example is named."""
        write_rows(tmp_path)
        (tmp_path / "3.png").write_bytes(b"no picture")

        state = made(tmp_path, bad_pictures="skip")
        learn(state, 4)

        assert "1 examples were passed over" in state.remarks
        with pytest.raises(DataError, match="example 4"):
            made(tmp_path).check_data()

    @pytest.mark.parametrize(
        ("family", "flags", "said"),
        [
            ("llava", {"max_pixels": 1000}, "max_pixels is 1000, but the pictures of this family"),
            ("llava", {"vision_cache": "1GB"}, "vision_cache is .* within their own forward"),
            ("llava", {"lora_rank": 0}, "only adapters are trained"),
            ("paligemma", {"learn": "everything"}, "sees its question as a whole"),
        ],
    )
    def test_settings_that_cannot_be(self, tmp_path: Path, family: str, flags: dict[str, Any], said: str) -> None:
        """Are refused by name."""
        with pytest.raises(ConfigError, match=said):
            made(tmp_path, family, **flags)

    def test_pictures_that_would_be_cut_are_refused(self, tmp_path: Path) -> None:
        """With what to do."""
        with pytest.raises(DataError, match=r"example \d+: its pictures end at token \d+, but a row has 12"):
            made(tmp_path, train_seq_length=12)


class TestModels:
    """Which models are trained so, and which cannot be."""

    def test_those_that_are_causal_language_models_too(self, tmp_path: Path) -> None:
        """Learn from pictures where the data has some."""
        rows = write_rows(tmp_path, 2)
        text = tmp_path / "text.jsonl"
        text.write_text('{"prompt": "what", "completion": "that"}\n')

        def learns(kind: str, data: Path | None) -> bool:
            (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
            return learns_from_pictures(str(tmp_path), None if data is None else str(data))

        assert learns("qwen3_5", rows)
        assert not learns("qwen3_5", text)
        assert not learns("qwen3_5", None)
        assert learns("llava", text)
        assert not learns("qwen3_vl", rows)
        assert not learns("llama", rows)

    def test_without_a_processor(self, tmp_path: Path) -> None:
        """It is said which files are missing."""
        folder = make_generic_model(tmp_path / "model", "llava")
        (folder / "preprocessor_config.json").unlink()
        (folder / "processor_config.json").unlink()

        with pytest.raises(ModelError, match=r"no processor of pictures; copy processor_config\.json"):
            load_generic(str(folder), device="cpu", dtype=torch.float32)

    @pytest.mark.parametrize(
        ("file", "name", "value"),
        [
            ("processor_config.json", "processor_class", "PixtralProcessor"),
            ("preprocessor_config.json", "image_processor_type", "Llama4ImageProcessorFast"),
        ],
    )
    def test_that_needs_torchvision(self, tmp_path: Path, file: str, name: str, value: str) -> None:
        """It is said which part needs it."""
        if importlib.util.find_spec("torchvision") is not None:
            pytest.skip("torchvision is installed")
        folder = make_generic_model(tmp_path / "model", "llava")
        settings = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(settings | {name: value}))

        with pytest.raises(ModelError, match=rf"{value.removesuffix('Fast')}.* needs torchvision"):
            load_generic(str(folder), device="cpu", dtype=torch.float32)

    def test_without_a_token_for_pictures(self) -> None:
        """Such as GIT, whose pictures stand before the text."""
        parts: Any = SimpleNamespace(name="x", config=SimpleNamespace(model_type="git"))

        with pytest.raises(ModelError, match="family git and has no token that stands for a picture"):
            image_token_of(parts, SimpleNamespace())

    def test_with_an_encoder(self, tmp_path: Path) -> None:
        """Answers are not in one text with the question."""
        folder = make_generic_model(tmp_path / "model", "llava")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"is_encoder_decoder": True}))

        with pytest.raises(ModelError, match="an encoder and a decoder"):
            load_generic(str(folder), device="cpu", dtype=torch.float32)

    def test_whose_processor_does_not_belong_to_it(self, tmp_path: Path) -> None:
        """The model is tried before the run, and what its code says is told."""
        folder = make_generic_model(tmp_path / "llava", "llava")
        settings = json.loads((folder / "processor_config.json").read_text())
        (folder / "processor_config.json").write_text(json.dumps(settings | {"patch_size": 4}))

        with pytest.raises(ModelError, match="the model's own code fails on what its own processor makes"):
            made(tmp_path)
