"""Programs of MLX in pairs: the leak is found with its holder or line and its cure, the look-alike passes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlx.core", reason="MLX is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.alone]

HEAD = """
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

mx.random.seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 1))
optimizer = optim.AdamW(learning_rate=1e-3)
step_of = nn.value_and_grad(model, lambda model, rows: model(rows).square().mean())
kept, total, steps = [], mx.array(0.0), {steps}

@mx.compile
def score(rows):
    for _ in range(16):
        rows = mx.sin(rows) * 2 + mx.cos(rows)
    return rows.mean()

for step in range(steps):
    rows = mx.random.normal((512, 64))
    loss, gradients = step_of(model, rows)
    optimizer.update(model, gradients)
    mx.eval(model.parameters(), optimizer.state)
    {line}
    print(loss.item().hex(), flush=True)
"""
CACHED = """
import mlx.core as mx
from mlx_lm.models.cache import KVCache, RotatingKVCache

mx.random.seed(0)
keys = mx.random.normal((1, 2, 16, 64))
cache = [{cache} for _ in range(2)]
for request in range({steps}):
    mx.eval([layer.update_and_fetch(keys, keys) for layer in cache])
"""


def run(folder: Path, text: str) -> tuple[dict[str, Any], str]:
    """The verdict on a program, and what it printed."""
    (folder / "script.py").write_text(text, encoding="utf-8")
    program = str(Path(sys.executable).with_name("holdwater"))
    command = [program, "run", "--json", "v.json", "--quiet", "--out", "run", "script.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "v.json").read_text(encoding="utf-8")), done.stdout


LEAKS = {
    "outputs that were not evaluated": ("kept.append(model(rows).sum())", "kept", "mlx-arrays-not-evaluated"),
    "a total that was never evaluated": ("total = total + model(rows).sum()", "total", "mlx-arrays-not-evaluated"),
    "arrays in a list": ("kept.append(rows)", "kept", "mlx-arrays-kept"),
    "traces": ("mx.eval(score(rows[: 8 + step]))", None, "mlx-compiled-for-each-shape"),
}
HEALTHY = {
    "numbers": "kept.append(model(rows).sum().item())",
    "a total that is evaluated": "total = total + model(rows).sum(); mx.eval(total)",
    "the newest arrays": "kept = [*kept, rows][-20:]",
    "few traces": "mx.eval(score(rows[: 8 + min(step, 40)]))",
}


class TestTraining:
    """A loop with an optimizer."""

    @pytest.mark.parametrize("case", LEAKS)
    def test_reports_a_leak_with_its_cause(self, case: str, tmp_path: Path) -> None:
        """Its line first, by what holds or allocates."""
        line, holder, pattern = LEAKS[case]
        text = HEAD.format(steps=400, line=line)
        verdict, _ = run(tmp_path, text)
        finding = verdict["findings"][0]

        assert (verdict["verdict"], verdict["steps"], verdict["step_source"]) == ("leak", 400, "mlx")
        assert finding["pattern"] == pattern
        assert finding["sites"][0]["name"] == holder or holder is None
        assert text.splitlines()[finding["sites"][0]["line"] - 1].strip() == line
        assert ("device.active", "leak") not in {(one["component"], one["verdict"]) for one in verdict["findings"]}

    @pytest.mark.parametrize("case", HEALTHY)
    def test_ignores_its_look_alike(self, case: str, tmp_path: Path) -> None:
        """The losses are those without us, to the bit."""
        verdict, printed = run(tmp_path, HEAD.format(steps=400, line=HEALTHY[case]))
        command = [sys.executable, "script.py"]
        plain = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)

        assert verdict["verdict"] in {"flat", "bounded", "cyclic"}
        assert printed == plain.stdout


class TestGeneration:
    """A loop without an optimizer: its steps are its evaluations."""

    def test_reports_a_prompt_cache_that_is_continued(self, tmp_path: Path) -> None:
        """By the name that holds it."""
        pytest.importorskip("mlx_lm", reason="mlx_lm is not installed")
        verdict, _ = run(tmp_path, CACHED.format(cache="KVCache()", steps=600))
        finding = verdict["findings"][0]

        assert (verdict["verdict"], verdict["step_source"]) == ("leak", "mlx")
        assert (finding["pattern"], finding["sites"][0]["name"]) == ("mlx-prompt-cache-grows", "cache")

    def test_ignores_a_cache_of_the_newest_tokens(self, tmp_path: Path) -> None:
        """It rotates."""
        pytest.importorskip("mlx_lm", reason="mlx_lm is not installed")
        verdict, _ = run(tmp_path, CACHED.format(cache="RotatingKVCache(max_size=128, keep=4)", steps=600))

        assert verdict["verdict"] in {"flat", "bounded", "cyclic"}
