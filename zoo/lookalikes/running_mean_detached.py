"""A running mean of activations is cut off from the graph."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
running = torch.zeros(128)
for step in range(300):
    batch = torch.randn(256, 64)
    hidden = model[:2](batch)
    loss = model[2:](hidden).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        running = 0.99 * running + 0.01 * (model[:2](batch) ** 2).mean(0)
print("running", float(running.mean()))
