"""A sampler shuffles anew for each epoch, and counts the epochs itself."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

import holdwater
from tiny import data, final, network, show

inputs, targets = data()
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)


class Shuffled(Sampler):
    """An order for each epoch."""

    def __init__(self, length):
        self.length = length
        self.epoch = 0

    def __len__(self):
        return self.length

    def __iter__(self):
        self.epoch += 1
        generator = torch.Generator().manual_seed(self.epoch)
        return iter(torch.randperm(self.length, generator=generator).tolist())


loader = DataLoader(TensorDataset(inputs, targets), batch_size=8, sampler=Shuffled(len(inputs)))
for x, y in holdwater.batches(loader, steps=60):
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
final(model)
