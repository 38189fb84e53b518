"""Batches are numbered and repeated by iterators of the standard library."""

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
order = torch.randperm(len(inputs)).split(8)
batches = zip(itertools.count(1), itertools.cycle(order))
for _ in holdwater.steps(60):
    number, chosen = next(batches)
    loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen]) / number**0.1
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
final(model)
