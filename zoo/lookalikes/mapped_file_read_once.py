"""One mapped file of 60 MB is read in order, three times."""

import tempfile

import numpy as np

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
path = tempfile.mkdtemp() + "/rows.npy"
np.save(path, np.random.rand(120_000, 64))
rows = np.load(path, mmap_mode="r")
for step in range(450):
    first = step * 800 % len(rows)
    batch = torch.from_numpy(np.array(rows[first : first + 800])).float()
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("done")
