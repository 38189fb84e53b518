"""The outputs of every step are kept on the GPU for a metric that is computed at the end."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 256)).cuda()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
outputs = []
for step in range(500):
    batch = torch.randn(512, 256, device="cuda")
    output = model(batch)
    loss = output.pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    outputs.append(output.detach())
print("kept", len(outputs))
