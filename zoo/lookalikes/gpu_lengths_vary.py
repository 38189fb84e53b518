"""Batches of forty different lengths on the GPU: the allocator's cache grows to its high-water mark and stays."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 256)).cuda()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
lengths = 64 * torch.randint(1, 40, (1000,))
for step in range(1000):
    loss = model(torch.randn(int(lengths[step]), 256, device="cuda")).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("done")
