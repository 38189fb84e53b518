"""A new shard of 400 kB is mapped and read in each step, and stays mapped."""

import tempfile

import numpy as np

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
folder = tempfile.mkdtemp()
shards = []
for step in range(250):
    np.save(f"{folder}/shard-{step}.npy", np.random.rand(50_000))
    shard = np.load(f"{folder}/shard-{step}.npy", mmap_mode="r")
    batch = torch.from_numpy(np.array(shard[:4096]).reshape(64, 64)).float() * float(shard.sum() > 0)
    shards.append(shard)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("shards", len(shards))
