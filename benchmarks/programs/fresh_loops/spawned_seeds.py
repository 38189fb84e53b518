"""Each step has a generator of its own, spawned from one sequence of seeds."""

import numpy as np

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
seeds = np.random.SeedSequence(12)
for _ in holdwater.steps(60):
    rng = np.random.default_rng(seeds.spawn(1)[0])
    chosen = torch.from_numpy(rng.integers(0, len(inputs), 8))
    loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
final(model)
