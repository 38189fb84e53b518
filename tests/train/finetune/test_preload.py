"""What training processes inherit from the one that they are forked from."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_models import make_model
from tests.small_vision_models import make_vision_model


def preloaded(folder: str) -> list[str]:
    """What a fresh process has loaded after it has preloaded a model, and whether that suits a fork."""
    script = (
        "import threading, torch\n"
        "from holdwater.train.finetune import preload\n"
        "print(sorted(preload.PRELOADED), torch.cuda.is_initialized(), threading.active_count())"
    )
    environment = os.environ | {"HOLDWATER_PRELOADED_MODEL": folder, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_loads_the_tokenizer_and_touches_no_device(tmp_path: Path) -> None:
    """Threads and a device context would not survive the fork."""
    make_model(tmp_path / "model", "Llama")

    assert preloaded(str(tmp_path / "model")) == [f"['{tmp_path}/model']", "False", "1"]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "smolvlm", "gemma3"])
def test_loads_the_tokenizer_of_a_model_with_pictures(tmp_path: Path, family: str) -> None:
    """With the code of its own family."""
    pytest.importorskip("PIL", reason="Pillow is not installed")
    make_vision_model(tmp_path / "model", family)

    assert preloaded(str(tmp_path / "model")) == [f"['{tmp_path}/model']", "False", "1"]


def test_leaves_a_name_on_the_hub_alone() -> None:
    """Nothing is downloaded before a run begins."""
    assert preloaded("some/name") == ["[]", "False", "1"]
