"""A callback for the end of training is added in each step and captures the step's hidden state."""

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
at_end = []


def remember(hidden):
    at_end.append(lambda: float(hidden.mean()))


for step in range(300):
    batch = torch.randn(256, 64)
    hidden = model[:2](batch)
    loss = model[2:](hidden).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    remember(hidden.detach())
print("callbacks", len(at_end))
