"""A clone of the first row of each large activation is kept."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
rows = []
for step in range(200):
    batch = torch.randn(4096, 64)
    hidden = model[:2](batch)
    loss = model[2:](hidden).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    rows.append(hidden.detach()[0].clone())
print("rows", len(rows))
