"""Backward with create_graph=True makes a cycle of gradients and graphs that no collector can break."""

import warnings

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
warnings.simplefilter("ignore")
for step in range(300):
    batch = torch.randn(64, 64, requires_grad=True)
    loss = model(batch).pow(2).mean()
    loss.backward(create_graph=True)
    penalty = batch.grad.pow(2).sum()
    penalty.backward()
    optimizer.step()
    optimizer.zero_grad()
print("done")
