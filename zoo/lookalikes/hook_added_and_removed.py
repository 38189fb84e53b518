"""A hook that captures the batch is registered in each step and removed again."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(300):
    batch = torch.randn(256, 64)
    handle = model[4].register_forward_hook(lambda module, args, output, batch=batch: None)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    handle.remove()
print("hooks", len(model[4]._forward_hooks))
