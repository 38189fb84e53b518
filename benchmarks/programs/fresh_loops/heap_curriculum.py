"""The hardest samples come first, from a heap that is pushed their newest losses."""

import heapq

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
hardest = [(-1.0 - index / 1000, index) for index in range(len(inputs))]
heapq.heapify(hardest)
for _ in holdwater.steps(60):
    chosen = [heapq.heappop(hardest)[1] for _ in range(8)]
    losses = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen], reduction="none").squeeze(1)
    loss = losses.mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
    for index, one in zip(chosen, losses.tolist(), strict=True):
        heapq.heappush(hardest, (-one, index))
final(model)
