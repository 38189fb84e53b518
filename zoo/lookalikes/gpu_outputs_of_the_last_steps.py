"""The outputs of the last fifty steps are kept on the GPU."""

from collections import deque

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 256)).cuda()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
outputs = deque(maxlen=50)
for step in range(500):
    batch = torch.randn(512, 256, device="cuda")
    output = model(batch)
    loss = output.pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    outputs.append(output.detach())
print("kept", len(outputs))
