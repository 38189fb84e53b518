"""A new adapter takes the place of the old one every fourth step."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
adapter = None
for step in range(400):
    if step % 4 == 0:
        adapter = nn.Linear(256, 256)
    batch = torch.randn(64, 64)
    loss = model(batch).pow(2).mean() + adapter.weight.mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("done")
