"""A large layer is frozen for 150 steps; its gradients and optimizer state are made when it thaws."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
large = nn.Linear(64, 100_000)
optimizer.add_param_group({"params": large.parameters()})
for parameter in large.parameters():
    parameter.requires_grad_(False)
for step in range(400):
    if step == 150:
        for parameter in large.parameters():
            parameter.requires_grad_(True)
    batch = torch.randn(2, 64)
    loss = model(batch).pow(2).mean() + large(batch).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("done")
