"""A hook on a tensor appends its gradient to a list."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
gradients = []
for step in range(300):
    batch = torch.randn(256, 64)
    hidden = model[:2](batch)
    hidden.register_hook(lambda grad: gradients.append(grad))
    loss = model[2:](hidden).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("gradients", len(gradients))
