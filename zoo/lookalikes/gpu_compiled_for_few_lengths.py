"""A compiled model meets four lengths: compiling takes memory while it warms up, and then no more."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.LayerNorm(1024), nn.Linear(1024, 256)).cuda()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
compiled = torch.compile(model)
lengths = [128, 256, 384, 512]
for step in range(2000):
    length = lengths[0] if step < 50 else lengths[step % len(lengths)]
    batch = torch.randn(8, length, 256, device="cuda")
    loss = (compiled(batch) - batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
print("done")
