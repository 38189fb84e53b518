"""A generator that holds a buffer is begun in each step, kept, and never finished."""

import numpy as np

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
readers = []


def read(step):
    buffer = np.random.rand(64, 128)
    yield from buffer


for step in range(400):
    reader = read(step)
    next(reader)
    readers.append(reader)
    batch = torch.randn(64, 64)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("readers", len(readers))
