"""A replay buffer is allocated once, and its pages are touched one after another until it is full."""

import numpy as np

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
buffer = np.zeros((10_000, 640))
for step in range(500):
    batch = torch.randn(64, 64)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    first = step * 40 % len(buffer)
    buffer[first : first + 40, :64] = batch.numpy()[:40]
print("buffer", buffer.shape)
