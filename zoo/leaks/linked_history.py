"""A linked list of states: each state holds the one before."""

import numpy as np

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)


class State:
    def __init__(self, previous, values):
        self.previous = previous
        self.values = values


state = None
for step in range(400):
    batch = torch.randn(64, 64)
    loss = model(batch).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    state = State(state, np.random.rand(64, 64))
print("state", state.values.shape)
