"""`holdwater run` on a CUDA device: steps that a graph replays or a scaler skips, and the device's own components."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]

MODEL = """
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 256)).cuda()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, capturable=True)
batch = torch.randn(512, 256, device="cuda")
def train_step():
    optimizer.zero_grad()
    output = model(batch)
    output.pow(2).mean().backward()
    optimizer.step()
    return output
"""


def observe(tmp_path: Path, script: str) -> dict[str, Any]:
    """Run a script, return its verdict."""
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    command = [sys.executable, "-m", "holdwater", "run", "--json", "v.json", "script.py"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=200)
    return dict(json.loads((tmp_path / "v.json").read_text(encoding="utf-8")))


def test_a_replayed_graph_counts_its_step(tmp_path: Path) -> None:
    """Three steps to warm up, one captured, fifty replayed."""
    verdict = observe(
        tmp_path,
        MODEL
        + """
stream = torch.cuda.Stream()
stream.wait_stream(torch.cuda.current_stream())
with torch.cuda.stream(stream):
    for _ in range(3):
        train_step()
torch.cuda.current_stream().wait_stream(stream)
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    train_step()
for _ in range(50):
    graph.replay()
torch.cuda.synchronize()
""",
    )

    assert (verdict["steps"], verdict["step_source"]) == (53, "torch")


def test_reports_what_is_kept_on_the_device(tmp_path: Path) -> None:
    """512 kB a step, as `device.active`."""
    verdict = observe(tmp_path, MODEL + "kept = []\nfor _ in range(500): kept.append(train_step().detach())\n")

    finding = verdict["findings"][0]
    assert (finding["verdict"], finding["component"], finding["follows"]) == ("leak", "device.active", "step")
    assert finding["rate"]["bytes_per_step"] == pytest.approx(524_288, rel=0.05)


def test_ignores_the_same_without_the_list(tmp_path: Path) -> None:
    """The twin."""
    verdict = observe(tmp_path, MODEL + "for _ in range(500): kept = train_step().detach()\n")

    assert verdict["verdict"] in {"flat", "bounded"}
