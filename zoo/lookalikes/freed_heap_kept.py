"""Half of many small blocks are freed after 100 steps; malloc keeps their pages."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
blocks = []
for step in range(400):
    if step < 100:
        blocks.append([bytes(2000) for _ in range(200)])
    if step == 100:
        blocks = [part[::7] for part in blocks]
    batch = torch.randn(64, 64)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("blocks", len(blocks))
