"""The running loss on the GPU is a tensor: each addition links the step's graph, whose nodes lie on the host."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(*[layer for _ in range(6) for layer in (nn.Linear(256, 256), nn.ReLU())]).cuda()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
total = 0.0
for step in range(1500):
    loss = model(torch.randn(64, 256, device="cuda")).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    total = total + loss
print("mean loss", float(total) / 1500)
