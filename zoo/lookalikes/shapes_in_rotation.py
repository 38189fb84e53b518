"""A hundred input lengths in rotation."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Conv1d(16, 64, 7), nn.ReLU(), nn.Conv1d(64, 16, 7))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(500):
    batch = torch.randn(4, 16, 32 + step % 100)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("done")
