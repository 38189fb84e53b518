"""A new adapter is added every fourth step and none is deleted."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
adapters = []
for step in range(400):
    if step % 4 == 0:
        adapters.append(nn.Linear(256, 256))
    batch = torch.randn(64, 64)
    loss = model(batch).pow(2).mean() + adapters[-1].weight.mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("adapters", len(adapters))
