"""Training changes from Adam to SGD when progress slows: the registered optimizer no longer makes the steps."""

import torch
from torch import nn

import holdwater

torch.manual_seed(18)
inputs = torch.randn(96, 6)
targets = inputs[:, :1] * inputs[:, 1:2] + inputs[:, 2:3]
model = nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
losses = {"fast": 2.0, "slow": 6.0}
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
holdwater.resumable("losses", losses)


def follow(loss):
    """Two moving averages; progress is slow when they meet."""
    losses["fast"] += 0.4 * (loss - losses["fast"])
    losses["slow"] += 0.12 * (loss - losses["slow"])
    return losses["fast"] > 0.85 * losses["slow"]


for step in holdwater.steps(40):
    batch = torch.randint(0, len(inputs), (16,))
    loss = nn.functional.mse_loss(model(inputs[batch]), targets[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("loss", type(optimizer).__name__, loss.item().hex(), flush=True)
    if follow(loss.item()) and isinstance(optimizer, torch.optim.Adam):
        optimizer = torch.optim.SGD(model.parameters(), lr=3e-2, momentum=0.9, nesterov=True)
print("final", *(p.detach().double().sum().item().hex() for p in model.parameters()))
