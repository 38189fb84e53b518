"""BudgetCallback and recovery on a CUDA device: forked processes start it anew, and a real lack of memory is outlived."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from holdwater.oom.torch_step import torch_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]

LEAK = """
import torch
import holdwater
torch.manual_seed(0)
model = torch.nn.Linear(256, 256, device="cuda")
optimizer = torch.optim.AdamW(model.parameters())
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
kept = []
for step in holdwater.steps(100):
    kept.append(torch.ones(25_000_000, device="cuda"))
    loss = model(torch.randn(64, 256, device="cuda")).pow(2).mean()
    optimizer.zero_grad(); loss.backward(); optimizer.step()
print("weights", model.weight.double().sum().item().hex())
"""


def test_our_trainer_is_recycled(tmp_path: Path) -> None:
    """Each process starts CUDA for itself."""
    flags = (
        "--preset",
        "tiny",
        "--device",
        "cuda",
        "--steps",
        "60",
        "--reload-interval",
        "20",
        "--sample-length",
        "0",
    )

    subprocess.run(
        [sys.executable, "-m", "holdwater", "train", *flags, "--out", "run", "--json", "v.json"],
        cwd=tmp_path, check=True, timeout=200,
    )  # fmt: skip

    verdict = json.loads((tmp_path / "v.json").read_text())
    print("seconds of a replacement:", [action["seconds"] for action in verdict["actions"]])  # noqa: T201 - to be read
    assert (verdict["processes"], verdict["steps"]) == (3, 60)


def test_a_leak_on_the_device_is_outlived(tmp_path: Path) -> None:
    """100 MB a step, under 3 GB; the weights are those of the run without a limit."""
    (tmp_path / "train.py").write_text(LEAK)
    command = [sys.executable, "-m", "holdwater", "run", "--quiet"]

    done = [
        subprocess.run([*command, *flags, "train.py"], cwd=tmp_path, check=False, capture_output=True, text=True)
        for flags in (
            ("--out", "free"),
            ("--supervise", "--max-memory", "3GB", "--out", "run", "--json", "v.json"),
        )
    ]

    assert [(one.returncode, one.stderr) for one in done if one.returncode] == []
    verdict = json.loads((tmp_path / "v.json").read_text())
    print("seconds of a replacement:", [action["seconds"] for action in verdict["actions"]])  # noqa: T201 - to be read
    assert verdict["processes"] > 2
    assert done[0].stdout == done[1].stdout


def test_a_card_that_is_all_reserved_is_healthy(tmp_path: Path) -> None:
    """97 % of the device in PyTorch's cache, no budget given: nothing is done."""
    program = Path(__file__).parents[2] / "benchmarks" / "programs" / "gpu_reserved.py"
    command = [sys.executable, "-m", "holdwater", "run", "--supervise", "--out", "run", "--json", "v.json"]

    subprocess.run([*command, str(program), "0.97"], cwd=tmp_path, check=True, timeout=200)

    verdict = json.loads((tmp_path / "v.json").read_text())
    assert (verdict["verdict"], verdict["steps"], verdict["actions"]) == ("flat", 2000, [])


def test_a_real_lack_of_device_memory_makes_the_micro_batch_smaller() -> None:
    """The gradient is the whole batch's."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(512, 8192), nn.GELU(), nn.Linear(8192, 8192), nn.GELU(), nn.Linear(8192, 1)
    ).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    batch = torch.randn(16384, 512, device="cuda")

    def loss(model: nn.Module, part: Tensor) -> Tensor:
        mean: Tensor = model(part).pow(2).mean()
        return mean

    step = torch_step(model, optimizer, loss, micro_batch=len(batch))
    step.take([batch])
    whole = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    used = torch.cuda.max_memory_allocated()
    optimizer.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.6 * used / torch.cuda.get_device_properties(0).total_memory)
    try:
        step.take([batch])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

    assert step.micro_batch < len(batch)
    for weight, expected in zip(model.parameters(), whole, strict=True):
        assert weight.grad is not None
        assert torch.linalg.vector_norm(weight.grad - expected) <= 1e-4 * torch.linalg.vector_norm(expected)
