"""Small runs of `--backend mlx`."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from holdwater.config import gather
from holdwater.train.finetune.mlx.state import MlxTuneState, new_mlx_tuning
from holdwater.train.finetune.mlx.step import random_key
from holdwater.train.finetune.mlx.trees import flat
from holdwater.train.settings import train_settings
from tests.small_models import make_model

SIZES: dict[str, dict[str, int]] = {"Llama": {}, "Qwen3": {"head_dim": 8}}


def made(folder: Path, *, family: str = "Llama", more: dict[str, int] | None = None, **flags: Any) -> MlxTuneState:
    """A state from flags."""
    make_model(folder / "model", family, **SIZES[family] | (more or {}))
    sums = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(12) for b in range(5)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums))
    return new_mlx_tuning(settings := settings_of(folder, **flags), settings.tuning)


def settings_of(folder: Path, **flags: Any) -> Any:
    """Settings from flags."""
    given = {
        "model": str(folder / "model"), "data": str(folder / "rows.jsonl"), "backend": "mlx", "steps": 8,
        "train_seq_length": 48, "batch_size": 4, "lora_rank": 4, "warmup_steps": 2, "gradient_clip": 1e6, **flags,
    }  # fmt: skip
    written = {name: str(one) for name, one in given.items()}
    return train_settings(gather(flags=written, environment={}), folder / "run")


def arrays(state: MlxTuneState) -> dict[str, bytes]:
    """The bytes of all that a step may change."""
    changed = flat([state.loaded.model.trainable_parameters(), state.taken.optimizer.state])
    return {name: np.array(one).tobytes() for name, one in changed.items()} | {
        "key": np.array(random_key()).tobytes()
    }
