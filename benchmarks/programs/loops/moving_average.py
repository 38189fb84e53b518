"""An exponential moving average of the weights, in a class of the script's own."""

import copy

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
average = copy.deepcopy(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
for name, thing in (("model", model), ("average", average), ("optimizer", optimizer)):
    holdwater.resumable(name, thing)
for _ in holdwater.steps(60):
    chosen = torch.randint(0, len(inputs), (8,))
    loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    for mean, part in zip(average.parameters(), model.parameters(), strict=True):
        mean.data.mul_(0.9).add_(part.data, alpha=0.1)
    show(loss)
final(model, average)
