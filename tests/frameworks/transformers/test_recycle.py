"""The Transformers Trainer's checkpoints: the newest whole one is gone on from."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

NAME = "holdwater.frameworks.transformers.recycle"


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with a stand-in for Transformers where that is not installed."""
    if importlib.util.find_spec("transformers") is None:
        stand_in = ModuleType("transformers")
        stand_in.TrainerCallback = object  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "transformers", stand_in)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    return importlib.import_module(NAME)


def write(folder: Path, step: int, state: str) -> None:
    """A checkpoint as the Trainer writes one."""
    place = folder / f"checkpoint-{step}"
    place.mkdir()
    (place / "rng_state.pth").touch()
    (place / "trainer_state.json").write_text(state)


def test_finds_the_newest_whole_checkpoint(trainer: Any, tmp_path: Path) -> None:
    """By number and not by name; one whose writing was cut short is passed over."""
    write(tmp_path, 90, "{}")
    write(tmp_path, 100, "{}")
    write(tmp_path, 110, '{"cut')
    (tmp_path / "checkpoint-120").mkdir()

    assert trainer.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-100")
    assert trainer.last_checkpoint(tmp_path / "nothing") is None


def test_does_nothing_without_a_supervisor(trainer: Any) -> None:
    """A plain run stays plain."""
    callback = trainer.RecycleCallback()

    callback.on_train_begin(None, None, None)
    callback.on_step_end(None, None, None)
    callback.on_save(None, None, None)
