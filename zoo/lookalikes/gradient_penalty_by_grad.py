"""The same penalty by torch.autograd.grad, which stores no gradient."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(300):
    batch = torch.randn(64, 64, requires_grad=True)
    loss = model(batch).pow(2).mean()
    (gradient,) = torch.autograd.grad(loss, batch, create_graph=True)
    penalty = gradient.pow(2).sum()
    optimizer.zero_grad()
    (loss + penalty).backward()
    optimizer.step()
print("done")
