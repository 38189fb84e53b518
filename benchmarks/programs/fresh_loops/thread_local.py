"""A scratch of the thread keeps a running mean of losses."""

import threading

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
scratch = threading.local()
scratch.mean = 1.0
for _ in holdwater.steps(60):
    chosen = torch.randint(0, len(inputs), (8,))
    loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen]) / scratch.mean
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
    scratch.mean = 0.9 * scratch.mean + 0.1 * float(loss.detach())
final(model)
