"""The weight of each sample lies in a mapped file."""

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
weights = np.memmap("weights.bin", dtype="float32", mode="w+", shape=(len(inputs),))
weights[:] = 1.0
for _ in holdwater.steps(60):
    chosen = torch.from_numpy(np.argsort(-weights, kind="stable")[:8].copy())
    losses = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen], reduction="none").squeeze(1)
    loss = losses.mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
    weights[chosen.numpy()] = 0.5 * weights[chosen.numpy()] + 0.4 * losses.detach().numpy()
final(model)
