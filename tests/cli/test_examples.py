"""The examples run as they stand, and by the commands that the README shows."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_pictures_are_drawn_and_learned(holdwater: Run, tmp_path: Path) -> None:
    """The README's two commands, with fewer steps: a verdict, and adapters."""
    pytest.importorskip("transformers", reason="Transformers is not installed")
    pytest.importorskip("PIL", reason="Pillow is not installed")
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    draw, train = (
        shlex.split(line)
        for line in re.findall(
            r"^\$ (python examples/pictures\.py .*|holdwater train --model demo/model .*)$", readme, re.MULTILINE
        )
    )
    drawn = subprocess.run(
        [sys.executable, str(ROOT / draw[1]), *draw[2:]],
        cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert drawn.returncode == 0, drawn.stderr

    done = holdwater(*train[1:], "--steps", "6", "--eval-interval", "6", "--threads", "1")

    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "demo" / "pictures").iterdir())) == 60
    assert "step 6: validation loss" in done.stdout
    assert (tmp_path / "runs/pictures/checkpoints/step-00000006/adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_a_leaking_trainer_is_replaced_and_named(holdwater: Run, tmp_path: Path) -> None:
    """The example's last command, with other numbers: two processes, and the name that holds."""
    pytest.importorskip("transformers", reason="Transformers is not installed")
    script = str(ROOT / "examples" / "trainer.py")

    done = holdwater(
        "run", "--supervise", "--reload-interval", "200", script, "demo", "--leak", "--steps", "210",
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "trained to step 210"
    assert "stored in `LOGITS`" in done.stderr
    assert "the process was replaced once" in done.stderr
