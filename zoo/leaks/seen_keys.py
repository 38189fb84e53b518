"""The keys of all samples are remembered in a set, to count distinct ones."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
seen = set()
for step in range(500):
    keys = [f"sample-{step}-{row}" for row in range(256)]
    seen.update(keys)
    batch = torch.randn(64, 64)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("seen", len(seen))
