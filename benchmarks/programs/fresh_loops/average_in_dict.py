"""Averages of the weights are in a dictionary of tensors, and pull the weights."""

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
average = {name: part.detach().clone() for name, part in model.named_parameters()}
for _ in holdwater.steps(60):
    chosen = torch.randint(0, len(inputs), (8,))
    pull = sum((part - average[name]).pow(2).sum() for name, part in model.named_parameters())
    loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen]) + 0.1 * pull
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
    for name, part in model.named_parameters():
        average[name].lerp_(part.detach(), 0.05)
final(model)
