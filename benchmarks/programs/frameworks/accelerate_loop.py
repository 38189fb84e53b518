"""A loop of Accelerate, with `accelerate_guard` or without: `python accelerate_loop.py STEPS [guard|resume] [leak] ...`."""

import contextlib
import json
import os
import signal
import sys

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from turns import Turns

torch.set_num_threads(1)
torch.manual_seed(1)
kept, total, turns = [], int(sys.argv[1]), Turns()
accelerator = Accelerator(cpu=True)
model = nn.Sequential(nn.Linear(256, 2048), nn.ReLU(), nn.Dropout(0.1), nn.Linear(2048, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
data = TensorDataset(torch.randn(6400, 256), torch.randint(0, 10, (6400,)))
loader = DataLoader(data, batch_size=32, shuffle=True)
model, optimizer = accelerator.prepare(model, optimizer)
if "resume" not in sys.argv:
    loader = accelerator.prepare(loader)
told = {"losses": []}


def train(batch):
    """One step."""
    inputs, labels = batch
    loss = nn.functional.cross_entropy(model(inputs), labels)
    optimizer.zero_grad()
    accelerator.backward(loss)
    optimizer.step()
    told["losses"].append(loss.item())
    if "leak" in sys.argv:
        kept.append(torch.ones(16_000))  # HERE
    turns.step()
    if "kill" in sys.argv and len(told["losses"]) == 700 and not os.path.exists("killed"):
        open("killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)


def epochs():
    """Batches, epoch after epoch."""
    while True:
        yield from loader


summary = None
if "resume" in sys.argv:
    import holdwater

    holdwater.resumable("model", accelerator.unwrap_model(model))
    holdwater.resumable("optimizer", optimizer.optimizer)
    holdwater.resumable("told", told)
    for batch in holdwater.batches(loader, steps=total):
        train(batch)
else:
    guard = contextlib.nullcontext()
    if "guard" in sys.argv:
        from holdwater.frameworks.accelerate import accelerate_guard

        guard = accelerate_guard(accelerator)
    with guard:
        for batch in guard.steps(epochs()) if "guard" in sys.argv else epochs():
            train(batch)
            if len(told["losses"]) == total or turns.over:
                break
        if "guard" in sys.argv:
            guard.step()  # of the batch at which the loop was left
    summary = guard.summary() if "guard" in sys.argv else None
weights = [weight.double().sum().item().hex() for weight in model.parameters()]
print("FOUND", json.dumps({"losses": told["losses"], "weights": weights, "summary": summary}))
