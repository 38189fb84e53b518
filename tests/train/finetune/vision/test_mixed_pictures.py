"""Fine-tuning on many pictures, large and broken ones among them: flat memory, each named once, exact resume."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from holdwater.probes.statm import read_resident
from holdwater.store.checkpoints import CheckpointFolder
from picture_files import draw_all, spoil_all
from tests.train.finetune.vision.test_training import made
from tests.vision_runs import learn

pytest.importorskip("transformers", reason="Transformers is not installed")
pytest.importorskip("PIL.Image", reason="Pillow is not installed")

PICTURES, SIZE = 24, (1600, 1200)
DECODED = 4 * SIZE[0] * SIZE[1]
"""Bytes of one picture as Pillow holds it."""


def write_rows(folder: Path, pictures: list[Path], **more: Any) -> None:
    """A row for each picture."""
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number, path in enumerate(pictures):
            row = {"image": str(path), "prompt": f"what is in picture {number}?", "completion": "a red square"}
            file.write(json.dumps(row | more) + "\n")


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path: Path) -> None:
    """All of them kept decoded would take 184 MB; between the first eight and the last no quarter of it is added."""
    write_rows(tmp_path, draw_all(tmp_path / "pictures", PICTURES, SIZE, workers=1))
    state = made(tmp_path, batch_size=4, validation_share=0.03)
    learn(state, 2)
    before = read_resident()

    while state.epochs < 1.0:
        learn(state, 1)

    assert read_resident() - before < PICTURES * DECODED / 4


class TestBrokenPictures:
    """One in ten ways each, among whole ones."""

    @pytest.fixture
    def rows(self, tmp_path: Path) -> set[int]:
        """Write rows; return the numbers of the broken examples, from 1."""
        spoilt = spoil_all(tmp_path / "spoilt")
        pictures = [*draw_all(tmp_path / "pictures", 20, (90, 60), workers=1), *spoilt]
        random.Random(0).shuffle(pictures)  # noqa: S311 - an order, not a secret
        write_rows(tmp_path, pictures)
        return {number for number, path in enumerate(pictures, start=1) if path in spoilt}

    def test_each_is_named_once(self, tmp_path: Path, rows: set[int], caplog: pytest.LogCaptureFixture) -> None:
        """By the check of the headers or at its turn, held out or learned; not again in the second epoch."""
        (tmp_path / "run").mkdir()
        state = made(tmp_path, bad_pictures="skip", validation_share=0.1)
        state.check_data()

        while state.epochs < 1.5:
            learn(state, 1)
        state.evaluate()

        lines = (tmp_path / "run" / "passed-over.jsonl").read_text(encoding="utf-8").splitlines()
        assert sorted(json.loads(line)["example"] for line in lines) == sorted(rows)
        assert sum("passed over: " in record.getMessage() for record in caplog.records) == len(rows)

    @pytest.mark.usefixtures("rows")
    def test_a_run_goes_on_to_the_bit(self, tmp_path: Path) -> None:
        """From the middle of the first epoch: the same losses, and as many examples passed over."""
        flags: dict[str, Any] = {"bad_pictures": "skip", "validation_share": 0.1}
        state, folder = made(tmp_path, **flags), CheckpointFolder(tmp_path / "checkpoints")
        learn(state, 3)
        state.save(folder, best=True)
        straight = learn(state, 6)

        other = made(tmp_path, **flags)
        newest = folder.newest(print)
        assert newest is not None
        other.load(newest)

        assert learn(other, 6) == straight
        assert other.examples.state() == state.examples.state()
