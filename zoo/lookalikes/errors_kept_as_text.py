"""Exceptions are collected as text."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
errors = []


def check(batch):
    scaled = batch * 2.0
    raise ValueError(f"a bad sample, mean {float(scaled.mean()):.3f}")


for step in range(300):
    batch = torch.randn(128, 64)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    try:
        check(torch.randn(1024, 64))
    except ValueError as error:
        errors.append(str(error))
print("errors", len(errors))
