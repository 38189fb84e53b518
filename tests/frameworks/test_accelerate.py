"""Tests of the guard for loops written with Accelerate: two processes that train together."""

import importlib
import importlib.util
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from holdwater.errors import ConfigError

needs_accelerate = pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is None, reason="Accelerate is not installed"
)

LOOP = """
import json, psutil, sys, warnings
import torch
from accelerate import Accelerator
from holdwater.frameworks.accelerate import accelerate_guard

warnings.simplefilter("ignore")
torch.set_num_threads(1)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
rank, kept = accelerator.process_index, []

def begin():
    torch.manual_seed(0)
    model = torch.nn.Linear(16, 16)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    loader = torch.utils.data.DataLoader(torch.randn(800, 16), batch_size=2, shuffle=True)
    return accelerator.prepare(model, optimizer, loader)

def train(model, optimizer, batch):
    with accelerator.accumulate(model):
        loss = model(batch).pow(2).mean()
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()

model, optimizer, loader = begin()
bare = [train(model, optimizer, batch) for batch in loader]
model, optimizer, loader = begin()
with accelerate_guard(accelerator, out="run") as guard:
    losses = [train(model, optimizer, batch) for batch in guard.steps(loader)]
budget = None if rank else f"{psutil.Process().memory_info().rss // 1_000_000 + 60}MB"
with accelerate_guard(accelerator, out="short", max_memory=budget) as short:
    for batch in short.steps(loader):
        train(model, optimizer, batch)
        if rank == 0:
            kept.append(torch.ones(1_000_000))
found = {
    "same": losses == bare, "steps": guard.summary()["steps"], "ended": short.step_number, "why": short.stop_reason
}
with open(f"found-{rank}.json", "w") as file:
    json.dump(found, file)
accelerator.end_training()
"""


@needs_accelerate
def test_counts_optimizer_steps_and_ends_both_processes_together(tmp_path: Path) -> None:
    """Losses are those without; of 200 batches a process 100 end a step; one has no memory left, and both leave."""
    (tmp_path / "loop.py").write_text(textwrap.dedent(LOOP), encoding="utf-8")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

    done = subprocess.run(
        [sys.executable, *launcher, "loop.py"], cwd=tmp_path, capture_output=True, text=True, check=False,
        timeout=200,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"found-{rank}.json").read_text()) for rank in range(2))
    states = tmp_path / "short" / "accelerate" / f"step-{first['ended']:08d}"
    assert (first["same"], second["same"]) == (True, True)
    assert (first["steps"], second["steps"]) == (100, 100)
    assert first["ended"] == second["ended"] < 100
    assert first["ended"] % 16 == 0
    assert "the budget" in first["why"]
    assert second["why"] == "another process of the run is short of memory"
    assert {path.name for path in states.iterdir()} >= {"model.safetensors", "random_states_1.pkl"}
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"rank-0.db", "rank-1.db"}


@needs_accelerate
def test_refuses_what_is_no_accelerator() -> None:
    """By name, and with what to give."""
    module = importlib.import_module("holdwater.frameworks.accelerate")

    with pytest.raises(ConfigError, match=r"was given str.*give it the Accelerator"):
        module.accelerate_guard("cuda")


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Accelerate the import names the package."""
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.delitem(sys.modules, "holdwater.frameworks.accelerate", raising=False)

    with pytest.raises(ImportError, match="pip install accelerate"):
        importlib.import_module("holdwater.frameworks.accelerate")
