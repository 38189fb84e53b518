"""What is said before training begins: what multiplies memory, breaks a resume, or changes the run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdwater.errors import ConfigError
from holdwater.frameworks.transformers.begin_checks import (
    pictures_in,
    refuse_inexact_checkpoints,
    warning_about_checkpoints,
    warnings_at_begin,
)


class Rows:
    """A dataset that must not be asked for anything."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __len__(self) -> int:
        """Nobody asks."""
        raise AssertionError

    def __getitem__(self, row: int) -> Any:
        """Nobody draws."""
        raise AssertionError


def loader(dataset: Any, workers: int) -> Any:
    """A loader."""
    return SimpleNamespace(dataset=dataset, num_workers=workers)


class TestLoaderWorkers:
    """Pictures that each worker decodes for itself."""

    def test_reports_pictures_that_workers_multiply(self) -> None:
        """200 pictures of 3 MB (RGB, four bytes a pixel in memory), in 4 workers."""
        image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
        rows = Rows([{"image": image.new("RGB", (1000, 750)), "text": "a"}] * 200)

        (said,) = warnings_at_begin(SimpleNamespace(), loader(rows, 4))

        assert "holds 200 pictures in memory, and dataloader_num_workers is 4" in said
        assert "up to 2.40 GB in all" in said

    def test_ignores_pictures_without_workers(self) -> None:
        """There is one copy."""
        image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
        rows = Rows([{"image": image.new("RGB", (1000, 750))}] * 200)

        assert list(warnings_at_begin(SimpleNamespace(), loader(rows, 0))) == []

    @pytest.mark.parametrize("held", [[{"path": "a.png"}] * 1000, ["text"] * 1000, None, []])
    def test_ignores_datasets_without_pictures(self, held: Any) -> None:
        """Paths are what is to be kept; nothing of the dataset is called."""
        assert pictures_in(Rows(held)) is None
        assert list(warnings_at_begin(SimpleNamespace(), loader(Rows(held), 8))) == []

    def test_ignores_a_few_small_pictures(self) -> None:
        """Less than 64 MB in all workers together."""
        image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

        assert list(warnings_at_begin(SimpleNamespace(), loader([image.new("L", (28, 28))] * 1000, 8))) == []


class TestBatchSize:
    """A batch size that the Trainer finds by itself."""

    def test_reports_a_search_that_would_change_the_run(self) -> None:
        """It names what keeps the run."""
        (said,) = warnings_at_begin(SimpleNamespace(auto_find_batch_size=True), None)

        assert "begins again from the first step" in said
        assert "HoldwaterTrainer" in said

    def test_ignores_a_fixed_one(self) -> None:
        """As by default."""
        assert list(warnings_at_begin(SimpleNamespace(auto_find_batch_size=False), None)) == []


def write(folder: Path, step: int, *files: str) -> None:
    """A checkpoint with these files."""
    place = folder / f"checkpoint-{step}"
    place.mkdir()
    for name in files:
        (place / name).write_text("{}")


class TestCheckpoints:
    """The newest one is what `resume_from_checkpoint=True` takes."""

    @pytest.mark.parametrize(
        ("files", "lacks"),
        [
            (("rng_state.pth",), "no trainer_state.json"),
            (("trainer_state.json",), "no random states"),
            (("trainer_state.json", "rng_state.pth", "checkpoint-is-incomplete.txt"), "its writing was cut short"),
        ],
        ids=["cut short", "weights only", "just in time, cut short"],
    )
    def test_reports_an_incomplete_newest(self, files: tuple[str, ...], lacks: str, tmp_path: Path) -> None:
        """It says what lacks, and what to write."""
        write(tmp_path, 90, "trainer_state.json", "rng_state.pth")
        write(tmp_path, 100, *files)

        said = warning_about_checkpoints(tmp_path)

        assert "checkpoint-100 is incomplete" in said
        assert lacks in said
        assert "last_checkpoint(args.output_dir)" in said

    def test_ignores_an_incomplete_older_one(self, tmp_path: Path) -> None:
        """Nobody takes it."""
        write(tmp_path, 90)
        write(tmp_path, 100, "trainer_state.json", "rng_state.pth")

        assert warning_about_checkpoints(tmp_path) == ""
        assert warning_about_checkpoints(tmp_path / "nothing") == ""

    def test_refuses_weights_only_where_a_run_is_to_be_gone_on_with(self) -> None:
        """Before training: a stop would lose the optimizer."""
        with pytest.raises(ConfigError, match=r"save_only_model is True.*set save_only_model=False"):
            refuse_inexact_checkpoints(SimpleNamespace(save_only_model=True))
        refuse_inexact_checkpoints(SimpleNamespace(save_only_model=False))
