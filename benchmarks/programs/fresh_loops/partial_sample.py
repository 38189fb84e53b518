"""Samples are drawn by a partial of a method of Python's generator."""

import functools
import random

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
draw = functools.partial(random.Random(3).sample, range(len(inputs)), k=8)
for _ in holdwater.steps(60):
    chosen = draw()
    loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
final(model)
