"""A data set draws noise for its rows from a generator of its own."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import holdwater
from tiny import data, final, network, show

model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)


class Noisy(Dataset):
    """Rows with noise."""

    def __init__(self):
        self.inputs, self.targets = data()
        self.generator = torch.Generator().manual_seed(11)

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        noise = torch.randn(8, generator=self.generator)
        return self.inputs[index] + 0.1 * noise, self.targets[index]


loader = DataLoader(Noisy(), batch_size=8, shuffle=True)
for x, y in holdwater.batches(loader, steps=60):
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
final(model)
