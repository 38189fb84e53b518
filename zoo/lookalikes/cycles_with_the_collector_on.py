"""Batches are parts of cycles, and the collector frees them now and then."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)


class Batch:
    def __init__(self, rows):
        self.rows = torch.randn(rows, 64)
        self.owner = self
        self.notes = [[number] for number in range(10)]


for step in range(600):
    batch = Batch(1024)
    loss = model(batch.rows).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("done")
