"""Tests of the clock of MLX programs: who counts the steps."""

import subprocess
import sys
from pathlib import Path

import pytest

from holdwater.store.history import read_history

pytest.importorskip("mlx.core", reason="MLX is not installed")

SCRIPT = """
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers

import holdwater

model, optimizer = nn.Linear(4, 1), optimizers.SGD(1e-2)
gradient = nn.value_and_grad(model, lambda model, rows: (model(rows) ** 2).mean())
for _ in {loop}:
    _, gradients = gradient(model, mx.ones((2, 4)))
    optimizer.update(model, gradients)
    mx.eval(model.parameters())
"""


@pytest.mark.parametrize("loop", ["range(50)", "holdwater.steps(50)"])
def test_a_step_is_counted_once(tmp_path: Path, loop: str) -> None:
    """A script that counts its steps itself has optimizer updates too: they are the same steps."""
    (tmp_path / "script.py").write_text(SCRIPT.format(loop=loop), encoding="utf-8")
    command = ["-m", "holdwater", "run", "--quiet", "--out", str(tmp_path / "run"), str(tmp_path / "script.py")]
    subprocess.run([sys.executable, *command], check=True)

    summary = read_history(tmp_path / "run").summary
    assert summary is not None
    assert summary["steps"] in {50, 51}  # the update of the first step comes before its end
