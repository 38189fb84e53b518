"""Runs of small vision-language models, step by step."""

from pathlib import Path
from typing import Any

from holdwater.config import gather
from holdwater.train.settings import TrainSettings, train_settings


def settings_of(folder: Path, family: str, *, length: int, **flags: Any) -> TrainSettings:
    """The settings of a run in a folder that holds a model of the family and `rows.jsonl`; tokens of a row."""
    given = {
        "model": str(folder / family), "data": str(folder / "rows.jsonl"), "device": "cpu", "batch_size": 2,
        "train_seq_length": length, "lora_rank": 4, **flags,
    }  # fmt: skip
    return train_settings(gather(flags=given, environment={}), folder / "run")


def learn(state: Any, steps: int) -> list[float]:
    """Take steps; return their losses."""
    functions, losses = state.step_functions(), []
    for _ in range(steps):
        batch = state.batches.draw("cpu")
        state.clear()
        state.rate = 1e-2
        state.propagate(batch, 1.0)
        functions.update()
        losses.append(state.loss())
        state.step += 1
    return losses
