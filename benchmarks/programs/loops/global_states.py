"""Random numbers of NumPy and of Python, from their global states and from a NumPy generator."""

import random

import numpy as np
import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

random.seed(1)
np.random.seed(2)  # noqa: NPY002 - as many scripts do
inputs, targets = data()
model, dice = network(), np.random.default_rng(3)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
for name, thing in (("model", model), ("optimizer", optimizer), ("dice", dice)):
    holdwater.resumable(name, thing)
for _ in holdwater.steps(60):
    chosen = random.sample(range(len(inputs)), 4) + np.random.permutation(len(inputs))[:4].tolist()  # noqa: NPY002
    noise = torch.from_numpy(dice.normal(0, 0.1, (8, 8)).astype(np.float32))
    loss = nn.functional.mse_loss(model(inputs[chosen] + noise), targets[chosen]) * random.gauss(1, 0.1)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
final(model)
