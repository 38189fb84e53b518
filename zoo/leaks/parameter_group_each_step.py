"""A parameter group for a new embedding is added to the optimizer every fourth step."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(240):
    if step % 4 == 0:
        embedding = nn.Parameter(torch.randn(100, 64))
        optimizer.add_param_group({"params": [embedding]})
    batch = torch.randn(100, 64)
    loss = model(batch + embedding).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("groups", len(optimizer.param_groups))
