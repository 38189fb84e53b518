"""Loader workers that grow are replaced on their own; the batches stay what they would have been."""

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from holdwater.frameworks.loader_workers import can_be_replaced

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SCRIPT = """
import random, sys, time
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

LEAK, STEPS = int(sys.argv[1]), int(sys.argv[2])

class Rows(Dataset):
    def __init__(self):
        self.kept = []
    def __len__(self):
        return 4 * 60
    def __getitem__(self, index):
        self.kept.append(bytearray(LEAK))
        time.sleep(0.002)
        return torch.rand(4) + random.random() + np.random.rand() + index

torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
loader = DataLoader(Rows(), batch_size=4, shuffle=True, num_workers=2, persistent_workers=True)
step = 0
while step < STEPS:
    for batch in loader:
        loss = model(batch).pow(2).mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        print(step, batch.double().sum().item().hex(), loss.item().hex(), flush=True)
        step += 1
        if step == STEPS:
            break
"""


class TestLoaderWorkers:
    """Replaced when the budget is about to be spent, and only then."""

    @pytest.mark.alone  # looks for processes on the whole machine
    def test_what_they_load_does_not_change(self, holdwater: Run, tmp_path: Path) -> None:
        """Workers that keep 6 MB a batch, with random numbers of three libraries, over two epochs."""
        (tmp_path / "train.py").write_text(SCRIPT)
        healthy = subprocess.run(
            [sys.executable, "train.py", "0", "150"], cwd=tmp_path, capture_output=True, text=True, check=True
        )

        done = holdwater(
            *("run", "--supervise", "--max-memory", "700MB", "--out", "run", "--json", "v.json"),
            *("train.py", "1500000", "150"),
        )

        assert done.returncode == 0, done.stderr
        assert done.stdout == healthy.stdout
        actions = json.loads((tmp_path / "v.json").read_text())["actions"]
        replaced = [action["freed_bytes"] for action in actions if action["action"] == "replace_worker"]
        assert replaced
        assert min(replaced) > 50e6
        assert not any("train.py" in " ".join(process.info["cmdline"] or ()) for process in all_processes())

    def test_they_are_left_alone_while_there_is_room(self, holdwater: Run, tmp_path: Path) -> None:
        """The same workers, a budget of 8 GB."""
        (tmp_path / "train.py").write_text(SCRIPT)

        done = holdwater(
            *("run", "--supervise", "--max-memory", "8GB", "--out", "run", "--json", "v.json"),
            *("train.py", "1500000", "100"),
        )

        assert done.returncode == 0, done.stderr
        actions = json.loads((tmp_path / "v.json").read_text())["actions"]
        assert "replace_worker" not in [action["action"] for action in actions]


def all_processes() -> list[psutil.Process]:
    """Those of this machine, with their command lines."""
    return list(psutil.process_iter(["cmdline"]))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_only_forked_workers_can_be_replaced(method: str) -> None:
    """One that was started anew knows nothing of it."""
    context: Any = multiprocessing.get_context(method)
    iterator = SimpleNamespace(_workers=(context.Process(),), _dataset_kind=0)

    assert not can_be_replaced(iterator)


LOADER = """
import random
import torch
import holdwater
from torch.utils.data import DataLoader, Dataset

class Rows(Dataset):
    def __len__(self):
        return 22
    def __getitem__(self, index):
        return torch.full((4,), float(index)) + torch.rand(4) + random.random()

torch.manual_seed(0)
random.seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
loader = DataLoader(Rows(), batch_size=4, shuffle=True, num_workers=WORKERS)
with open("seen.txt", "a") as file:
    for batch in holdwater.batches(loader, steps=30):
        optimizer.zero_grad(); model(batch).pow(2).mean().backward(); optimizer.step()
        print([value.hex() for value in batch.flatten().tolist()], file=file, flush=True)
print([value.hex() for value in model.weight.flatten().tolist()])
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_is_gone_on_with_exactly(holdwater: Run, tmp_path: Path, workers: int) -> None:
    """In the middle of its epochs; the dataset draws at random, in this process and in workers."""
    (tmp_path / "train.py").write_text(LOADER.replace("WORKERS", str(workers)))
    plain = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, check=True, capture_output=True, text=True)
    straight = (tmp_path / "seen.txt").read_text()
    (tmp_path / "seen.txt").unlink()

    done = holdwater("run", "--supervise", "--reload-interval", "7", "--out", "run", "train.py")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "seen.txt").read_text() == straight
    assert done.stdout == plain.stdout
