"""Pictures for the trainers of Transformers: what a batch holds, which labels count, and that memory stays flat."""

import base64
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from holdwater.errors import ConfigError, DataError
from holdwater.frameworks.transformers.pictures import PictureCollator, PictureTransform
from holdwater.frameworks.transformers.selective_loss import selective_loss
from holdwater.train.finetune.data.examples import example_of
from holdwater.train.finetune.vision.examples import PictureTokenizer
from holdwater.train.finetune.vision.loading import load_vision_model
from tests.small_vision_models import make_processor, make_vision_model

transformers = pytest.importorskip("transformers", reason="Transformers is not installed")
image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

FAMILIES = ("idefics3", "gemma3", "qwen2_5_vl")
IGNORED = -100


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    """Small models wait for each other on more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model of each family, and two pictures."""
    folder = tmp_path_factory.mktemp("models")
    for family in FAMILIES:
        make_vision_model(folder / family, family)
    image.new("RGB", (90, 40), "red").save(folder / "red.png")
    image.new("RGB", (40, 70), "blue").save(folder / "blue.png")
    return folder


def talk(*turns: tuple[str | None, str, str]) -> dict[str, Any]:
    """A row: picture, question and answer of each turn."""
    messages = []
    for picture, question, answer in turns:
        parts: list[dict[str, Any]] = [{"type": "text", "text": question}]
        if picture is not None:
            parts.insert(0, {"type": "image", "image": picture})
        messages += [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]
    return {"messages": messages}


ROWS = [
    talk(("red.png", "what is it?", "a red square"), ("blue.png", "and this?", "a blue one")),
    talk((None, "what is red?", "a square")),
    {"images": ["blue.png", "red.png"], "prompt": "what are they?", "completion": "blue, red"},
]


def learned(processor: Any, labels: torch.Tensor) -> str:
    """The text of the labels that count."""
    return str(processor.tokenizer.decode(labels[labels != IGNORED].tolist()))


@pytest.mark.parametrize("family", FAMILIES)
class TestBatches:
    """Of all families whose processor works without torchvision."""

    def test_only_answers_are_learned(self, models: Path, family: str) -> None:
        """Of several turns, with pictures before, between and nowhere."""
        processor = make_processor(models / family, family)

        batch = PictureCollator(processor, folder=models)(ROWS)

        texts = [learned(processor, labels) for labels in batch["labels"]]
        assert texts == [
            "a red square<|im_end|>\na blue one<|im_end|>\n", "a square<|im_end|>\n", "blue, red<|im_end|>\n",
        ]  # fmt: skip
        counted = batch["labels"] != IGNORED
        assert torch.equal(batch["labels"][counted], batch["input_ids"][counted])
        assert {"offset_mapping", "text_replacement_offsets"}.isdisjoint(batch)

    def test_everything_but_pictures_and_padding(self, models: Path, family: str) -> None:
        """Where that is asked for."""
        processor = make_processor(models / family, family)

        batch = PictureCollator(processor, folder=models, learn="everything")(ROWS[:2])

        first, second = (learned(processor, labels) for labels in batch["labels"])
        shown = ("<image>", "<image_soft_token>", "<|image_pad|>", "<pad>", "<row_1_col_1>", "<start_of_image>")
        assert not [one for one in shown if one in first + second]
        assert first.startswith("<|im_start|>user\n")
        assert second == processor.apply_chat_template(ROWS[1]["messages"], tokenize=False)

    def test_is_what_holdwater_train_makes(self, models: Path, family: str) -> None:
        """The same tokens, and the same of them are learned."""
        processor = make_processor(models / family, family)
        loaded, of_train = load_vision_model(str(models / family), device="meta", dtype=torch.float32)
        row = {"messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]},
            {"role": "assistant", "content": "a red square"},
        ]}  # fmt: skip
        wanted = example_of(row, PictureTokenizer(loaded.tokenizer, of_train, [(90, 40)]))

        batch = PictureCollator(processor, folder=models)([row | {"image": "red.png"}])

        assert batch["input_ids"][0].tolist() == wanted.tokens
        assert (batch["labels"][0] != IGNORED).tolist() == wanted.learned

    def test_the_loss_is_the_one_by_hand(self, models: Path, family: str) -> None:
        """The mean over tokens of answers."""
        processor = make_processor(models / family, family)
        model = transformers.AutoModelForImageTextToText.from_pretrained(models / family).eval()
        batch = PictureCollator(processor, folder=models)(ROWS)

        with torch.no_grad():
            found = model(**batch)

        said = found.logits[:, :-1].log_softmax(-1)
        counts = batch["labels"][:, 1:] != IGNORED
        chosen = said.gather(2, batch["input_ids"][:, 1:, None])[..., 0][counts]
        assert torch.isfinite(found.loss)
        torch.testing.assert_close(found.loss, -chosen.mean(), rtol=1e-5, atol=1e-5)

    def test_pixels_are_bounded(self, models: Path, family: str) -> None:
        """A large picture takes fewer pixels, and fewer tokens where the family's number depends on them."""
        processor = make_processor(models / family, family)
        row = talk((str(models / "large.png"), "what is it?", "red"))
        image.new("RGB", (400, 300), "red").save(models / "large.png")

        free, bounded = (PictureCollator(processor, max_pixels=most)([row]) for most in (None, 32 * 32))

        assert free["pixel_values"].numel() >= bounded["pixel_values"].numel()
        assert free["input_ids"].shape[1] >= bounded["input_ids"].shape[1]
        assert (free["input_ids"].shape == bounded["input_ids"].shape) == (family == "gemma3")


