"""A warm-up, then training."""

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)


def learn() -> None:
    """Make a step."""
    chosen = torch.randint(0, len(inputs), (8,))
    loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)


for step in holdwater.steps(30):
    learn()
for group in optimizer.param_groups:
    group["lr"] = 1e-3
for step in holdwater.steps(30):
    learn()
final(model)
