"""The default of an argument collects losses, as beginners write by accident and others on purpose."""

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)


def smoothed(value, *, history=[]):
    """The mean of the last ten."""
    history.append(value)
    del history[:-10]
    return sum(history) / len(history)


for _ in holdwater.steps(60):
    chosen = torch.randint(0, len(inputs), (8,))
    loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
    mean = smoothed(float(loss.detach()))
    for group in optimizer.param_groups:
        group["lr"] = 1e-2 * min(1.0, mean)
final(model)