class TestRows:
    """Each form of a row, and what is wrong with some."""

    def test_all_forms_of_a_picture_are_alike(self, models: Path) -> None:
        """Path, bytes, base64, a dictionary as of Parquet files, and one that is decoded already."""
        encoded = (models / "red.png").read_bytes()
        collator = PictureCollator(make_processor(models / "idefics3", "idefics3"), folder=models)
        forms = [
            "red.png", encoded, {"bytes": encoded, "path": None},
            "data:image/png;base64," + base64.b64encode(encoded).decode(), image.open(io.BytesIO(encoded)),
        ]  # fmt: skip

        batch = collator([{"image": one, "prompt": "what?", "completion": "red"} for one in forms])

        assert all(torch.equal(one, batch["pixel_values"][0]) for one in batch["pixel_values"])

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            (
                {"image": "none.png", "prompt": "a", "completion": "b"},
                r"example 1 of a batch, picture 1 \(none.png\)",
            ),
            ({"text": "no picture"}, "it has text; write messages, or prompt and completion"),
            (talk(("https://x/y.png", "a", "b")), "no address on the network is fetched"),
        ],
    )
    def test_a_wrong_row_is_named(self, models: Path, row: dict[str, Any], said: str) -> None:
        """With what to write."""
        with pytest.raises(DataError, match=said):
            PictureCollator(make_processor(models / "gemma3", "gemma3"), folder=models)([row])

    def test_a_template_that_writes_answers_differently_is_refused(self, models: Path) -> None:
        """Where more messages follow: nothing says which tokens are the answer's."""
        processor = make_processor(models / "gemma3", "gemma3")
        processor.chat_template = "{% for m in messages %}{{ loop.revindex }}{{ m.content }}{% endfor %}"
        rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]

        with pytest.raises(DataError, match="writes message 2 in another way"):
            PictureCollator(processor)(rows)
        assert PictureCollator(processor, learn="everything")(rows)["labels"].numel()

    @pytest.mark.parametrize("options", [{"max_pixels": 0}, {"learn": "nothing"}])
    def test_wrong_options(self, models: Path, options: dict[str, Any]) -> None:
        """Are refused at once."""
        with pytest.raises(ConfigError, match=next(iter(options))):
            PictureCollator(make_processor(models / "gemma3", "gemma3"), **options)

    def test_can_be_sent_to_workers_and_wrapped(self, models: Path) -> None:
        """Of a data loader; the structure of JSON is left out by the other collator."""
        processor = make_processor(models / "gemma3", "gemma3")
        collator = selective_loss(PictureCollator(processor, folder=models), processor.tokenizer)
        row = {"image": "red.png", "prompt": "what?", "completion": '{"colour": "red"}'}

        batch = pickle.loads(pickle.dumps(collator))([row])  # noqa: S301 - made one line above

        assert learned(processor, batch["labels"][0]) == "colourred<|im_end|>\n"


