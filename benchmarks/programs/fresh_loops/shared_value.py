"""The difficulty is a number in shared memory, so that workers could read it."""

import multiprocessing

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
difficulty = multiprocessing.Value("d", 0.1)
for _ in holdwater.steps(60):
    chosen = torch.randint(0, len(inputs), (8,))
    noise = difficulty.value * torch.randn(8, 8)
    loss = nn.functional.mse_loss(model(inputs[chosen] + noise), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
    with difficulty.get_lock():
        difficulty.value *= 1.02
final(model)
