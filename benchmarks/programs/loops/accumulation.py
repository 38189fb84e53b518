"""Gradients of four micro-batches are accumulated."""

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
for step in holdwater.steps(60):
    chosen = torch.randint(0, len(inputs), (8,))
    loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen]) / 4
    loss.backward()
    show(loss)
    if (step + 1) % 4 == 0:
        optimizer.step()
        optimizer.zero_grad()
final(model)
