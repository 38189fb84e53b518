"""A distributed sampler, as one rank of two sees it."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

import holdwater
from tiny import data, final, network, show

dataset = TensorDataset(*data())
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)
sampler = DistributedSampler(dataset, num_replicas=2, rank=1, seed=4)
for x, y in holdwater.batches(DataLoader(dataset, batch_size=8, sampler=sampler), steps=60):
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
final(model)