class TestTransform:
    """For datasets of Hugging Face's library, and collators that take decoded pictures."""

    def test_decodes_the_rows_that_are_asked_for(self, models: Path) -> None:
        """From an Image column; large ones are scaled down."""
        datasets = pytest.importorskip("datasets", reason="datasets is not installed")
        plain = datasets.Dataset.from_dict({
            "image": [str(models / "red.png"), str(models / "blue.png")], "prompt": ["what?"] * 2, "completion": ["red", "blue"],
        })  # fmt: skip
        column = plain.cast_column("image", datasets.Image())
        transform = PictureTransform(max_pixels=1000)

        rows = [dataset.with_transform(transform)[1] for dataset in (plain, column)]

        for row in rows:
            assert row.keys() == {"messages", "images"}
            assert [one.size for one in row["images"]] == [(23, 41)]
            assert row["messages"][0]["content"][0] == {"type": "image"}
        collator = PictureCollator(make_processor(models / "gemma3", "gemma3"))
        assert torch.equal(*(collator([row])["pixel_values"] for row in rows))


TRAIN = """
import sys, json, torch, psutil, transformers, warnings
from PIL import Image
from pathlib import Path
from holdwater.frameworks.transformers.pictures import PictureCollator
from tests.small_vision_models import make_processor
folder, keeps = Path(sys.argv[1]), sys.argv[2] == "keeps"
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
resident, losses = [], []

class Rows(torch.utils.data.Dataset):
    def __init__(self):
        self.kept = {}
    def __len__(self):
        return 60
    def __getitem__(self, number):
        picture = str(folder / f"{number}.jpg")
        if keeps:
            with Image.open(picture) as opened:
                picture = self.kept.setdefault(number, opened.convert("RGB"))
        return {"image": picture, "prompt": "what is it?", "completion": "a square"}

class Watch(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **more):
        resident.append(psutil.Process().memory_info().rss)
    def on_log(self, args, state, control, logs=None, **more):
        losses.append(logs.get("loss", 0.0))

options = transformers.TrainingArguments(
    str(folder / "out"), max_steps=60, per_device_train_batch_size=1, report_to=[], save_strategy="no",
    remove_unused_columns=False, disable_tqdm=True, logging_steps=20, use_cpu=True, dataloader_pin_memory=False,
)
trainer = transformers.Trainer(
    transformers.AutoModelForImageTextToText.from_pretrained(folder / "gemma3"), options, train_dataset=Rows(),
    data_collator=PictureCollator(make_processor(folder / "gemma3", "gemma3"), max_pixels=50_000), callbacks=[Watch()],
)
trainer.train()
print(json.dumps({"resident": resident, "losses": losses}))
"""


class TestMemory:
    """Of a run of Transformers' Trainer."""

    @pytest.mark.slow
    def test_is_flat_unless_the_dataset_keeps_pictures(self, models: Path) -> None:
        """60 steps with a picture of 1.08 MB each; the twin keeps what it has decoded."""
        for number in range(60):
            image.new("RGB", (600, 600), (4 * number, 90, 30)).save(models / f"{number}.jpg")

        grown = {}
        for twin in ("lets go", "keeps"):
            done = subprocess.run(
                [sys.executable, "-c", TRAIN, str(models), twin],
                capture_output=True,
                text=True,
                check=False,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
            assert done.returncode == 0, done.stderr
            found = json.loads(done.stdout.splitlines()[-1])
            assert len(found["resident"]) == 60
            assert found["losses"][0] > found["losses"][2] > 0
            grown[twin] = found["resident"][-1] - found["resident"][19]

        assert grown["lets go"] < 5e6, grown
        assert grown["keeps"] > 30e6, grown
