"""Samples are drawn with weights, from a generator of the sampler."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

import holdwater
from tiny import ROWS, data, final, network, show

model = network()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
generator = torch.Generator().manual_seed(7)
sampler = WeightedRandomSampler(torch.arange(1.0, ROWS + 1), ROWS, generator=generator)
for name, thing in (("model", model), ("optimizer", optimizer), ("generator", generator)):
    holdwater.resumable(name, thing)
for x, y in holdwater.batches(DataLoader(TensorDataset(*data()), batch_size=8, sampler=sampler), steps=60):
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
final(model)
