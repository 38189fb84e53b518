"""The collector is switched off for speed, and each batch is part of a cycle."""

import gc

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
gc.disable()


class Batch:
    def __init__(self, rows):
        self.rows = torch.randn(rows, 64)
        self.owner = self


for step in range(400):
    batch = Batch(512)
    loss = model(batch.rows).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("collector on:", gc.isenabled())
