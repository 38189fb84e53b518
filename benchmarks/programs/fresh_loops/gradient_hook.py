"""A hook on a weight damps its gradient more at each call."""

import itertools

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
calls = itertools.count(1)
model[0].weight.register_hook(lambda gradient: gradient / next(calls) ** 0.5)
for _ in holdwater.steps(60):
    chosen = torch.randint(0, len(inputs), (8,))
    loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
final(model)
